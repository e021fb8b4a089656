//! Creates and updates: decoding, defaults, admission, validation, and the write itself.

use std::sync::Arc;

use http::Response;
use serde_json::{Value, json};

use super::body;
use super::builtin;
use super::call::Call;
use super::crd;
use super::options::{FieldValidation, WriteOptions};
use super::remove;
use crate::lab::api::errors::{ApiError, Cause};
use crate::lab::api::fields::{self, Writer, track};
use crate::lab::api::hooks::{Body, Operation, Review};
use crate::lab::api::meta;
use crate::lab::api::schema;
use crate::lab::api::store::{Part, keep_part};

/// Answers a create, also of the subresources that are created: `binding` and `eviction`.
pub(super) fn create(call: &mut Call, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
    call.check_subresource()?;
    match call.target.subresource.as_str() {
        "" => {}
        "eviction" => return remove::evict(call, bytes),
        "binding" => return builtin::bind(call, bytes),
        _ => return Err(ApiError::not_allowed()),
    }
    let options = WriteOptions::parse(&call.query, "CreateOptions", &call.agent)?;
    let (mut object, twice) = body::object(&call.headers, bytes, call.kind())?;
    warn_of_other_version(call, &object);
    check_kind(call, &object, bytes)?;
    check_fields(call, &mut object, &twice, options.validation)?;
    let stored = create_object(call, object, &options, false)?;
    call.answer(201, &stored)
}

/// A custom resource in a version that is not the path's is looked at without its schema before it
/// is refused, so that all its fields are unknown.
fn warn_of_other_version(call: &mut Call, object: &Value) {
    let version = meta::text(object, "/apiVersion");
    if !call.kind().custom() || version.is_empty() || version == call.kinds.api_version {
        return;
    }
    let fields = object.as_object().into_iter().flatten();
    let unknown = fields
        .map(|(field, _)| field)
        .filter(|field| !matches!(field.as_str(), "apiVersion" | "kind" | "metadata"))
        .map(|field| format!("unknown field \"{field}\""));
    call.warnings.extend(unknown);
}

/// Creates a decoded object; `tracked` says that its `managedFields` are right already.
pub(super) fn create_object(
    call: &mut Call,
    mut object: Value,
    options: &WriteOptions,
    tracked: bool,
) -> Result<Arc<Value>, ApiError> {
    place(call, &mut object)?;
    if !tracked && !meta::text(&object, "/metadata/resourceVersion").is_empty() {
        let message = "resourceVersion should not be set on objects to be created";
        return Err(ApiError::new(500, "", message));
    }
    meta::metadata(&mut object).shift_remove("resourceVersion");
    call.shared
        .store
        .lock()
        .check_home(&call.kinds.key, &call.key(meta::name(&object)))?;
    if call.kind().status && call.kind().custom() {
        remove_field(&mut object, "status");
    }
    prepare(call, &mut object);
    if !tracked {
        let kind = Arc::clone(&call.kinds.kind);
        meta::metadata(&mut object).shift_remove("managedFields");
        track(&kind, None, &mut object, &writer(call, options));
    }
    builtin::start(&call.kinds.key, &mut object);
    let causes = builtin::check_new_event(call.kind(), &object);
    refuse(call, &object, &causes)?;
    if call.kind().group == builtin::EVENTS_GROUP {
        object = builtin::from_new_event(&object);
    }
    admit(
        call,
        Operation::Create,
        None,
        &mut object,
        options.dry_run,
        |call, object| check(call, object, None),
    )?;
    let created = call
        .shared
        .store
        .lock()
        .create(&call.kinds.key, object, options.dry_run)?;
    if call.kinds.key == crd::KEY && !options.dry_run {
        crd::establish(&call.shared, meta::name(&created));
    }
    Ok(created)
}

fn remove_field(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.shift_remove(field);
    }
}

/// Who writes, for `managedFields`.
pub(super) fn writer(call: &Call, options: &WriteOptions) -> Writer {
    Writer {
        manager: options.manager.clone(),
        api_version: call.kinds.api_version.clone(),
        subresource: call.target.subresource.clone(),
    }
}

/// The object's kind must be that of the path. Built-in kinds may leave it out.
fn check_kind(call: &Call, object: &Value, bytes: &[u8]) -> Result<(), ApiError> {
    let kind = call.kind();
    let (api_version, name) = (
        meta::text(object, "/apiVersion"),
        meta::text(object, "/kind"),
    );
    let unrecognized = |why: &str| {
        let text = String::from_utf8_lossy(bytes);
        let short: String = text.chars().take(30).collect();
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {why} in '{text}' ({short} ...)",
            kind.kind
        ))
    };
    if kind.custom() {
        if name.is_empty() {
            return Err(unrecognized("Object 'Kind' is missing"));
        }
        if api_version.is_empty() {
            return Err(unrecognized("Object 'apiVersion' is missing"));
        }
    }
    if !name.is_empty() && name != kind.kind {
        let version = call.target.version.as_str();
        return Err(ApiError::bad_request(format!(
            "{name} in version \"{version}\" cannot be handled as a {0}: converting ({version}.{name}) to ({1}.{0}): unknown conversion",
            kind.kind,
            if kind.group.is_empty() {
                "core"
            } else {
                &kind.group
            },
        )));
    }
    if !api_version.is_empty() && api_version != call.kinds.api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            call.kinds.api_version
        )));
    }
    if !kind.custom()
        && let Some(why) = body::type_error(kind, object)
    {
        return Err(undecodable(call, &why));
    }
    Ok(())
}

