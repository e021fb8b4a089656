//! One idempotent step toward a replication goal, and an observation.
//!
//! Contract: no loops, no verdicts; the safety gates stand once, in `gate`.
//! May use: plan, history, cluster, workload.
