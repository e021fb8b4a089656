//! Subresources of VirtualMachines: start, stop, restart, migrate, volumes, expand-spec.

use http::Response;
use serde_json::{Value, json};

use super::reply;
use crate::lab::api::{ApiError, Body, Part, meta};
use crate::lab::faults::Fault;
use crate::lab::vm::condition;
use crate::lab::vm::keys::{
    MIGRATION_FINALIZER, PVC, VM, VMI, VMIM, claim_of, is_final, items, phase, run_strategy,
};
use crate::lab::vm::site::Ctx;
use crate::lab::vm::webhooks;

pub(super) const SINGULAR: &str = "virtualmachine.kubevirt.io";

/// One call.
pub(super) struct Call<'a> {
    pub(super) ctx: &'a Ctx,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    /// The decoded body; null when it was empty, and `Err` when it was not JSON or YAML.
    pub(super) body: Result<Value, String>,
}

impl Call<'_> {
    pub(super) fn conflict(&self, why: &str) -> ApiError {
        ApiError::conflict(SINGULAR, self.name, why)
    }

    fn machine(&self) -> Result<std::sync::Arc<Value>, ApiError> {
        self.ctx
            .store
            .get(VM, self.namespace, self.name)
            .ok_or_else(|| ApiError::not_found(SINGULAR, self.name))
    }

    fn instance(&self) -> Option<std::sync::Arc<Value>> {
        self.ctx.store.get(VMI, self.namespace, self.name)
    }

    pub(super) fn options(&self) -> Result<&Value, ApiError> {
        self.body.as_ref().map_err(|why| {
            ApiError::bad_request(format!(
                "Can not unmarshal Request body to struct, error: {why}"
            ))
        })
    }

    fn patch(&self, part: Part, change: impl FnMut(&mut Value)) -> Result<(), ApiError> {
        self.ctx
            .store
            .modify(VM, self.namespace, self.name, part, change)
            .map(drop)
    }
}

/// Whether the caller only wants to know.
pub(super) fn dry(options: &Value) -> bool {
    items(options, "/dryRun").iter().any(|all| all == "All")
}

/// Answers a PUT on a VM.
pub(super) fn put(call: &Call<'_>, sub: &str) -> Response<Body> {
    let result = match sub {
        "start" => start(call),
        "stop" => stop(call),
        "restart" => restart(call),
        "migrate" => migrate(call),
        "addvolume" => add_volume(call),
        "removevolume" => remove_volume(call),
        "memorydump" => memory_dump(call),
        "removememorydump" => call.machine().and_then(|_| {
            Err(call.conflict("can't remove memory dump association for vm, no association found"))
        }),
        _ => cancel_evacuation(call, call.name).map(|()| 200),
    };
    match result {
        Ok(code) => reply::empty(code),
        Err(error) => reply::refused(&error),
    }
}

fn alive(vmi: Option<&Value>) -> Option<&Value> {
    vmi.filter(|vmi| !is_final(vmi) && !phase(vmi).is_empty())
}

fn set_strategy(vm: &mut Value, strategy: &str) {
    if vm.pointer("/spec/running").is_some_and(Value::is_boolean) {
        vm["spec"]["running"] = json!(strategy == "Always");
    } else {
        vm["spec"]["runStrategy"] = json!(strategy);
    }
}

fn start(call: &Call<'_>) -> Result<u16, ApiError> {
    let vm = call.machine()?;
    if alive(call.instance().as_deref()).is_some() {
        return Err(call.conflict("VM is already running"));
    }
    if condition::is_true(&vm, "ManualRecoveryRequired") {
        return Err(call.conflict("VM recovery required"));
    }
    let strategy = run_strategy(&vm);
    if matches!(strategy, "Always" | "Once" | "WaitAsReceiver") {
        let why = format!("{strategy} does not support manual start requests");
        return Err(call.conflict(&why));
    }
    let options = call.options()?;
    if dry(options) {
        return Ok(202);
    }
    let paused = options["paused"] == true;
    let halted = strategy == "Halted";
    if halted && !paused {
        call.patch(Part::Object, |vm| set_strategy(vm, "Always"))?;
        return Ok(202);
    }
    call.patch(Part::Status, |vm| {
        let mut request = json!({"action": "Start"});
        if paused {
            request["data"] = json!({"paused": "true"});
        }
        vm["status"]["stateChangeRequests"] = json!([request]);
    })?;
    Ok(202)
}

