//! What a request asks for, read from method and path.

use http::Method;

use super::query::{Query, decode};

/// A request as authorization and dispatch see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; the
    /// lower-case method for paths that are no resources.
    pub(super) verb: &'static str,
    /// Whether the path is below a group version.
    pub(super) resource_path: bool,
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: String,
    pub(super) resource: String,
    pub(super) name: String,
    pub(super) subresource: String,
    /// What comes after the subresource, for proxies.
    pub(super) rest: String,
}

impl Target {
    /// Reads a request line.
    pub(super) fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let mut target = Self {
            verb: plain_verb(method),
            ..Self::default()
        };
        let parts: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| decode(part, false))
            .collect();
        let mut parts = parts.iter().map(String::as_str);
        match parts.next() {
            Some("api") => {}
            Some("apis") => parts.next().unwrap_or("").clone_into(&mut target.group),
            _ => return target,
        }
        parts.next().unwrap_or("").clone_into(&mut target.version);
        let mut parts: Vec<&str> = parts.collect();
        let old_watch = parts.first() == Some(&"watch");
        if old_watch {
            parts.remove(0);
        }
        if parts.is_empty() || target.version.is_empty() {
            return target;
        }
        target.resource_path = true;
        // `namespaces/NAME` and its own subresources are the namespace itself.
        if parts[0] == "namespaces" && parts.len() > 2 && !matches!(parts[2], "status" | "finalize")
        {
            parts[1].clone_into(&mut target.namespace);
            parts.drain(..2);
        }
        let mut parts = parts.into_iter();
        let mut next = || parts.next().unwrap_or("").to_owned();
        (target.resource, target.name, target.subresource) = (next(), next(), next());
        target.rest = parts.collect::<Vec<_>>().join("/");
        if target.resource == "namespaces" && target.group.is_empty() {
            target.namespace.clone_from(&target.name);
        }
        let watching = old_watch || query.flag("watch");
        target.verb = match (method.as_str(), target.name.is_empty()) {
            ("GET" | "HEAD", _) if watching => "watch",
            ("GET" | "HEAD", true) => "list",
            ("GET" | "HEAD", false) => "get",
            ("DELETE", true) => "deletecollection",
            (other, _) => match other {
                "POST" => "create",
                "PUT" => "update",
                "PATCH" => "patch",
                "DELETE" => "delete",
                _ => target.verb,
            },
        };
        target
    }

    /// What the request is counted as, see [`super::RunningServer::requests_by_verb`].
    pub(super) fn counted(&self) -> &'static str {
        match (self.resource_path, self.subresource.as_str()) {
            (false, _) => "discovery",
            (true, "portforward" | "exec") => "connect",
            (true, _) => self.verb,
        }
    }

    /// The resource key: `plural.group` or `plural`.
    pub(super) fn key(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }

    /// Resource and subresource as roles name them.
    pub(super) fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

fn plain_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "options",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, path: &str, query: &str) -> Target {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Target::parse(&method, path, &Query::parse(Some(query)))
    }

    #[test]
    fn verbs_and_scopes() {
        let list = parse(
            "GET",
            "/apis/kubevirt.io/v1/namespaces/a/virtualmachines",
            "",
        );
        assert_eq!(
            (list.verb, list.key().as_str()),
            ("list", "virtualmachines.kubevirt.io")
        );
        assert_eq!(list.namespace, "a");
        let watch = parse("GET", "/api/v1/pods", "watch=true");
        assert_eq!((watch.verb, watch.namespace.as_str()), ("watch", ""));
        let one = parse("GET", "/api/v1/watch/namespaces/rec/configmaps/one", "");
        assert_eq!((one.verb, one.name.as_str()), ("watch", "one"));
        let status = parse("PUT", "/api/v1/namespaces/a/status", "");
        assert_eq!(
            (status.verb, status.full_resource().as_str()),
            ("update", "namespaces/status")
        );
        let ns = parse("DELETE", "/api/v1/namespaces/a", "");
        assert_eq!(
            (ns.verb, ns.name.as_str(), ns.namespace.as_str()),
            ("delete", "a", "a")
        );
        let forward = parse(
            "GET",
            "/apis/s.io/v1/namespaces/a/vms/b/portforward/22/tcp",
            "",
        );
        assert_eq!(
            (forward.subresource.as_str(), forward.rest.as_str()),
            ("portforward", "22/tcp")
        );
        assert_eq!((list.counted(), forward.counted()), ("list", "connect"));
        assert!(!parse("GET", "/apis/kubevirt.io/v1", "").resource_path);
        let metrics = parse("GET", "/metrics", "");
        assert_eq!(
            (metrics.resource_path, metrics.counted()),
            (false, "discovery")
        );
    }
}
