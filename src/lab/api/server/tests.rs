use serde_json::{Value, json};

use super::*;
use crate::lab::api::meta;

async fn server() -> RunningServer {
    let config = SiteConfig::new("site", Store::new(3), LabClock::new(1.0));
    ApiServer::start(config).await.unwrap()
}

pub(super) async fn client(server: &RunningServer, user: &str) -> kube::Client {
    let text = server.kubeconfig(user).unwrap();
    let file: kube::config::Kubeconfig = serde_json::from_str(&text).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(file, &options)
        .await
        .unwrap();
    // What the server said is looked at, not what it said in the end.
    config.default_retry = false;
    kube::Client::try_from(config).unwrap()
}

use kube::api::{DeleteParams, EvictParams, ListParams, PostParams, WatchParams};

type Maps = kube::Api<k8s_openapi::api::core::v1::ConfigMap>;

#[tokio::test]
async fn a_kube_client_creates_applies_lists_and_deletes() {
    let server = server().await;
    let maps: Maps = kube::Api::namespaced(client(&server, "admin").await, "default");
    let map =
        serde_json::from_value(json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let apply = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "w"},
    });
    let params = kube::api::PatchParams::apply("test").force();
    let applied = maps
        .patch("a", &params, &kube::api::Patch::Apply(&apply))
        .await
        .unwrap();
    assert_eq!(applied.data.unwrap()["k"], "w");
    let names: Vec<String> = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .filter_map(|map| map.metadata.name)
        .collect();
    assert_eq!(names, ["a", "kube-root-ca.crt"]);
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
    server.shutdown().await;
}

#[tokio::test]
async fn others_have_only_the_rights_that_roles_give_them() {
    let server = server().await;
    let maps: Maps = kube::Api::namespaced(client(&server, "limited").await, "default");
    let refused = maps.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 403));
    let rbac = "rbac.authorization.k8s.io";
    let store = server.store();
    let role = json!({"metadata": {"name": "reader", "namespace": "default"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}
    ]});
    store.create(&format!("roles.{rbac}"), role).unwrap();
    let binding = json!({
        "metadata": {"name": "reader", "namespace": "default"},
        "roleRef": {"kind": "Role", "name": "reader", "apiGroup": rbac},
        "subjects": [{"kind": "User", "name": "limited"}],
    });
    store
        .create(&format!("rolebindings.{rbac}"), binding)
        .unwrap();
    assert_eq!(
        maps.list(&ListParams::default()).await.unwrap().items.len(),
        1
    );
    server.shutdown().await;
}

#[tokio::test]
async fn a_site_without_power_cuts_and_refuses_connections() {
    use futures::TryStreamExt as _;
    let server = server().await;
    let maps: Maps = kube::Api::namespaced(client(&server, "admin").await, "default");
    let mut watch = std::pin::pin!(maps.watch(&WatchParams::default(), "0").await.unwrap());
    assert!(watch.try_next().await.unwrap().is_some());
    server.set_down(true);
    // The stream ends or breaks; it never goes on.
    assert!(!matches!(watch.try_next().await, Ok(Some(_))));
    assert!(maps.get("kube-root-ca.crt").await.is_err());
    server.set_down(false);
    maps.get("kube-root-ca.crt").await.unwrap();
    server.shutdown().await;
}

struct Owner;

impl Admission for Owner {
    fn mutate(
        &self,
        review: &crate::lab::api::Review<'_>,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        if review.resource == "configmaps" {
            object["data"]["by"] = json!(review.user.name);
        }
        Ok(())
    }

    fn validate(
        &self,
        review: &crate::lab::api::Review<'_>,
        object: &Value,
    ) -> Result<Vec<String>, ApiError> {
        if meta::name(object) == "no" {
            return Err(ApiError::forbidden(review.resource, review.name, "no"));
        }
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn webhooks_change_and_refuse() {
    let mut config = SiteConfig::new("site", Store::new(3), LabClock::new(1.0));
    config.admission.push(Arc::new(Owner));
    let server = ApiServer::start(config).await.unwrap();
    let maps: Maps = kube::Api::namespaced(client(&server, "admin").await, "default");
    let map = |name: &str| serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    let made = maps
        .create(&PostParams::default(), &map("yes"))
        .await
        .unwrap();
    assert_eq!(made.data.unwrap()["by"], "admin");
    let refused = maps
        .create(&PostParams::default(), &map("no"))
        .await
        .unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 403));
    server.shutdown().await;
}

#[tokio::test]
async fn eviction_is_a_delete_that_webhooks_can_refuse() {
    let server = server().await;
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
        kube::Api::namespaced(client(&server, "admin").await, "default");
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]},
    }))
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    pods.evict("p", &EvictParams::default()).await.unwrap();
    assert!(pods.get_opt("p").await.unwrap().is_none());
    server.shutdown().await;
}
