//! What cloud-init would make of a guest's user data and metadata: users and their keys.
//!
//! Contract: pure. Modules that a simulated guest cannot show (packages, scripts, disk setup) are
//! read over; user data that is not `#cloud-config` configures nothing, as on a real image.

use serde_json::Value;

use super::image::{Os, User};

/// What the hypervisor hands to the guest as its cloud-init seed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seed {
    /// The instance id: for NoCloud the firmware UUID, for ConfigDrive `name.namespace`. Without a
    /// seed volume there is none, and cloud-init does nothing.
    pub instance_id: Option<String>,
    /// User data, decoded.
    pub user_data: String,
    /// Public keys from the metadata (access credentials propagated by NoCloud or ConfigDrive).
    pub public_keys: Vec<String>,
}

/// The users that the first boot of an instance makes on `os`.
pub fn users(os: &Os, seed: &Seed) -> Vec<User> {
    let config = parse(&seed.user_data);
    let mut shared = strings(&config["ssh_authorized_keys"]);
    shared.extend(seed.public_keys.iter().cloned());
    let default_name = match &config["user"] {
        Value::String(name) => name.clone(),
        Value::Object(user) => text(&user["name"]).unwrap_or_else(|| os.default_user().to_owned()),
        _ => os.default_user().to_owned(),
    };
    let default = User {
        name: default_name,
        keys: Vec::new(),
        sudo: true,
    };
    let mut made: Vec<User> = Vec::new();
    let mut default_made = false;
    match config["users"].as_array().filter(|list| !list.is_empty()) {
        None => {
            default_made = true;
            made.push(default.clone());
        }
        Some(list) => {
            for entry in list {
                if entry == "default" {
                    default_made = true;
                    made.push(default.clone());
                } else if let Some(user) = listed(entry) {
                    made.push(user);
                }
            }
        }
    }
    if default_made && let Some(user) = made.iter_mut().find(|user| user.name == default.name) {
        user.keys.extend(shared.iter().cloned());
    }
    if config["disable_root"] == false {
        match made.iter_mut().find(|user| user.name == "root") {
            Some(root) => root.keys.extend(shared),
            None => made.push(User {
                name: "root".to_owned(),
                keys: shared,
                sudo: true,
            }),
        }
    }
    made
}

/// The host name that user data sets, if any.
pub fn hostname(user_data: &str) -> Option<String> {
    let config = parse(user_data);
    text(&config["hostname"]).or_else(|| text(&config["fqdn"]))
}

fn parse(user_data: &str) -> Value {
    if !user_data.trim_start().starts_with("#cloud-config") {
        return Value::Null;
    }
    serde_saphyr::from_str(user_data).unwrap_or(Value::Null)
}

fn listed(entry: &Value) -> Option<User> {
    if let Value::String(name) = entry {
        return Some(User {
            name: name.clone(),
            keys: Vec::new(),
            sudo: false,
        });
    }
    let name = text(&entry["name"])?;
    let mut keys = strings(&entry["ssh_authorized_keys"]);
    keys.extend(strings(&entry["ssh-authorized-keys"]));
    let sudo = match &entry["sudo"] {
        Value::Null | Value::Bool(_) => name == "root",
        rules => strings(rules).iter().any(|rule| rule.contains("NOPASSWD")) || name == "root",
    };
    Some(User { name, keys, sudo })
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().filter_map(text).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(user_data: &str, keys: &[&str]) -> Vec<User> {
        let seed = Seed {
            instance_id: Some("i".into()),
            user_data: user_data.into(),
            public_keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        };
        users(&Os::from_reference("fedora"), &seed)
    }

    fn user(name: &str, keys: &[&str], sudo: bool) -> User {
        User {
            name: name.into(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            sudo,
        }
    }

    #[test]
    fn keys_go_to_the_image_user_unless_another_is_named() {
        let data = "#cloud-config\nssh_authorized_keys:\n  - K1\n";
        assert_eq!(made(data, &["K2"]), [user("fedora", &["K1", "K2"], true)]);
        let data = "#cloud-config\nuser: root\nssh_authorized_keys: [K1]\n";
        assert_eq!(made(data, &[]), [user("root", &["K1"], true)]);
    }

    #[test]
    fn a_users_list_without_default_leaves_shared_keys_unused() {
        let data = "#cloud-config\nssh_authorized_keys: [K1]\nusers:\n- name: ops\n  \
                    ssh_authorized_keys: [K3]\n  sudo: ALL=(ALL) NOPASSWD:ALL\n- name: guest\n";
        let want = [user("ops", &["K3"], true), user("guest", &[], false)];
        assert_eq!(made(data, &[]), want);
    }

    #[test]
    fn root_gets_keys_only_when_it_is_not_disabled() {
        let data = "#cloud-config\ndisable_root: false\nssh_authorized_keys: [K1]\n";
        let want = [user("fedora", &["K1"], true), user("root", &["K1"], true)];
        assert_eq!(made(data, &[]), want);
    }

    #[test]
    fn a_script_or_broken_yaml_configures_nothing() {
        assert_eq!(
            made("#!/bin/sh\nexit 0\n", &["K"]),
            [user("fedora", &["K"], true)]
        );
        assert_eq!(
            made("#cloud-config\n\t: [", &[]),
            [user("fedora", &[], true)]
        );
    }
}
