//! A route to a byte stream, and SSH on any stream.
//!
//! Contract: expects every stream to break at any byte; pins host keys; builds no shell string from untrusted text.
//! May use: plan, cluster.
