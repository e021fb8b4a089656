//! Admission of storage objects: the defaults of claims and CDI's guard over existing claims.

use serde_json::Value;

use super::CLAIMS;
use super::objects::default_claim;
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
        Ok(Vec::new())
    }
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
