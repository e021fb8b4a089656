//! Parse and dispatch; the only place that prints or exits.
//!
//! Contract: exit codes stand in `exit`.
//! May use: everything.
