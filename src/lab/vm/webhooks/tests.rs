use super::*;
use crate::lab::api::{Store, User};

fn site() -> (Store, Webhooks, User) {
    let user = User {
        name: "admin".into(),
        uid: String::new(),
        groups: vec!["system:masters".into()],
    };
    (Store::new(1), Webhooks::new(1), user)
}

fn ask(
    store: &Store,
    hooks: &Webhooks,
    user: &User,
    (operation, resource, subresource): (Operation, &str, Option<&str>),
    old: Option<&Value>,
    mut object: Value,
) -> (Value, Result<Vec<String>, ApiError>) {
    let name = meta::name(&object).to_owned();
    let review = Review {
        operation,
        resource,
        subresource,
        namespace: "default",
        name: &name,
        old,
        user,
        dry_run: false,
        store,
    };
    let answer = hooks
        .mutate(&review, &mut object)
        .and_then(|()| hooks.validate(&review, &object));
    (object, answer)
}

fn vm() -> Value {
    json!({"metadata": {"name": "v", "namespace": "default"}, "spec": {"runStrategy": "Halted",
        "template": {"spec": {"domain": {"devices": {}}}}}})
}

#[test]
fn every_vm_is_another_machine() {
    let (store, hooks, user) = site();
    let create = (Operation::Create, VM, None);
    let uuid = |vm: &Value| {
        let at = "/spec/template/spec/domain/firmware/uuid";
        vm.pointer(at).and_then(Value::as_str).unwrap().to_owned()
    };
    let (first, answer) = ask(&store, &hooks, &user, create, None, vm());
    assert_eq!(answer.unwrap(), Vec::<String>::new());
    let (second, _) = ask(&store, &hooks, &user, create, None, vm());
    assert_ne!(uuid(&first), uuid(&second));
    let (kept, _) = ask(&store, &hooks, &user, create, None, first.clone());
    assert_eq!(uuid(&kept), uuid(&first));
}

#[test]
fn a_refusal_lists_its_causes_in_message_and_details() {
    let (store, hooks, user) = site();
    let mut bad = vm();
    bad["spec"]["template"]["spec"]["networks"] = json!([]);
    bad["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"] =
        json!([{"name": "default", "masquerade": {}}]);
    let (_, answer) = ask(
        &store,
        &hooks,
        &user,
        (Operation::Create, VM, None),
        None,
        bad,
    );
    let error = answer.unwrap_err();
    assert_eq!(error.code, 422);
    assert_eq!(
        error.message,
        "admission webhook \"virtualmachine-validator.kubevirt.io\" denied the request: Masquerade \
         interface only implemented with pod network, \
         spec.template.spec.domain.devices.interfaces[0].name 'default' not found."
    );
    assert_eq!(
        error.details.as_ref().unwrap()["causes"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn the_deprecated_field_is_warned_about() {
    let (store, hooks, user) = site();
    let mut old = vm();
    old["spec"].as_object_mut().unwrap().remove("runStrategy");
    old["spec"]["running"] = json!(false);
    let (_, answer) = ask(
        &store,
        &hooks,
        &user,
        (Operation::Create, VM, None),
        None,
        old,
    );
    assert_eq!(
        answer.unwrap(),
        ["spec.running is deprecated, please use spec.runStrategy instead."]
    );
}

#[test]
fn users_change_neither_spec_nor_status_nor_reserved_labels_of_a_vmi() {
    let (store, hooks, user) = site();
    let old = json!({"metadata": {"name": "v", "labels": {"kubevirt.io/nodeName": "n"}},
        "spec": {"a": 1}, "status": {"phase": "Running"}});
    let update = (Operation::Update, VMI, None);
    let mut status = old.clone();
    status["status"]["phase"] = json!("Failed");
    let (stored, answer) = ask(&store, &hooks, &user, update, Some(&old), status);
    assert!(answer.is_ok());
    assert_eq!(stored, old);
    let mut spec = old.clone();
    spec["spec"]["a"] = json!(2);
    let (_, answer) = ask(&store, &hooks, &user, update, Some(&old), spec);
    assert!(
        answer
            .unwrap_err()
            .message
            .ends_with("update of VMI object is restricted")
    );
    let mut label = old.clone();
    label["metadata"]["labels"]["mine"] = json!("1");
    assert!(
        ask(&store, &hooks, &user, update, Some(&old), label.clone())
            .1
            .is_ok()
    );
    label["metadata"]["labels"]["kubevirt.io/nodeName"] = json!("x");
    assert_eq!(
        ask(&store, &hooks, &user, update, Some(&old), label)
            .1
            .unwrap_err()
            .code,
        422
    );
}

#[test]
fn migrations_are_refused_before_they_start() {
    let (store, hooks, user) = site();
    let create = (Operation::Create, VMIM, None);
    let job = |vmi: &str| json!({"metadata": {"name": "m"}, "spec": {"vmiName": vmi}});
    let (_, answer) = ask(&store, &hooks, &user, create, None, job("absent"));
    let error = answer.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (400, ""));
    assert!(
        error
            .message
            .ends_with("the VMI \"default/absent\" does not exist")
    );
    let mut vmi = json!({"metadata": {"name": "v", "namespace": "default"}, "spec": {},
        "status": {"phase": "Running", "conditions": [
            {"type": "LiveMigratable", "status": "False", "reason": "R", "message": "M"}]}});
    store.create(VMI, vmi.clone()).unwrap();
    let (_, answer) = ask(&store, &hooks, &user, create, None, job("v"));
    let text = answer.unwrap_err().to_string();
    assert!(
        text.ends_with("Cannot migrate VMI, Reason: R, Message: M"),
        "{text}"
    );
    vmi["metadata"]["name"] = json!("w");
    vmi["status"]["conditions"] = json!([]);
    store.create(VMI, vmi).unwrap();
    let (marked, answer) = ask(&store, &hooks, &user, create, None, job("w"));
    assert!(answer.is_ok());
    assert_eq!(meta::label(&marked, "kubevirt.io/vmi-name"), Some("w"));
}

#[test]
fn evicting_a_migratable_launcher_is_429_and_marks_the_vmi() {
    let (store, hooks, user) = site();
    let vmi = json!({"metadata": {"name": "v", "namespace": "default"},
        "spec": {"evictionStrategy": "LiveMigrate"},
        "status": {"phase": "Running", "nodeName": "n1",
            "conditions": [{"type": "LiveMigratable", "status": "True"}]}});
    store.create(VMI, vmi).unwrap();
    let pod = json!({"metadata": {"name": "p", "namespace": "default",
        "labels": {"kubevirt.io": "virt-launcher"}, "annotations": {"kubevirt.io/domain": "v"}},
        "spec": {"nodeName": "n1"}});
    let evict = (Operation::Create, "pods", Some("eviction"));
    let (_, answer) = ask(&store, &hooks, &user, evict, Some(&pod), json!({}));
    let error = answer.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (429, ""));
    let vmi = store.get(VMI, "default", "v").unwrap();
    assert_eq!(vmi["status"]["evacuationNodeName"], "n1");
    let (_, answer) = ask(&store, &hooks, &user, evict, Some(&pod), json!({}));
    assert!(
        answer
            .unwrap_err()
            .message
            .contains("Evacuation in progress: ")
    );
}