fn undecodable(call: &Call, why: &str) -> ApiError {
    ApiError::bad_request(format!(
        "{0} in version \"{1}\" cannot be handled as a {0}: {why}",
        call.kind().kind,
        call.target.version
    ))
}

/// What is unknown or given twice: refused, warned of, or ignored; unknown fields are taken away.
fn check_fields(
    call: &mut Call,
    object: &mut Value,
    twice: &[String],
    validation: FieldValidation,
) -> Result<(), ApiError> {
    let found = unknown_and_twice(call, object, twice);
    if found.is_empty() {
        return Ok(());
    }
    match validation {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            call.warnings.extend(found);
            Ok(())
        }
        FieldValidation::Strict => Err(undecodable(
            call,
            &format!("strict decoding error: {}", found.join(", ")),
        )),
    }
}

fn unknown_and_twice(call: &Call, object: &mut Value, twice: &[String]) -> Vec<String> {
    let mut unknown = schema::prune(&fields::whole(call.kind()), object);
    unknown.sort();
    let mut found: Vec<String> = unknown
        .iter()
        .map(|path| format!("unknown field \"{path}\""))
        .collect();
    found.extend(
        twice
            .iter()
            .map(|path| format!("duplicate field \"{path}\"")),
    );
    found
}

/// The same for the result of a patch, which is refused as a bad patch.
pub(super) fn check_patched(
    call: &mut Call,
    object: &mut Value,
    validation: FieldValidation,
) -> Result<(), ApiError> {
    let text = object.to_string();
    let bad_patch = |why: &str| {
        let cause = Cause::invalid("patch", &json!(text), why);
        ApiError::invalid("", "", &[cause])
    };
    if !call.kind().custom()
        && let Some(why) = body::type_error(call.kind(), object)
    {
        return Err(bad_patch(&why));
    }
    let found = unknown_and_twice(call, object, &[]);
    match validation {
        FieldValidation::Strict if !found.is_empty() => Err(bad_patch(&format!(
            "strict decoding error: {}",
            found.join(", ")
        ))),
        FieldValidation::Warn => {
            call.warnings.extend(found);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Namespace and name against the path.
fn place(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    if !object["metadata"].is_object() {
        meta::metadata(object);
    }
    if call.kind().namespaced {
        let namespace = meta::namespace(object);
        if !namespace.is_empty() && namespace != call.target.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        meta::metadata(object).insert("namespace".to_owned(), json!(call.target.namespace));
    }
    let (name, wanted) = (meta::name(object), call.target.name.as_str());
    if !wanted.is_empty() && name != wanted && !name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        )));
    }
    if !wanted.is_empty() && name.is_empty() {
        meta::metadata(object).insert("name".to_owned(), json!(wanted));
    }
    Ok(())
}

/// Defaults and the forms that are stored.
fn prepare(call: &Call, object: &mut Value) {
    let kind = call.kind();
    if kind.custom() {
        schema::fill(&kind.schema, object);
    } else {
        fields::materialize(&kind.schema, object);
        builtin::defaults(&call.kinds.key, object);
        body::normalize_times(&kind.schema, object);
    }
}

/// Answers an update.
pub(super) fn update(call: &mut Call, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
    call.check_subresource()?;
    let options = WriteOptions::parse(&call.query, "UpdateOptions", &call.agent)?;
    let (mut object, twice) = body::object(&call.headers, bytes, call.kind())?;
    check_kind(call, &object, bytes)?;
    check_fields(call, &mut object, &twice, options.validation)?;
    place(call, &mut object)?;
    loop {
        let old = call.stored()?;
        check_version(call, &old, &object, true)?;
        if let Some(stored) = replace(call, &old, object.clone(), &options, false)? {
            return call.answer(200, &stored);
        }
    }
}

