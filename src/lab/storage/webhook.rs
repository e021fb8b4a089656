//! Admission of storage objects: the defaults of claims and CDI's guard over existing claims.

use serde_json::Value;

use super::objects::{class, default_claim, phase};
use super::{CLAIMS, STORAGE_CLASSES, quantity};
use crate::lab::api::{Admission, ApiError, Operation, Review, meta};

/// The API server's own plugins for claims, and CDI's validating webhook for DataVolumes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claims;

impl Admission for Claims {
    fn mutate(&self, review: &Review<'_>, object: &mut Value) -> Result<(), ApiError> {
        if review.resource == CLAIMS
            && review.operation == Operation::Create
            && review.subresource.is_none()
        {
            default_claim(review.store, object);
        }
        Ok(())
    }

    fn validate(&self, review: &Review<'_>, object: &Value) -> Result<Vec<String>, ApiError> {
        if review.resource == super::DATA_VOLUMES && review.operation == Operation::Create {
            destination_is_free(review, object)?;
        }
        if review.resource == CLAIMS
            && review.operation == Operation::Update
            && review.subresource.is_none()
            && let Some(old) = review.old
        {
            may_grow(review, old, object)?;
        }
        Ok(Vec::new())
    }
}

/// The admission plugin PersistentVolumeClaimResize: a claim grows only where its class says so. How
/// its volume came about, which its words are about, it does not look at.
fn may_grow(review: &Review<'_>, old: &Value, new: &Value) -> Result<(), ApiError> {
    let asked = |claim| quantity::bytes(meta::text(claim, "/spec/resources/requests/storage"));
    if asked(new) <= asked(old) {
        return Ok(());
    }
    let class = review.store.get(STORAGE_CLASSES, "", class(new));
    let why = if phase(old) != "Bound" {
        "Only bound persistent volume claims can be expanded"
    } else if class.is_none_or(|class| class["allowVolumeExpansion"] != true) {
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the \
         pvc must support resize"
    } else {
        return Ok(());
    };
    let name = meta::name(old);
    let text = format!("persistentvolumeclaims \"{name}\" is forbidden: {why}");
    Err(ApiError::new(403, "Forbidden", text))
}

/// A DataVolume may not be made over a claim of its name, unless the claim is populated for it or
/// it may adopt it (kubevirt.md §3).
fn destination_is_free(review: &Review<'_>, dv: &Value) -> Result<(), ApiError> {
    let name = meta::name(dv);
    let Some(claim) = review.store.get(CLAIMS, review.namespace, name) else {
        return Ok(());
    };
    let adopts = super::datavolumes::may_adopt(dv);
    let populated = meta::annotation(&claim, super::datavolumes::POPULATED_FOR) == Some(name)
        || meta::annotation(dv, super::datavolumes::PRE_POPULATED).is_some();
    if adopts || populated {
        return Ok(());
    }
    let text = format!(
        "admission webhook \"datavolume-validate.cdi.kubevirt.io\" denied the request:  \
         Destination PVC {}/{name} already exists",
        review.namespace
    );
    Err(ApiError::new(422, "Invalid", text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::history::event::Site::Primary;
    use crate::lab::api::{Part, Store, User};
    use crate::lab::world;

    /// What becomes of a claim's change in size, as the chain sees it.
    fn asked(store: &Store, phase: &str, size: &str) -> Result<Vec<String>, ApiError> {
        let claim = |size: &str| {
            json!({
                "metadata": {"namespace": "default", "name": "data"},
                "spec": {
                    "storageClassName": world::CLASS_BLOCK,
                    "resources": {"requests": {"storage": size}},
                },
                "status": {"phase": phase},
            })
        };
        let old = claim("1Gi");
        let user = User {
            name: "admin".into(),
            uid: String::new(),
            groups: Vec::new(),
        };
        let review = Review {
            operation: Operation::Update,
            resource: CLAIMS,
            subresource: None,
            namespace: "default",
            name: "data",
            old: Some(&old),
            user: &user,
            dry_run: false,
            store,
        };
        Claims.validate(&review, &claim(size))
    }

    #[test]
    fn a_claim_grows_only_once_it_is_bound_and_where_its_class_says_so() {
        let store = Store::new(1);
        crate::lab::storage::seed(&store, Primary).unwrap();
        assert!(asked(&store, "Bound", "2Gi").is_ok());
        assert!(asked(&store, "Pending", "1024Mi").is_ok(), "the same size");
        let early = asked(&store, "Pending", "2Gi").unwrap_err();
        assert!(early.message.contains("Only bound"), "{early}");
        store
            .modify(STORAGE_CLASSES, "", world::CLASS_BLOCK, Part::Any, |c| {
                c["allowVolumeExpansion"] = json!(false);
            })
            .unwrap();
        let refused = asked(&store, "Bound", "2Gi").unwrap_err();
        assert!(refused.code == 403 && refused.reason == "Forbidden");
        assert_eq!(
            refused.message,
            "persistentvolumeclaims \"data\" is forbidden: only dynamically provisioned pvc can be \
             resized and the storageclass that provisions the pvc must support resize"
        );
    }
}
