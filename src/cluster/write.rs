//! Calls that change a site. Whatever creates or alters is in the undo log before it is called.

use serde_json::{Value, json};

use super::answer::{JSON_PATCH, request, sound};
use super::client::Cluster;
use super::error::Error;
use super::kind::{ObjRef, Typed, uid};
use super::owner::{FIELD_MANAGER, Owner};
use super::undo::Undo;

/// A change to an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    /// JSON merge patch: `null` removes.
    Merge(Value),
    /// JSON patch: a list of operations; a failed `test` refuses all of them.
    Json(Value),
}

/// Whether dependents are deleted, and who waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// Dependents go in the background.
    #[default]
    Background,
    /// The object stays until its dependents are gone.
    Foreground,
    /// Dependents stay.
    Orphan,
}

impl Propagation {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

impl Cluster {
    /// The reference to an object given as a value: it needs apiVersion, kind and a fixed name, for
    /// a name that the server makes up could not be written down before the call.
    pub async fn reference(&self, object: &Value) -> Result<ObjRef, Error> {
        let text = |path: &str| {
            object
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (api_version, kind, name) =
            (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        if api_version.is_empty() || kind.is_empty() || name.is_empty() {
            return Err(Error::Invalid {
                tried: self.tried(format!("naming {kind} {name}")),
                message: "an object needs apiVersion, kind and metadata.name".into(),
            });
        }
        let kind = self.resolve(api_version, kind).await?;
        Ok(ObjRef::new(kind, text("/metadata/namespace"), name))
    }

    /// Creates an object with the run's labels. An object of the same run that already stands there
    /// (a repeated step) is returned as it is; anybody else's is [`Error::AlreadyExists`].
    pub async fn create(&self, owner: &Owner, object: Value) -> Result<Value, Error> {
        let reference = self.reference(&object).await?;
        let undo = Undo::Delete {
            site: self.site(),
            object: reference.clone(),
            uid: None,
        };
        self.make(owner, reference, object, undo).await
    }

    /// The same for a typed object that is undone in a way of its own.
    pub async fn create_undone_by<T: Typed>(
        &self,
        owner: &Owner,
        object: Value,
        undo: Undo,
    ) -> Result<T, Error> {
        let reference = self.reference(&object).await?;
        let made = self.make(owner, reference, object, undo).await?;
        self.decode(&format!("POST {}", T::KIND), made)
    }

    async fn make(
        &self,
        owner: &Owner,
        reference: ObjRef,
        mut object: Value,
        undo: Undo,
    ) -> Result<Value, Error> {
        let tried = self.tried(format!("POST {reference}"));
        sound(&tried, &reference)?;
        owner.stamp(&mut object);
        let entry = owner.undo().record(owner.lane_name(), undo).await?;
        let path = reference.kind.path(reference.namespace.as_deref());
        let path = format!("{path}?fieldManager={FIELD_MANAGER}");
        let request = request(&tried, "POST", &path, Some(("application/json", &object)))?;
        let outcome = match self.exchange(&tried, &request).await {
            Ok(answer) => answer.json(&tried),
            Err(e) => Err(e),
        };
        let made = match outcome {
            Err(Error::AlreadyExists { tried, message }) => {
                let existing = self.read(&reference).await?;
                if !owner.owns(&existing) {
                    owner.undo().done(entry).await?;
                    return Err(Error::AlreadyExists { tried, message });
                }
                existing
            }
            // The server refused: nothing was made. After other errors something may have been.
            Err(
                e @ (Error::Invalid { .. }
                | Error::Forbidden { .. }
                | Error::Unauthorized { .. }
                | Error::MissingKind { .. }
                | Error::NotFound { .. }),
            ) => {
                owner.undo().done(entry).await?;
                return Err(e);
            }
            other => other?,
        };
        if let Some(uid) = uid(&made) {
            owner.undo().learned(entry, uid).await?;
        }
        self.views().offer(&reference, &made);
        Ok(made)
    }

    /// Creates a typed object and returns it typed.
    pub async fn create_as<T: Typed>(&self, owner: &Owner, object: Value) -> Result<T, Error> {
        let made = self.create(owner, object).await?;
        self.decode(&format!("POST {}", T::KIND), made)
    }

    /// Creates or updates an object by server-side apply, for steps that may find an older form of
    /// their own object. Anybody else's object is left alone: [`Error::NotOwned`].
    pub async fn apply(&self, owner: &Owner, mut object: Value) -> Result<Value, Error> {
        let reference = self.reference(&object).await?;
        let tried = self.tried(format!("apply {reference}"));
        sound(&tried, &reference)?;
        match self.read(&reference).await {
            Ok(existing) if owner.owns(&existing) => {}
            Ok(_) => {
                return Err(Error::NotOwned {
                    tried,
                    object: reference.to_string(),
                });
            }
            // Between this look and the call somebody may still be faster; then `create` tells.
            Err(e) if e.is_not_found() => return self.create(owner, object).await,
            Err(e) => return Err(e),
        }
        owner.stamp(&mut object);
        let url = format!(
            "{}?fieldManager={FIELD_MANAGER}&force=true",
            reference.path()
        );
        let body = Some(("application/apply-patch+yaml", &object));
        let request = request(&tried, "PATCH", &url, body)?;
        let applied = self.exchange(&tried, &request).await?.json(&tried)?;
        self.views().offer(&reference, &applied);
        Ok(applied)
    }

    /// Changes an object that this run made, so that deleting it undoes the change too.
    pub async fn patch(&self, object: &ObjRef, patch: &Patch) -> Result<Value, Error> {
        let tried = self.tried(format!("PATCH {object}"));
        sound(&tried, object)?;
        let body = match patch {
            Patch::Merge(body) => ("application/merge-patch+json", body),
            Patch::Json(body) => (JSON_PATCH, body),
        };
        let url = format!("{}?fieldManager={FIELD_MANAGER}", object.path());
        let request = request(&tried, "PATCH", &url, Some(body))?;
        let changed = self.exchange(&tried, &request).await?.json(&tried)?;
        self.views().offer(object, &changed);
        Ok(changed)
    }

    /// Changes an object that the run did not make (adopted, or made by a controller): `restore` is
    /// the merge patch that puts the old state back and goes into the undo log first.
    pub async fn patch_recorded(
        &self,
        owner: &Owner,
        object: &ObjRef,
        patch: &Patch,
        restore: Value,
    ) -> Result<Value, Error> {
        let undo = Undo::Patch {
            site: self.site(),
            object: object.clone(),
            merge: restore,
        };
        owner.undo().record(owner.lane_name(), undo).await?;
        self.patch(object, patch).await
    }

    /// Asks for an object's deletion; `false` when there was none. With `uid`, another object of the
    /// same name is left alone and the call is a [`Error::Conflict`]. Finalizers may keep the object
    /// for a while: wait with `until_gone`.
    pub async fn delete(
        &self,
        object: &ObjRef,
        uid: Option<&str>,
        propagation: Propagation,
    ) -> Result<bool, Error> {
        let options = json!({ "propagationPolicy": propagation.as_str() });
        self.delete_with(object, uid, options).await
    }

    /// The same without any grace: the kubelet kills what still runs of a pod. Objects of other kinds
    /// know no grace, whatever they are deleted with.
    pub async fn kill(&self, object: &ObjRef, uid: &str) -> Result<bool, Error> {
        let options = json!({ "gracePeriodSeconds": 0 });
        self.delete_with(object, Some(uid), options).await
    }

    async fn delete_with(
        &self,
        object: &ObjRef,
        uid: Option<&str>,
        mut options: Value,
    ) -> Result<bool, Error> {
        let tried = self.tried(format!("DELETE {object}"));
        sound(&tried, object)?;
        options["apiVersion"] = json!("v1");
        options["kind"] = json!("DeleteOptions");
        if let Some(uid) = uid {
            options["preconditions"] = json!({ "uid": uid });
        }
        let body = Some(("application/json", &options));
        let request = request(&tried, "DELETE", &object.path(), body)?;
        match self.exchange(&tried, &request).await?.ok(&tried) {
            Ok(()) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }
}
