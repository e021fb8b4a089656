//! The cloud-init data of a VM: where it stands, which user it logs in, and adding a key to a user
//! that it lists itself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::disks::{VOLUMES, list};
use super::manifest::Object;
use crate::plan::yaml;

/// How cloud-init finds its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A volume with the label `cidata`.
    NoCloud,
    /// A volume with the label `config-2`.
    ConfigDrive,
}

/// Where the user data stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// `userData` of the volume with this index.
    Inline(usize),
    /// `userDataBase64` of the volume with this index.
    Base64(usize),
    /// A key of a Secret.
    Secret {
        /// The Secret's name.
        name: String,
        /// The key.
        key: String,
        /// Whether it is under `data` (base64) rather than `stringData`.
        encoded: bool,
    },
}

/// The cloud-init data of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CloudInit {
    /// How it is found.
    pub(super) source: Source,
    /// User data and where it stands, when there is any that can be read.
    pub(super) user_data: Option<(Place, String)>,
}

/// The first cloud-init volume of a VM.
pub(super) fn find(vm: &Value, secrets: &[Object]) -> Option<CloudInit> {
    let secrets: Vec<Value> = secrets.iter().map(|secret| secret.value.clone()).collect();
    list(vm, VOLUMES)
        .iter()
        .enumerate()
        .find_map(|(index, volume)| {
            let (source, data) = if volume["cloudInitNoCloud"].is_object() {
                (Source::NoCloud, &volume["cloudInitNoCloud"])
            } else if volume["cloudInitConfigDrive"].is_object() {
                (Source::ConfigDrive, &volume["cloudInitConfigDrive"])
            } else {
                return None;
            };
            Some(CloudInit {
                source,
                user_data: place(index, data, &secrets).and_then(|place| {
                    let text = read(vm, &secrets, &place)?;
                    Some((place, text))
                }),
            })
        })
}

/// Where the user data of a cloud-init volume stands. The API server lets `stringData` win over
/// `data`.
fn place(index: usize, data: &Value, secrets: &[Value]) -> Option<Place> {
    if data["userData"].is_string() {
        return Some(Place::Inline(index));
    }
    if data["userDataBase64"].is_string() {
        return Some(Place::Base64(index));
    }
    let name = data["secretRef"]["name"].as_str()?;
    let secret = secrets
        .iter()
        .find(|secret| secret["metadata"]["name"] == name)?;
    let candidates = [("stringData", false), ("data", true)];
    let candidates = candidates
        .into_iter()
        .flat_map(|part| ["userdata", "userData"].map(|key| (part, key)));
    candidates
        .into_iter()
        .find(|((part, _), key)| secret[*part][*key].is_string())
        .map(|((_, encoded), key)| Place::Secret {
            name: name.to_owned(),
            key: key.to_owned(),
            encoded,
        })
}

fn decode(text: &str) -> Option<String> {
    let compact: String = text.split_whitespace().collect();
    String::from_utf8(STANDARD.decode(compact).ok()?).ok()
}

/// What user data says about logins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Logins {
    /// The name given to the image's default user.
    pub(super) default_name: Option<String>,
    /// Users that the data lists itself.
    pub(super) listed: Vec<String>,
    /// Whether the image's default user is made. Keys in the metadata go to it.
    pub(super) makes_default: bool,
}

/// Reads the logins of user data. Anything but a cloud-config leaves them to the image.
pub(super) fn logins(text: &str) -> Logins {
    let mut logins = Logins {
        makes_default: true,
        ..Logins::default()
    };
    let Some(config) = cloud_config(text) else {
        return logins;
    };
    let name = |value: &Value| {
        value
            .as_str()
            .or_else(|| value["name"].as_str())
            .map(ToOwned::to_owned)
    };
    logins.default_name =
        name(&config["user"]).or_else(|| name(&config["system_info"]["default_user"]));
    let users = match &config["users"] {
        Value::Array(users) => users.iter().filter_map(name).collect(),
        Value::String(text) => text.split(',').map(|name| name.trim().to_owned()).collect(),
        _ => Vec::new(),
    };
    if !users.is_empty() {
        logins.makes_default = users.iter().any(|user| user == "default");
        logins.listed = users.into_iter().filter(|user| user != "default").collect();
    }
    logins
}

fn cloud_config(text: &str) -> Option<Value> {
    if text.lines().next()?.trim_end() != "#cloud-config" {
        return None;
    }
    let node = yaml::parse(text, true).ok()?.pop()?;
    Some(node.to_value()).filter(Value::is_object)
}