/// Whether the write was computed from the stored object. Custom resources must say from which.
pub(super) fn check_version(
    call: &Call,
    old: &Value,
    new: &Value,
    whole: bool,
) -> Result<(), ApiError> {
    let (name, key) = (meta::name(old), call.kind().key());
    let version = meta::text(new, "/metadata/resourceVersion");
    if version.is_empty() {
        if whole && call.kind().custom() {
            let cause = Cause::invalid(
                "metadata.resourceVersion",
                &json!(0),
                "must be specified for an update",
            );
            let mut error = ApiError::invalid(&key, name, &[cause]);
            if let Some(details) = &mut error.details {
                details["group"] = json!(call.kind().group);
            }
            return Err(error);
        }
    } else if version.parse::<u64>().is_err() {
        let message = format!("strconv.ParseUint: parsing {version:?}: invalid syntax");
        return Err(ApiError::new(500, "", message));
    } else if version != meta::text(old, "/metadata/resourceVersion") {
        return Err(ApiError::stale(&key, name));
    }
    let uid = meta::uid(new);
    if whole && !uid.is_empty() && uid != meta::uid(old) {
        let path = if call.kind().group.is_empty() {
            call.kind().plural.clone()
        } else {
            format!("{}/{}", call.kind().group, call.kind().plural)
        };
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{path}/{}/{name}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            call.target.namespace,
            meta::uid(old)
        );
        return Err(ApiError::conflict(&key, name, &why));
    }
    Ok(())
}

/// Writes the new state of an object, with everything that an update goes through. `None`:
/// somebody else wrote in between.
pub(super) fn replace(
    call: &mut Call,
    old: &Arc<Value>,
    mut new: Value,
    options: &WriteOptions,
    tracked: bool,
) -> Result<Option<Arc<Value>>, ApiError> {
    let kind = Arc::clone(&call.kinds.kind);
    if kind.group == builtin::EVENTS_GROUP {
        new = builtin::from_new_event(&new);
    }
    let part = match call.target.subresource.as_str() {
        "" => Part::Object,
        "status" => Part::Status,
        _ => Part::Any,
    };
    let causes = identity_causes(call, old, &new);
    refuse(call, old, &causes)?;
    prepare(call, &mut new);
    keep_part(&kind, old, &mut new, part);
    if !tracked {
        track(&kind, Some(old), &mut new, &writer(call, options));
    }
    let before = Arc::clone(old);
    admit(
        call,
        Operation::Update,
        Some(old),
        &mut new,
        options.dry_run,
        move |call, object| check(call, object, Some(&before)),
    )?;
    let key = call.key(&call.target.name);
    let stored = call
        .shared
        .store
        .lock()
        .replace(&key, Some(old), new, part, options.dry_run)?;
    if call.kinds.key == crd::KEY && stored.is_some() && !options.dry_run {
        crd::refresh(&call.shared.store, &call.target.name)?;
    }
    Ok(stored)
}

/// Changes of identity. Built-in kinds check metadata twice, and both findings are in the details.
fn identity_causes(call: &Call, old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let uid = meta::uid(new);
    if !uid.is_empty() && uid != meta::uid(old) {
        causes.push(Cause::invalid(
            "metadata.uid",
            &json!(uid),
            "field is immutable",
        ));
    }
    if meta::deleting(old) {
        causes.extend(builtin::new_finalizers(old, new));
    }
    if !call.kind().custom() {
        causes.extend(causes.clone());
    }
    causes
}

/// 422 unless there is nothing wrong. Findings that are said twice are shown once.
fn refuse(call: &Call, object: &Value, causes: &[Cause]) -> Result<(), ApiError> {
    if causes.is_empty() {
        return Ok(());
    }
    let kind = if call.kind().group == builtin::EVENTS_GROUP {
        call.kind().kind.clone()
    } else {
        call.kind().qualified()
    };
    Err(ApiError::invalid(&kind, meta::name(object), causes))
}

/// Everything that is wrong with an object.
fn check(call: &Call, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let mut causes = builtin::check_metadata(call.kind(), object);
    if call.kind().custom() {
        causes.extend(schema::validate(&call.kind().schema, object, old));
    } else {
        causes.extend(builtin::check(&call.kinds.key, object, old));
    }
    refuse(call, object, &causes)
}

/// Mutating admission, the server's own validation, then validating admission.
fn admit(
    call: &mut Call,
    operation: Operation,
    old: Option<&Arc<Value>>,
    object: &mut Value,
    dry_run: bool,
    validate: impl FnOnce(&Call, &Value) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let shared = Arc::clone(&call.shared);
    let name = meta::name(object).to_owned();
    let subresource = call.target.subresource.clone();
    let review = Review {
        operation,
        resource: &call.kinds.key,
        subresource: (!subresource.is_empty()).then_some(subresource.as_str()),
        namespace: &call.target.namespace,
        name: &name,
        old: old.map(|old| &**old),
        user: &call.user,
        dry_run,
        store: &shared.store,
    };
    for webhook in &shared.admission {
        webhook.mutate(&review, object)?;
    }
    validate(call, object)?;
    let mut warnings = Vec::new();
    for webhook in &shared.admission {
        warnings.extend(webhook.validate(&review, object)?);
    }
    call.warnings.extend(warnings);
    Ok(())
}
