//! Kubeconfig files.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A kubeconfig with one cluster, one user and one context. It is written as JSON, which is YAML.
pub(super) fn text(site: &str, addr: SocketAddr, ca: &str, user: &str, token: &str) -> String {
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": site, "cluster": {
            "server": format!("https://{addr}"),
            "certificate-authority-data": STANDARD.encode(ca),
        }}],
        "users": [{"name": format!("{site}-{user}"), "user": {"token": token}}],
        "contexts": [{"name": site, "context": {
            "cluster": site,
            "user": format!("{site}-{user}"),
        }}],
        "current-context": site,
    });
    format!("{config:#}\n")
}
