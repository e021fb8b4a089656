//! How the array's replication verbs fail: the gRPC codes of the csi-addons specification, with
//! which the controllers above decide (replication.md §2).

/// A gRPC status code as the csi-addons replication calls use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request makes no sense in the image's state, such as promote without mirroring.
    InvalidArgument,
    /// No such image, or nothing to tell about it.
    NotFound,
    /// Promote: mirroring is not enabled or force is needed. Demote: the image is in use.
    FailedPrecondition,
    /// Another operation on the image is pending.
    Aborted,
    /// The deadline of the call passed.
    DeadlineExceeded,
    /// Cannot be done now.
    Unavailable,
    /// Anything else.
    Internal,
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {code:?} desc = {message}")]
pub struct Status {
    /// Its code.
    pub code: Code,
    /// Its text, which csi-addons copies into `status.message`.
    pub message: String,
}

impl Status {
    /// A status of `code` with `message`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// The result of a replication verb.
pub type Outcome<T = ()> = Result<T, Status>;