/// User data with a key added to a user that it lists. JSON is YAML too, and quotes everything that
/// YAML might otherwise take for something else. `None` when there is no such entry to add it to.
pub(super) fn add_key(text: &str, user: &str, key: &str) -> Option<String> {
    let mut config = cloud_config(text)?;
    let entry = config["users"]
        .as_array_mut()?
        .iter_mut()
        .find(|entry| entry["name"] == user)?;
    let field = ["ssh_authorized_keys", "ssh-authorized-keys"]
        .into_iter()
        .find(|field| !entry[*field].is_null())
        .unwrap_or("ssh_authorized_keys");
    let keys = &mut entry
        .as_object_mut()?
        .entry(field)
        .or_insert_with(|| json!([]))
        .take();
    let mut list = match keys {
        Value::String(one) => vec![Value::from(one.as_str())],
        Value::Array(many) => std::mem::take(many),
        _ => Vec::new(),
    };
    list.push(Value::from(key));
    entry[field] = Value::Array(list);
    let body = serde_json::to_string_pretty(&config).ok()?;
    Some(format!("#cloud-config\n{body}\n"))
}

/// Reads user data from its place.
pub(super) fn read(vm: &Value, secrets: &[Value], place: &Place) -> Option<String> {
    let volume = |index: usize, key: &str| {
        let volume = &list(vm, VOLUMES).get(index)?;
        let kinds = ["cloudInitNoCloud", "cloudInitConfigDrive"];
        kinds
            .into_iter()
            .find_map(|kind| volume[kind][key].as_str())
    };
    match place {
        Place::Inline(index) => volume(*index, "userData").map(ToOwned::to_owned),
        Place::Base64(index) => decode(volume(*index, "userDataBase64")?),
        Place::Secret { name, key, encoded } => {
            let secret = secrets
                .iter()
                .find(|secret| secret["metadata"]["name"] == name.as_str())?;
            if *encoded {
                decode(secret["data"][key].as_str()?)
            } else {
                secret["stringData"][key].as_str().map(ToOwned::to_owned)
            }
        }
    }
}

/// Writes user data back to its place.
pub(super) fn replace(vm: &mut Value, secrets: &mut [Value], place: &Place, text: &str) {
    let volume = |index: usize, vm: &mut Value, key: &str, text: String| {
        let volume = vm.pointer_mut(&format!("{VOLUMES}/{index}"));
        let kinds = ["cloudInitNoCloud", "cloudInitConfigDrive"];
        if let Some(volume) = volume
            && let Some(kind) = kinds.into_iter().find(|kind| volume[*kind].is_object())
        {
            volume[kind][key] = Value::String(text);
        }
    };
    match place {
        Place::Inline(index) => volume(*index, vm, "userData", text.to_owned()),
        Place::Base64(index) => volume(*index, vm, "userDataBase64", STANDARD.encode(text)),
        Place::Secret { name, key, encoded } => {
            let found = secrets
                .iter_mut()
                .find(|secret| secret["metadata"]["name"] == name.as_str());
            if let Some(secret) = found {
                if *encoded {
                    secret["data"][key] = Value::String(STANDARD.encode(text));
                } else {
                    secret["stringData"][key] = Value::String(text.to_owned());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_of_user_data() {
        let read = |text: &str| logins(text);
        assert!(read("#!/bin/sh\necho\n").makes_default);
        let named = read("#cloud-config\nuser: fedora\npassword: x\n");
        assert_eq!(named.default_name.as_deref(), Some("fedora"));
        assert!(named.makes_default);
        let listed = read("#cloud-config\nusers:\n  - name: ops\n    sudo: ALL\n");
        assert_eq!(
            (listed.makes_default, listed.listed),
            (false, vec!["ops".to_owned()])
        );
        let both = read("#cloud-config\nusers: [default, {name: ops}]\n");
        assert_eq!(
            (both.makes_default, both.listed),
            (true, vec!["ops".to_owned()])
        );
        assert!(read("#cloud-config\n{{{{").makes_default);
    }

    #[test]
    fn adding_a_key_keeps_everything_else() {
        let text = "#cloud-config\nusers:\n  - default\n  - name: ops\n    passwd: '0644'\n    \
                    ssh_authorized_keys: [old]\nwrite_files:\n  - content: |\n      yes: no\n      \
                    # not a comment\n    permissions: \"0755\"\nruncmd: [\"~\", 'on']\n";
        let out = add_key(text, "ops", "ssh-ed25519 AAAA me").unwrap();
        let mut before = cloud_config(text).unwrap();
        let after = cloud_config(&out).unwrap();
        before["users"][1]["ssh_authorized_keys"] = json!(["old", "ssh-ed25519 AAAA me"]);
        assert_eq!(before, after);
        assert_eq!(add_key(text, "nobody", "k"), None);
        assert_eq!(add_key("#!/bin/sh\n", "ops", "k"), None);
    }
}
