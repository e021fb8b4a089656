//! From a rendered template to the objects of one VM on both sites.
//!
//! Names get the VM's name in front, so that VMs of one run do not meet; every object, and every PVC
//! through its DataVolume, gets the run's labels; firmware UUID, MACs and serials are the same on
//! both sites, so that cloud-init does not take the replica for a new machine. The other site gets no
//! DataVolume and no template of one: CDI would import into a fresh volume where the replica belongs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::blank::{INTERFACES, push};
use super::claims::claim_name;
use super::disks::{DISKS, VOLUMES};
use super::identity::fit_name;
use super::refs::{self, Target};
use super::rendered::{DataDisk, Instance, Propagation, Rendered, Root, Subject};
use super::{RUN_LABEL, SUBJECT_LABEL, WORKLOAD_LABEL, cloudinit};

const CREDENTIALS: &str = "/spec/template/spec/accessCredentials";
const FIRMWARE: &str = "/spec/template/spec/domain/firmware";

impl Rendered {
    /// The objects of one VM for both sites.
    pub fn bind(&self, instance: &Instance) -> Subject {
        Bind {
            rendered: self,
            instance,
        }
        .subject()
    }
}

struct Bind<'a> {
    rendered: &'a Rendered,
    instance: &'a Instance,
}

impl Bind<'_> {
    fn subject(&self) -> Subject {
        let mut secrets = self.all(&self.rendered.secrets);
        let vm = self.vm(&mut secrets);
        let mut shared = secrets;
        shared.extend(self.all(&self.rendered.config_maps));
        let mut services = self.all(&self.rendered.services);
        for service in &mut services {
            self.select_own(service);
        }
        let storage = self.all(&self.rendered.claims).into_iter();
        let storage = storage.chain(self.all(&self.rendered.data_volumes));

        let mut objects = shared.clone();
        objects.extend(storage.map(|object| self.with_class(object)));
        objects.extend(services.iter().cloned());
        objects.push(vm.clone());
        let mut peer_objects = shared;
        peer_objects.extend(services);
        peer_objects.push(peer(vm));
        Subject {
            vm: self.instance.name.clone(),
            namespace: self.instance.namespace.clone(),
            claims: self
                .rendered
                .disks
                .claims
                .iter()
                .map(|claim| self.name(claim))
                .collect(),
            data_disks: self.data_disks(),
            root: self
                .rendered
                .disks
                .root
                .as_ref()
                .map_or(Root::Ephemeral, |claim| Root::Persistent {
                    pvc: self.name(claim),
                }),
            ssh_user: self.rendered.ssh_user().to_owned(),
            run_strategy: self.rendered.run_strategy().to_owned(),
            objects,
            peer_objects,
        }
    }

    fn name(&self, original: &str) -> String {
        fit_name(&self.instance.name, original)
    }

    fn data_disks(&self) -> Vec<DataDisk> {
        (0..)
            .zip(&self.rendered.disks.data)
            .map(|(ordinal, data)| DataDisk {
                ordinal,
                name: data.volume.clone(),
                pvc: self.name(&data.claim),
                serial: self.serial(ordinal, data.serial.as_ref()),
                volume_mode: data.mode,
                ledger: data.ledger,
                filesystem: data.filesystem,
            })
            .collect()
    }

    fn serial(&self, ordinal: u8, given: Option<&String>) -> String {
        given
            .cloned()
            .unwrap_or_else(|| self.instance.identity.disk_serial(ordinal))
    }

    fn all(&self, objects: &[Value]) -> Vec<Value> {
        objects.iter().map(|object| self.object(object)).collect()
    }

    /// A copy with its own name and references, the run's namespace and labels, and none of the
    /// metadata that a server would have put there.
    fn object(&self, object: &Value) -> Value {
        let mut copy = object.clone();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        copy["metadata"] = self.metadata(&object["metadata"], &self.name(name));
        if let Some(fields) = copy.as_object_mut() {
            fields.remove("status");
        }
        self.refer(&mut copy);
        copy
    }

    fn metadata(&self, given: &Value, name: &str) -> Value {
        let mut metadata = json!({"name": name, "namespace": self.instance.namespace});
        metadata["labels"] = self.labels(&given["labels"]);
        if given["annotations"]
            .as_object()
            .is_some_and(|map| !map.is_empty())
        {
            metadata["annotations"] = given["annotations"].clone();
        }
        metadata
    }

    fn labels(&self, given: &Value) -> Value {
        let mut labels = given.as_object().cloned().unwrap_or_default();
        for (label, value) in [
            (RUN_LABEL, &self.instance.run),
            (SUBJECT_LABEL, &self.instance.subject),
            (WORKLOAD_LABEL, &self.instance.workload),
        ] {
            labels.insert(label.to_owned(), Value::from(value.as_str()));
        }
        Value::Object(labels)
    }

    /// Points references at the renamed objects. What is not in the manifest was allowed to be
    /// missing and keeps its name.
    fn refer(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec") else {
            return;
        };
        refs::visit(spec, "", &mut |found| {
            let named = |objects: &[Value]| {
                objects
                    .iter()
                    .any(|object| object["metadata"]["name"] == found.name.as_str())
            };
            let ours = match found.target {
                Target::Secret => named(&self.rendered.secrets),
                Target::ConfigMap => named(&self.rendered.config_maps),
                Target::Claim | Target::DataVolume => true,
            };
            if ours {
                *found.name = self.name(found.name);
            }
        });
    }

    /// A Service keeps to its own VM although all VMs of the workload carry the same labels.
    fn select_own(&self, service: &mut Value) {
        if let Some(Value::Object(selector)) = service.pointer_mut("/spec/selector") {
            selector.insert(
                SUBJECT_LABEL.to_owned(),
                self.instance.subject.as_str().into(),
            );
            if let Some(name) = selector.get_mut("vm.kubevirt.io/name") {
                *name = self.instance.name.as_str().into();
            }
        }
    }

    /// Fills in the StorageClass where a claim names none.
    fn with_class(&self, mut object: Value) -> Value {
        let Some(class) = &self.instance.storage_class else {
            return object;
        };
        let spec = &mut object["spec"];
        let request = ["storage", "pvc"]
            .into_iter()
            .find(|part| spec[*part].is_object());
        let request = match request {
            Some(part) => &mut spec[part],
            None => spec,
        };
        if request.is_object() && request["storageClassName"].is_null() {
            request["storageClassName"] = Value::from(class.as_str());
        }
        object
    }

    /// The VM for the first site; may add the SSH key to `secrets`.
    fn vm(&self, secrets: &mut Vec<Value>) -> Value {
        let mut vm = self.object(&self.rendered.vm);
        vm["metadata"]["name"] = self.instance.name.as_str().into();
        let spec = &mut vm["spec"];
        spec["runStrategy"] = self.rendered.run_strategy().into();
        spec["template"]["metadata"]["labels"] =
            self.labels(&spec["template"]["metadata"]["labels"]);
        if let Some(Value::Array(templates)) = spec.get_mut("dataVolumeTemplates") {
            for template in templates {
                let name = template["metadata"]["name"].as_str().unwrap_or_default();
                let name = self.name(name);
                template["metadata"] = self.metadata(&template["metadata"], &name);
                // KubeVirt gives the DataVolume the VM's namespace and refuses another.
                if let Some(metadata) = template["metadata"].as_object_mut() {
                    metadata.remove("namespace");
                }
                *template = self.with_class(template.take());
            }
        }
        self.identify(&mut vm);
        self.add_key(&mut vm, secrets);
        vm
    }

    fn identify(&self, vm: &mut Value) {
        let identity = &self.instance.identity;
        let mut firmware = match vm.pointer_mut(FIRMWARE) {
            Some(Value::Object(given)) => std::mem::take(given),
            _ => Map::new(),
        };
        firmware.insert("uuid".into(), identity.firmware_uuid.to_string().into());
        firmware.insert("serial".into(), identity.serial().into());
        vm["spec"]["template"]["spec"]["domain"]["firmware"] = Value::Object(firmware);
        let interfaces = vm.pointer_mut(INTERFACES).and_then(Value::as_array_mut);
        for (index, interface) in interfaces.into_iter().flatten().enumerate() {
            if interface["macAddress"].is_null() {
                interface["macAddress"] = identity.mac(index).into();
            }
        }
        let disks = vm.pointer_mut(DISKS).and_then(Value::as_array_mut);
        for disk in disks.into_iter().flatten() {
            let mut data = (0..).zip(&self.rendered.disks.data);
            let own = data.find(|(_, data)| disk["name"] == data.volume.as_str());
            let Some((ordinal, data)) = own else {
                continue;
            };
            disk["serial"] = self.serial(ordinal, data.serial.as_ref()).into();
            if disk["disk"]["bus"].is_null() {
                disk["disk"] = json!({"bus": "virtio"});
            }
            // KubeVirt stops a guest at an I/O error unless told otherwise; a stopped guest cannot say
            // which of its cells are gone.
            if disk["errorPolicy"].is_null() {
                disk["errorPolicy"] = "report".into();
            }
        }
    }

    fn add_key(&self, vm: &mut Value, secrets: &mut Vec<Value>) {
        let method = match self.rendered.propagation() {
            Propagation::None => return,
            Propagation::UserData => {
                self.add_to_user_data(vm, secrets);
                return;
            }
            Propagation::NoCloud => json!({"noCloud": {}}),
            Propagation::ConfigDrive => json!({"configDrive": {}}),
            Propagation::GuestAgent => {
                json!({"qemuGuestAgent": {"users": [self.rendered.ssh_user()]}})
            }
        };
        let name = self.name("virtproof-ssh");
        secrets.push(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": self.metadata(&Value::Null, &name),
            "type": "Opaque",
            "data": {"key": STANDARD.encode(&self.instance.ssh_public_key)},
        }));
        let credential = json!({"sshPublicKey": {
            "source": {"secret": {"secretName": name}},
            "propagationMethod": method,
        }});
        push(vm, CREDENTIALS, credential);
    }

    fn add_to_user_data(&self, vm: &mut Value, secrets: &mut [Value]) {
        let Some(place) = &self.rendered.user_data else {
            return;
        };
        let user = self.rendered.ssh_user();
        let key = self.instance.ssh_public_key.trim();
        let place = match place {
            cloudinit::Place::Secret { name, key, encoded } => cloudinit::Place::Secret {
                name: self.name(name),
                key: key.clone(),
                encoded: *encoded,
            },
            other => other.clone(),
        };
        if let Some(text) = cloudinit::read(vm, secrets, &place)
            && let Some(text) = cloudinit::add_key(&text, user, key)
        {
            cloudinit::replace(vm, secrets, &place, &text);
        }
    }
}

/// The VM for the other site: halted, on claims that were handed over.
fn peer(mut vm: Value) -> Value {
    vm["spec"]["runStrategy"] = "Halted".into();
    if let Some(spec) = vm["spec"].as_object_mut() {
        spec.remove("dataVolumeTemplates");
    }
    let volumes = vm.pointer_mut(VOLUMES).and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten() {
        if !volume["dataVolume"].is_object() {
            continue;
        }
        let claim = claim_name(volume).map(ToOwned::to_owned);
        let mut source = json!({"claimName": claim});
        if let Some(hotpluggable) = volume["dataVolume"].get("hotpluggable") {
            source["hotpluggable"] = hotpluggable.clone();
        }
        if let Some(fields) = volume.as_object_mut() {
            fields.remove("dataVolume");
            fields.insert("persistentVolumeClaim".into(), source);
        }
    }
    vm
}
