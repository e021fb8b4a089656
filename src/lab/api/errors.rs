//! What an API server answers when it refuses: `Status` bodies with the reason, code, details and
//! wording of Kubernetes 1.36 (see the recorded transcripts for the real text of each).

use serde_json::{Map, Value, json};

/// One entry of `details.causes`: a field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable kind, such as `FieldValueRequired`.
    pub reason: &'static str,
    /// What is wrong, without the field.
    pub message: String,
    /// The field's path, such as `spec.replicationState`.
    pub field: String,
}

impl Cause {
    /// A cause; the field is a dotted path.
    pub fn new(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            field: field.into(),
        }
    }

    /// A value that is refused: `Invalid value: V: why`.
    pub fn invalid(field: impl Into<String>, value: &Value, why: impl AsRef<str>) -> Self {
        let message = format!("Invalid value: {value}: {}", why.as_ref());
        Self::new("FieldValueInvalid", field, message)
    }

    /// A value that is missing.
    pub fn required(field: impl Into<String>, why: impl AsRef<str>) -> Self {
        let why = why.as_ref();
        let message = if why.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {why}")
        };
        Self::new("FieldValueRequired", field, message)
    }
}

/// A refusal, ready to be sent as a `Status`. Boxed, because every call can return one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", .0.message)]
pub struct ApiError(Box<Refusal>);

impl std::ops::Deref for ApiError {
    type Target = Refusal;

    fn deref(&self) -> &Refusal {
        &self.0
    }
}

impl std::ops::DerefMut for ApiError {
    fn deref_mut(&mut self) -> &mut Refusal {
        &mut self.0
    }
}

/// The parts of an [`ApiError`].
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// `reason` of the `Status`; empty where the real server sends none.
    pub reason: String,
    /// `message` of the `Status`.
    pub message: String,
    /// `details` of the `Status`.
    pub details: Option<Value>,
    /// Seconds of the `Retry-After` header.
    pub retry_after: Option<u32>,
    /// `metadata.continue`, which an expired page token carries to go on inconsistently.
    pub resume: Option<String>,
    /// Sent as `text/plain` instead of as a `Status`.
    pub plain: bool,
}

impl ApiError {
    /// An error with neither details nor headers.
    pub fn new(code: u16, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Refusal {
            code,
            reason: reason.into(),
            message: message.into(),
            details: None,
            retry_after: None,
            resume: None,
            plain: false,
        }))
    }

    /// The same error with `details`.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// An error that is sent as plain text, as proxies and muxes do.
    pub fn plain(code: u16, text: impl Into<String>) -> Self {
        let mut error = Self::new(code, "", text);
        error.plain = true;
        error
    }

    /// The mux's answer for a path nobody serves.
    pub fn no_path() -> Self {
        Self::plain(404, "404 page not found\n")
    }

    /// 404 for a resource that a built-in group does not have.
    pub fn no_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(404, "NotFound", message).with_details(json!({}))
    }

    /// 405.
    pub fn not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message).with_details(json!({}))
    }

    /// 404 for an object; `resource` is the key, such as `virtualmachines.kubevirt.io`.
    pub fn not_found(resource: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} \"{name}\" not found"))
            .with_details(object_details(resource, name))
    }

    /// 409 for a create of what exists.
    pub fn already_exists(resource: &str, name: &str) -> Self {
        let message = format!("{resource} \"{name}\" already exists");
        Self::new(409, "AlreadyExists", message).with_details(object_details(resource, name))
    }

    /// 409 for an optimistic lock that failed, or a precondition.
    pub fn conflict(resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Self::new(409, "Conflict", message).with_details(object_details(resource, name))
    }

    /// 409 for a write that was computed from an older version of the object.
    pub fn stale(resource: &str, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403 with a reason of the caller's.
    pub fn forbidden(resource: &str, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} \"{name}\" is forbidden: {why}")
        };
        Self::new(403, "Forbidden", message).with_details(object_details(resource, name))
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 500, worded as the server words its own failures.
    pub fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
        )
        .with_details(json!({"causes": [{"message": message}]}))
    }

    /// 410 for a resource version that is no longer kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 422 with its causes; `kind` as in `VirtualMachine.kubevirt.io` (`Pod` in the core group).
    pub fn invalid(kind: &str, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let listed = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut details = object_details(kind, name);
        rename(&mut details, kind);
        details["causes"] = causes
            .iter()
            .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}))
            .collect();
        let message = format!("{kind} \"{name}\" is invalid: {listed}");
        Self::new(422, "Invalid", message).with_details(details)
    }

    /// The `Status` body.
    pub fn to_status(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(resume) = &self.resume {
            metadata.insert("continue".to_owned(), json!(resume));
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status["code"] = json!(self.code);
        status
    }
}

/// `details` that name an object: `name`, `group`, `kind` (which is the plural, as the server has it).
fn object_details(resource: &str, name: &str) -> Value {
    let (kind, group) = resource.split_once('.').unwrap_or((resource, ""));
    let mut details = Map::new();
    if !name.is_empty() {
        details.insert("name".to_owned(), json!(name));
    }
    if !group.is_empty() {
        details.insert("group".to_owned(), json!(group));
    }
    details.insert("kind".to_owned(), json!(kind));
    Value::Object(details)
}

/// Validation errors name the kind, not the plural.
fn rename(details: &mut Value, kind: &str) {
    let kind = kind.split('.').next().unwrap_or(kind);
    if let Some(fields) = details.as_object_mut() {
        if kind.is_empty() {
            fields.shift_remove("kind");
        } else {
            fields.insert("kind".to_owned(), json!(kind));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_object_is_named_in_message_and_details() {
        let status = ApiError::not_found("virtualmachines.kubevirt.io", "a").to_status();
        assert_eq!(
            status["message"],
            "virtualmachines.kubevirt.io \"a\" not found"
        );
        assert_eq!(
            status["details"],
            json!({"name": "a", "group": "kubevirt.io", "kind": "virtualmachines"})
        );
        assert_eq!(status["code"], 404);
    }

    #[test]
    fn causes_are_listed_in_brackets_when_there_are_several() {
        let causes = [
            Cause::required("spec.a", ""),
            Cause::invalid("spec.b", &json!("x"), "no"),
        ];
        let error = ApiError::invalid("Thing.example.com", "t", &causes);
        assert_eq!(
            error.message,
            "Thing.example.com \"t\" is invalid: [spec.a: Required value, spec.b: Invalid value: \"x\": no]"
        );
        let one = ApiError::invalid("Thing.example.com", "t", &causes[..1]);
        assert_eq!(
            one.message,
            "Thing.example.com \"t\" is invalid: spec.a: Required value"
        );
    }
}