pub(super) fn stop(call: &Call<'_>) -> Result<u16, ApiError> {
    let vm = call.machine()?;
    let options = call.options()?;
    let grace = options["gracePeriod"].as_i64();
    let vmi = call.instance();
    let vmi = alive(vmi.as_deref());
    let own = vmi.and_then(|vmi| vmi.pointer("/spec/terminationGracePeriodSeconds")?.as_i64());
    let strategy = run_strategy(&vm);
    match (strategy, vmi) {
        ("Halted" | "Manual" | "RerunOnFailure", None) => {
            return Err(call.conflict("VM is not running"));
        }
        ("Halted", Some(_)) if grace.is_none_or(|grace| own.is_some_and(|own| own <= grace)) => {
            return Err(call
                .conflict("Halted only supports manual stop requests with a shorter graceperiod"));
        }
        _ => {}
    }
    if dry(options) {
        return Ok(202);
    }
    if let (Some(grace), Some(_)) = (grace, vmi) {
        shorten(call, grace)?;
    }
    match (strategy, vmi) {
        ("Halted", _) => {}
        ("Manual" | "RerunOnFailure", Some(vmi)) => {
            let uid = meta::uid(vmi).to_owned();
            call.patch(Part::Status, |vm| {
                vm["status"]["stateChangeRequests"] = json!([{"action": "Stop", "uid": uid}]);
            })?;
        }
        _ => call.patch(Part::Object, |vm| set_strategy(vm, "Halted"))?,
    }
    Ok(202)
}

fn shorten(call: &Call<'_>, grace: i64) -> Result<(), ApiError> {
    call.ctx
        .store
        .modify(VMI, call.namespace, call.name, Part::Any, |vmi| {
            vmi["spec"]["terminationGracePeriodSeconds"] = json!(grace);
        })
        .map(drop)
}

fn restart(call: &Call<'_>) -> Result<u16, ApiError> {
    let options = call.options()?;
    let grace = options["gracePeriodSeconds"].as_i64();
    match grace {
        Some(1..) => {
            return Err(ApiError::bad_request(
                "For force restart, only gracePeriod=0 is supported for now",
            ));
        }
        Some(..=-1) => {
            return Err(ApiError::bad_request(
                "gracePeriod has to be greater or equal to 0",
            ));
        }
        _ => {}
    }
    let vm = call.machine()?;
    let strategy = run_strategy(&vm);
    if matches!(strategy, "Halted" | "Once") {
        let why = format!("RunStategy {strategy} does not support manual restart requests");
        return Err(call.conflict(&why));
    }
    let Some(vmi) = call.instance() else {
        return Err(call.conflict("VM is not running"));
    };
    if !items(&vm, "/status/stateChangeRequests").is_empty() {
        return Err(ApiError::internal(
            "unable to complete request: stop/start already underway",
        ));
    }
    if dry(options) {
        return Ok(202);
    }
    if grace == Some(0) {
        shorten(call, 0)?;
    }
    let uid = meta::uid(&vmi).to_owned();
    call.patch(Part::Status, |vm| {
        vm["status"]["stateChangeRequests"] =
            json!([{"action": "Stop", "uid": uid}, {"action": "Start"}]);
    })?;
    Ok(202)
}

fn migrate(call: &Call<'_>) -> Result<u16, ApiError> {
    call.machine()?;
    let vmi = call
        .instance()
        .ok_or_else(|| ApiError::not_found("virtualmachineinstance.kubevirt.io", call.name))?;
    if phase(&vmi) != "Running" {
        return Err(call.conflict("VM is not running"));
    }
    let options = call.options()?;
    if let Some(why) = webhooks::refusal(&call.ctx.store, call.namespace, call.name) {
        return Err(ApiError::internal(format!(
            "admission webhook \"migration-create-validator.kubevirt.io\" denied the request: {why}"
        )));
    }
    if dry(options) {
        return Ok(202);
    }
    let mut spec = json!({"vmiName": call.name});
    if options["addedNodeSelector"].is_object() {
        spec["addedNodeSelector"] = options["addedNodeSelector"].clone();
    }
    call.ctx.store.create(
        VMIM,
        json!({
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstanceMigration",
            "metadata": {
                "generateName": "kubevirt-migrate-vm-",
                "namespace": call.namespace,
                "labels": {"kubevirt.io/vmi-name": call.name},
                "finalizers": [MIGRATION_FINALIZER],
            },
            "spec": spec,
        }),
    )?;
    Ok(202)
}

