//! VM templates and Recipes to objects and findings.
//!
//! Contract: pure; text and parameters in, Kubernetes objects out; touches no cluster.
//! May use: plan, cluster::crd.
