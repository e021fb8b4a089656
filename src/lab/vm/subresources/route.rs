//! Paths of subresources.kubevirt.io: what a path means and which method it takes.

use http::Method;

/// Whose subresource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// `virtualmachines`.
    Machine,
    /// `virtualmachineinstances`.
    Instance,
}

/// A path that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// Discovery of the group version.
    Resources,
    /// `/version`, `/healthz` or `/guestfs`.
    Info(String),
    /// `namespaces/{ns}/expand-vm-spec`.
    ExpandSpec(String),
    /// A subresource of an object.
    Of {
        /// Whose.
        owner: Owner,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// The subresource.
        sub: String,
        /// What follows it in the path, such as port and protocol.
        rest: Vec<String>,
    },
}

const MACHINE_PUT: [&str; 9] = [
    "start",
    "stop",
    "restart",
    "migrate",
    "addvolume",
    "removevolume",
    "memorydump",
    "removememorydump",
    "evacuate",
];
const MACHINE_GET: [&str; 2] = ["expand-spec", "portforward"];
const INSTANCE_PUT: [&str; 9] = [
    "pause",
    "unpause",
    "freeze",
    "unfreeze",
    "softreboot",
    "reset",
    "addvolume",
    "removevolume",
    "evacuate",
];
const INSTANCE_GET: [&str; 6] = [
    "guestosinfo",
    "userlist",
    "filesystemlist",
    "console",
    "vnc",
    "portforward",
];

/// What a path means, and the method that it takes; `None` for a page that does not exist.
pub(super) fn parse(path: &str) -> Option<(Route, Method)> {
    let below = path.strip_prefix("/apis/subresources.kubevirt.io/")?;
    let mut parts = below.split('/').filter(|part| !part.is_empty());
    if !matches!(parts.next()?, "v1" | "v1alpha3") {
        return None;
    }
    let parts: Vec<&str> = parts.collect();
    match parts.as_slice() {
        [] => Some((Route::Resources, Method::GET)),
        [info @ ("version" | "healthz" | "guestfs")] => {
            Some((Route::Info((*info).to_owned()), Method::GET))
        }
        ["namespaces", namespace, "expand-vm-spec"] => {
            Some((Route::ExpandSpec((*namespace).to_owned()), Method::PUT))
        }
        ["namespaces", namespace, resource, name, sub, rest @ ..] => {
            let (owner, put, get): (_, &[&str], &[&str]) = match *resource {
                "virtualmachines" => (Owner::Machine, &MACHINE_PUT, &MACHINE_GET),
                "virtualmachineinstances" => (Owner::Instance, &INSTANCE_PUT, &INSTANCE_GET),
                _ => return None,
            };
            let method = if put.contains(sub) {
                Method::PUT
            } else if get.contains(sub) {
                Method::GET
            } else {
                return None;
            };
            let fits = match (*sub, rest) {
                ("portforward", [_] | [_, "tcp" | "udp"]) | ("evacuate", ["cancel"]) => true,
                ("portforward" | "evacuate", _) => false,
                ("vnc", ["screenshot"]) | (_, []) => true,
                _ => false,
            };
            fits.then(|| {
                let route = Route::Of {
                    owner,
                    namespace: (*namespace).to_owned(),
                    name: (*name).to_owned(),
                    sub: (*sub).to_owned(),
                    rest: rest.iter().map(|part| (*part).to_owned()).collect(),
                };
                (route, method)
            })
        }
        _ => None,
    }
}

/// The entries of the group's discovery, as virt-api lists them.
pub(super) const RESOURCES: [&str; 31] = [
    "expand-vm-spec",
    "virtualmachineinstances/vnc",
    "virtualmachineinstances/vnc/screenshot",
    "virtualmachineinstances/console",
    "virtualmachineinstances/portforward",
    "virtualmachineinstances/backup",
    "virtualmachineinstances/redefine-checkpoint",
    "virtualmachineinstances/pause",
    "virtualmachineinstances/unpause",
    "virtualmachineinstances/freeze",
    "virtualmachineinstances/unfreeze",
    "virtualmachineinstances/reset",
    "virtualmachineinstances/softreboot",
    "virtualmachines/start",
    "virtualmachines/stop",
    "virtualmachines/restart",
    "virtualmachines/migrate",
    "virtualmachines/expand-spec",
    "virtualmachines/objectgraph",
    "virtualmachines/evacuate/cancel",
    "virtualmachineinstances/guestosinfo",
    "virtualmachineinstances/userlist",
    "virtualmachineinstances/filesystemlist",
    "virtualmachineinstances/addvolume",
    "virtualmachineinstances/removevolume",
    "virtualmachineinstances/objectgraph",
    "virtualmachineinstances/sev/fetchcertchain",
    "virtualmachineinstances/sev/querylaunchmeasurement",
    "virtualmachineinstances/sev/setupsession",
    "virtualmachineinstances/sev/injectlaunchsecret",
    "virtualmachineinstances/evacuate/cancel",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subresources_belong_to_their_kind() {
        let base = "/apis/subresources.kubevirt.io/v1/namespaces/n";
        for (path, method) in [
            ("virtualmachines/v/start", Some(Method::PUT)),
            ("virtualmachines/v/freeze", None),
            ("virtualmachineinstances/v/freeze", Some(Method::PUT)),
            (
                "virtualmachineinstances/v/portforward/22",
                Some(Method::GET),
            ),
            (
                "virtualmachineinstances/v/portforward/53/udp",
                Some(Method::GET),
            ),
            ("virtualmachineinstances/v/portforward", None),
            (
                "virtualmachineinstances/v/evacuate/cancel",
                Some(Method::PUT),
            ),
            ("virtualmachineinstances/v/pause/x", None),
        ] {
            let got = parse(&format!("{base}/{path}")).map(|(_, method)| method);
            assert_eq!(got, method, "{path}");
        }
    }
}
