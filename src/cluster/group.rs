//! Group snapshots, whose API several releases serve under different versions.

use super::client::Cluster;
use super::error::Error;
use super::kind::Kind;

/// Older versions than v1 that serve what is asked of them here, newest first.
const OLDER: [&str; 2] = ["v1beta2", "v1beta1"];

impl Cluster {
    /// The kind VolumeGroupSnapshot in the newest version that the cluster serves.
    pub async fn group_snapshots(&self) -> Result<Kind, Error> {
        let asked = async |version: &str| {
            let api = format!("groupsnapshot.storage.k8s.io/{version}");
            self.resolve(&api, "VolumeGroupSnapshot").await
        };
        let newest = asked("v1").await;
        for version in OLDER {
            if !matches!(newest, Err(Error::MissingKind { .. })) {
                break;
            }
            if let Ok(kind) = asked(version).await {
                return Ok(kind);
            }
        }
        newest
    }
}
