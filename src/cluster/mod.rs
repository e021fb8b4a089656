//! The only module that calls an API server or waits on one.
//!
//! Contract: typed objects, one watch per kind and site, every deadline, ownership and the undo log.
//! May use: plan, history.
pub mod crd;
