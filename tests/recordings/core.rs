//! `core-mechanics.jsonl`: how a bare Kubernetes answers.

use std::sync::Arc;

use serde_json::{Value, json};
use virtproof::lab::api::registry::Registry;
use virtproof::lab::api::{
    Admission, ApiError, ApiServer, Operation, Review, RunningServer, SiteConfig, Store, User,
};
use virtproof::lab::clock::LabClock;

use crate::harness::{Client, Line, Report, lines};
use crate::names::Names;

/// Lines that differ, and why that is right or harmless.
const REASONS: &[(&str, &str)] = &[
    (
        "disc.apis",
        "the lab serves only the groups that its components use",
    ),
    (
        "disc.root",
        "the lab serves only the groups that its components use",
    ),
    (
        "disc.openapi3.index",
        "the lab serves only the groups that its components use",
    ),
    (
        "disc.openapi3.group",
        "the lab's documents are written from its own schemas: fewer media types and texts",
    ),
    (
        "watch.tooold",
        "two controllers of the recorded cluster raced to furnish the namespace, and the other won",
    ),
];

const MAPS: &str = "/api/v1/namespaces/rec/configmaps";
const PODS: &str = "/api/v1/namespaces/rec/pods";

/// The recorder's cluster came from an OpenShift tree: every namespace has another ConfigMap, and
/// every pod mounts it.
struct OpenShift;

impl Admission for OpenShift {
    fn mutate(&self, review: &Review<'_>, object: &mut Value) -> Result<(), ApiError> {
        if review.resource == "pods" && review.operation == Operation::Create {
            let source = json!({"configMap": {
                "name": "openshift-service-ca.crt",
                "items": [{"key": "service-ca.crt", "path": "service-ca.crt"}],
            }});
            let sources = object.pointer_mut("/spec/volumes/0/projected/sources");
            if let Some(sources) = sources.and_then(Value::as_array_mut) {
                sources.push(source);
            }
        }
        Ok(())
    }

    fn validate(&self, _: &Review<'_>, _: &Value) -> Result<Vec<String>, ApiError> {
        Ok(Vec::new())
    }
}

/// The recorder's user without rights; its token file gave it an empty group besides.
fn limited_user() -> User {
    User {
        name: "rig-limited".to_owned(),
        uid: "uid-2".to_owned(),
        groups: vec![String::new(), "system:authenticated".to_owned()],
    }
}

fn service_ca(store: &Store, namespace: &str) {
    let map = json!({
        "metadata": {
            "name": "openshift-service-ca.crt",
            "namespace": namespace,
            "annotations": {"service.beta.openshift.io/inject-cabundle": "true"},
            "managedFields": [{
                "manager": "kube-controller-manager",
                "operation": "Update",
                "apiVersion": "v1",
                "time": "2026-11-22T19:23:24Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": {
                    "f:data": {".": {}, "f:service-ca.crt": {}},
                    "f:metadata": {"f:annotations": {
                        ".": {}, "f:service.beta.openshift.io/inject-cabundle": {}
                    }},
                },
            }],
        },
        "data": {"service-ca.crt": ""},
    });
    store.create("configmaps", map).expect("a ConfigMap");
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [
        {"name": "c1", "image": "a"}, {"name": "c2", "image": "b"}
    ]}})
}

/// What the recorder did before a line, beside the lines.
async fn before(line: &Line, server: &RunningServer, client: &Client, names: &mut Names) {
    let store = server.store();
    match line.id() {
        "ns.defaults" => service_ca(store, "rec"),
        "page.1" => {
            for at in 0..5 {
                let mut page = map(&format!("page{at}"));
                page["metadata"]["labels"] = json!({"p": "1"});
                client.must("POST", MAPS, page).await;
            }
        }
        "ssa.conflict.update" => {
            let path = format!("{MAPS}/ssa?fieldManager=putter");
            client
                .must("PATCH", &path, json!({"data": {"a": "9"}}))
                .await;
        }
        "del.fin" => {
            let mut held = map("fin");
            held["metadata"]["finalizers"] = json!(["example.com/hold"]);
            client.must("POST", MAPS, held).await;
        }
        "del.pod.bound" => {
            let mut bound = pod("p3");
            bound["spec"]["nodeName"] = json!("nowhere");
            client.must("POST", PODS, bound).await;
        }
        "gc.fg" => {
            let owner = client.must("POST", MAPS, map("owner")).await;
            let mut child = map("child");
            child["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "v1", "kind": "ConfigMap", "name": "owner",
                "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
            }]);
            client.must("POST", MAPS, child).await;
            names.version_is(363, store.version());
        }
        "table.pods" => {
            client.must("POST", PODS, pod("p4")).await;
        }
        "watch.selector" => names.version_is(376, store.version()),
        "ns.delete" => {
            let mut held = map("held");
            held["metadata"]["finalizers"] = json!(["example.com/hold"]);
            client.must("POST", MAPS, held).await;
        }
        "crd.table.def" => {
            for kind in Registry::full().iter() {
                if kind.group == "replication.storage.openshift.io" {
                    server.install((**kind).clone()).expect("a definition");
                }
            }
        }
        "crd.watch" => names.version_is(755, store.version()),
        "opts.pretty" => service_ca(store, "default"),
        "watch.tooold.410" => {
            for at in 0..4 {
                let page = json!({"metadata": {"name": format!("pg{at}")}});
                client
                    .must("POST", "/api/v1/namespaces/default/configmaps", page)
                    .await;
            }
            store.compact();
        }
        _ => {}
    }
}

