//! Who logs in to a VM, and how the SSH key reaches that user.

use serde_json::json;

use super::cloudinit::{self, CloudInit, Place, Source};
use super::manifest::Manifest;
use super::rendered::Propagation;
use super::{SSH_KEY_ANNOTATION, SSH_USER_ANNOTATION, blank, disks};
use crate::plan::problem::Problems;

/// Who logs in and how the key gets there.
pub(super) struct Login {
    /// Login name.
    pub(super) user: String,
    /// How the key gets in.
    pub(super) propagation: Propagation,
    /// The user data to be changed, if any.
    pub(super) place: Option<Place>,
}

impl Login {
    /// Works out the login of a VM: the plan's word first, then the annotation, then the cloud-config.
    pub(super) fn find(
        manifest: &mut Manifest,
        explicit: Option<&str>,
        notes: &mut Vec<String>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let annotations = manifest.vm.value["metadata"]["annotations"].clone();
        let annotated = annotations[SSH_USER_ANNOTATION].as_str();
        let cloud_init = cloudinit::find(&manifest.vm.value, &manifest.secrets);
        let logins = cloud_init
            .as_ref()
            .and_then(|found| found.user_data.as_ref())
            .map(|(_, text)| cloudinit::logins(text));
        let in_config = logins.as_ref().and_then(|logins| {
            let listed = logins.listed.first();
            logins
                .default_name
                .as_ref()
                .filter(|_| logins.makes_default)
                .or(listed)
        });
        let Some(user) = explicit
            .or(annotated)
            .or_else(|| in_config.map(String::as_str))
        else {
            problems.add(
                manifest.vm.at("metadata"),
                "nothing says which user to log in as",
                format!(
                    "`ssh.user` in the plan, the annotation `{SSH_USER_ANNOTATION}` on the VM, or \
                     `user:` in its cloud-config"
                ),
                format!("add `annotations: {{{SSH_USER_ANNOTATION}: NAME}}` to the VM's metadata"),
            );
            return None;
        };
        let user = user.to_owned();
        let place = cloud_init
            .as_ref()
            .and_then(|found| found.user_data.clone());
        let propagation = match annotations[SSH_KEY_ANNOTATION].as_str() {
            None | Some("cloud-init") => {
                let makes = logins.as_ref().is_none_or(|logins| logins.makes_default);
                let listed = logins.is_some_and(|logins| logins.listed.contains(&user));
                if !makes && !listed && user != "root" {
                    problems.add(
                        manifest.vm.at(disks::VOLUMES),
                        format!("the cloud-config makes no user `{user}`"),
                        "the login user among `users`, or `default`",
                        format!("add `- name: {user}` or `- default` to `users`"),
                    );
                }
                let takes =
                    |(_, text): &(Place, String)| cloudinit::add_key(text, &user, "key").is_some();
                if listed && !place.as_ref().is_some_and(takes) {
                    problems.add(
                        manifest.vm.at(disks::VOLUMES),
                        format!("the key cannot be added to the user `{user}` in the cloud-config"),
                        "a `users` list with mappings",
                        format!("write `- name: {user}`"),
                    );
                }
                through_cloud_init(manifest, cloud_init.as_ref(), listed, notes)
            }
            Some("guest-agent") => Propagation::GuestAgent,
            Some("none") => Propagation::None,
            Some(other) => {
                problems.add(
                    manifest.vm.at("metadata/annotations"),
                    format!("the annotation `{SSH_KEY_ANNOTATION}` is `{other}`"),
                    "`cloud-init`, `guest-agent` or `none`",
                    "correct it",
                );
                Propagation::None
            }
        };
        let place = place
            .map(|(place, _)| place)
            .filter(|_| propagation == Propagation::UserData);
        Some(Self {
            user,
            propagation,
            place,
        })
    }
}

fn through_cloud_init(
    manifest: &mut Manifest,
    cloud_init: Option<&CloudInit>,
    listed: bool,
    notes: &mut Vec<String>,
) -> Propagation {
    match cloud_init {
        Some(_) if listed => Propagation::UserData,
        Some(found) => match found.source {
            Source::NoCloud => Propagation::NoCloud,
            Source::ConfigDrive => Propagation::ConfigDrive,
        },
        None => {
            let volume = json!({
                "name": "virtproof-cloudinit",
                "cloudInitNoCloud": {"userData": "#cloud-config\n{}\n"},
            });
            blank::push(&mut manifest.vm.value, disks::VOLUMES, volume);
            let disk = json!({"name": "virtproof-cloudinit", "disk": {"bus": "virtio"}});
            blank::push(&mut manifest.vm.value, disks::DISKS, disk);
            notes.push("a cloud-init volume is added for the SSH key".to_owned());
            Propagation::NoCloud
        }
    }
}