/// Declarative hotplug: the VM's template gets the volume, marked as hotpluggable whether or not the
/// caller said so, and virt-controller brings it to the running guest.
fn add_volume(call: &Call<'_>) -> Result<u16, ApiError> {
    let options = call.options()?;
    requires(options)?;
    let vm = call.machine()?;
    let name = &options["name"];
    let taken = items(&vm, "/spec/template/spec/volumes")
        .iter()
        .any(|volume| volume["name"] == *name);
    if taken {
        let why = format!(
            "Unable to add volume [{}] because volume with that name already exists",
            name.as_str().unwrap_or_default()
        );
        return Err(call.conflict(&why));
    }
    if dry(options) {
        return Ok(202);
    }
    let mut volume = options["volumeSource"].clone();
    for source in ["dataVolume", "persistentVolumeClaim"] {
        if volume[source].is_object() {
            volume[source]["hotpluggable"] = json!(true);
        }
    }
    if let Some(source) = same_source(&vm, &volume) {
        let why = format!("Unable to add volume source [{source}] because it already exists");
        return Err(call.conflict(&why));
    }
    volume["name"] = name.clone();
    let mut disk = options["disk"].clone();
    disk["name"] = name.clone();
    let add = |spec: &mut Value| {
        push(&mut spec["volumes"], &volume);
        push(&mut spec["domain"]["devices"]["disks"], &disk);
    };
    if call.ctx.board.armed(Fault::PlugForgotten) {
        // As vmi/addvolume did: the VM does not know of it.
        let (namespace, name) = (call.namespace, call.name);
        let store = &call.ctx.store;
        store.modify(VMI, namespace, name, Part::Any, |vmi| add(&mut vmi["spec"]))?;
        return Ok(202);
    }
    call.patch(Part::Object, |vm| add(&mut vm["spec"]["template"]["spec"]))?;
    Ok(202)
}

/// The claim of a volume source, if the VM has it already.
fn same_source<'a>(vm: &Value, volume: &'a Value) -> Option<&'a str> {
    let claim = claim_of(volume)?;
    let mut all = items(vm, "/spec/template/spec/volumes").iter();
    all.any(|known| claim_of(known) == Some(claim))
        .then_some(claim)
}

/// What every addvolume must say.
pub(super) fn requires(options: &Value) -> Result<(), ApiError> {
    for (field, word) in [
        ("name", "name"),
        ("disk", "disk"),
        ("volumeSource", "VolumeSource"),
    ] {
        if options[field].is_null() || options[field] == "" {
            let what = if field == "name" {
                "to be set"
            } else {
                "to not be nil"
            };
            return Err(ApiError::bad_request(format!(
                "AddVolumeOptions requires {word} {what}"
            )));
        }
    }
    Ok(())
}

fn push(list: &mut Value, entry: &Value) {
    match list.as_array_mut() {
        Some(list) => list.push(entry.clone()),
        None => *list = json!([entry]),
    }
}

fn remove_volume(call: &Call<'_>) -> Result<u16, ApiError> {
    let options = call.options()?;
    let name = options["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err(ApiError::bad_request(
            "RemoveVolumeOptions requires name to be set",
        ));
    }
    let vm = call.machine()?;
    let volume = items(&vm, "/spec/template/spec/volumes")
        .iter()
        .find(|volume| volume["name"] == name);
    let Some(volume) = volume else {
        return Err(call.conflict(&format!(
            "Unable to remove volume [{name}] because it does not exist"
        )));
    };
    let hotpluggable = ["dataVolume", "persistentVolumeClaim"]
        .iter()
        .any(|source| volume[*source]["hotpluggable"] == true);
    if !hotpluggable {
        return Err(call.conflict(&format!(
            "Unable to remove volume [{name}] because it is not hotpluggable"
        )));
    }
    if dry(options) {
        return Ok(202);
    }
    call.patch(Part::Object, |vm| {
        let spec = &mut vm["spec"]["template"]["spec"];
        for pointer in ["/volumes", "/domain/devices/disks"] {
            if let Some(list) = spec.pointer_mut(pointer).and_then(Value::as_array_mut) {
                list.retain(|entry| entry["name"] != name);
            }
        }
    })?;
    Ok(202)
}

fn memory_dump(call: &Call<'_>) -> Result<u16, ApiError> {
    let options = call.options()?;
    let claim = options["claimName"].as_str().unwrap_or_default();
    if claim.is_empty() {
        return Err(ApiError::bad_request(
            "Memory dump requires claim name to be set",
        ));
    }
    call.machine()?;
    if call.ctx.store.get(PVC, call.namespace, claim).is_none() {
        return Err(ApiError::not_found(PVC, claim));
    }
    Err(call.conflict("pvc for memory dump should be a filesystem pvc"))
}

/// Takes the evacuation mark off a VMI.
pub(super) fn cancel_evacuation(call: &Call<'_>, vmi: &str) -> Result<(), ApiError> {
    let dry = dry(call.options()?);
    let store = &call.ctx.store;
    if store.get(VMI, call.namespace, vmi).is_none() {
        return Err(ApiError::not_found(
            "virtualmachineinstance.kubevirt.io",
            vmi,
        ));
    }
    if dry {
        return Ok(());
    }
    store
        .modify(VMI, call.namespace, vmi, Part::Any, |vmi| {
            if let Some(status) = vmi["status"].as_object_mut() {
                status.shift_remove("evacuationNodeName");
            }
        })
        .map(drop)
}

/// A VM with instance types and preferences expanded; the lab has none, so it is the VM itself.
pub(super) fn expanded(call: &Call<'_>) -> Response<Body> {
    match call.machine() {
        Ok(vm) => reply::json(200, &vm),
        Err(error) => reply::refused(&error),
    }
}