/// What the recorder did while a watch was open. Each step waits for the event of the one before,
/// so that nothing here depends on time.
async fn during(line: &Line, client: &Client) {
    match line.id() {
        "watch.rv" | "watch.selector" | "watch.stream" => {
            let mut one = map("w1");
            one["metadata"]["labels"] = json!({"s": "1"});
            client.must("POST", MAPS, one).await;
            let path = format!("{MAPS}/w1");
            client
                .must("PATCH", &path, json!({"data": {"a": "2"}}))
                .await;
            let relabel = json!({"metadata": {"labels": {"s": "2"}}});
            client.must("PATCH", &path, relabel).await;
            client.must("DELETE", &path, Value::Null).await;
        }
        "watch.table" => {
            let path = format!("{MAPS}/one");
            client
                .must("PATCH", &path, json!({"data": {"tt": "1"}}))
                .await;
        }
        "ns.term.watch" => {
            let path = format!("{MAPS}/held");
            client
                .must("PATCH", &path, json!({"metadata": {"finalizers": null}}))
                .await;
        }
        "crd.watch" => {
            let path = "/apis/replication.storage.openshift.io/v1alpha1/namespaces/default/volumereplications/vr1";
            let status = format!("{path}/status");
            client
                .must("PATCH", &status, json!({"status": {"message": "w"}}))
                .await;
            let finalizers = json!({"metadata": {"finalizers": ["example.com/x"]}});
            client.must("PATCH", path, finalizers).await;
            client.must("DELETE", path, Value::Null).await;
            client
                .must("PATCH", path, json!({"metadata": {"finalizers": null}}))
                .await;
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_of_core_mechanics() {
    let Some(lines) = lines("core-mechanics.jsonl") else {
        return;
    };
    let store = Store::with_kinds(1, Registry::builtin());
    // Definitions are established slowly, so that the time before can be seen.
    let mut config = SiteConfig::new("rig", store, LabClock::new(0.02));
    config.admission.push(Arc::new(OpenShift));
    config.users.push(limited_user());
    let server = ApiServer::start(config).await.expect("a server");
    let client = Client::new(&server);
    let mut names = Names::default();
    let mut report = Report::default();
    for line in lines.iter().filter(|line| line.request().is_object()) {
        before(line, &server, &client, &mut names).await;
        let request = names.translate(line.request());
        let enough = line
            .events()
            .map(Vec::len)
            .filter(|_| line.response()["closed_by"] == "client");
        let mut watches = server.watches();
        let asked = client.clone();
        let mut answer = tokio::spawn(async move { asked.send(&request, enough).await });
        if line.events().is_some() {
            // Either the watch is open, or it was refused.
            tokio::select! {
                opened = watches.changed() => opened.expect("a server"),
                refused = &mut answer => {
                    report.note(line, &refused.expect("an answer"), &names);
                    continue;
                }
            }
        }
        during(line, &client).await;
        let answer = answer.await.expect("an answer");
        report.note(line, &answer, &names);
        names.learn(&line.response()["body"], &answer.body);
        for (recorded, ours) in line.events().into_iter().flatten().zip(&answer.events) {
            names.learn(&recorded["object"], &ours["object"]);
        }
    }
    report.judge("core-mechanics", REASONS, 98);
    server.shutdown().await;
}
