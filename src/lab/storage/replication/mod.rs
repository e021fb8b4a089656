//! VolumeReplications: the csi-addons controller, step for step (replication.md §1.2), with its
//! traps: a refused promotion is repeated with force in the same breath and leaves no trace; a
//! healthy secondary is never looked at again; without a leading sidecar nothing is said at all.

mod driver;
mod strike;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(super) use self::driver::led_with;
use self::driver::{Driver, Replica};
use self::strike::Promotion;
use super::conditions::{self, Event};
use super::engine::{After, Key, Sources, drive, key, new_generation};
use super::objects::{annotate, handle, phase, settle, volume_name};
use super::{CLAIMS, Storage, VGRS, VOLUMES, VR_CLASSES, VRS};
use crate::lab::api::{ApiError, Part, meta};
use crate::lab::array::{Code, Status};
use crate::lab::faults::Fault;

/// Reserved prefix of class parameters, annotations and finalizers.
const PREFIX: &str = "replication.storage.openshift.io/";
const FINALIZER: &str = "replication.storage.openshift.io";
const CLAIM_FINALIZER: &str = "replication.storage.openshift.io/pvc-protection";
const OWNER: &str = "replication.storage.openshift.io/volume-replication-name";
const GROUP_OWNER: &str = "replication.storage.openshift.io/volume-group-replication-name";

/// How long a first demotion is left alone.
const AFTER_DEMOTE: Duration = Duration::from_secs(15);
/// How long a resync is left alone.
const AFTER_RESYNC: Duration = Duration::from_secs(30);
/// How often a primary is asked for its last sync when the class does not say.
const INFO_INTERVAL: Duration = Duration::from_secs(3600);

/// Runs the controller. Only a new generation wakes it, or its own timers.
pub(super) async fn run(storage: Storage, stop: CancellationToken) {
    let sources = Sources::new().watch(storage.store.watch(VRS), new_generation);
    let clock = storage.clock;
    drive(sources, clock, stop, move |key| {
        reconcile(storage.clone(), key)
    })
    .await;
}

async fn reconcile(s: Storage, (namespace, name): Key) -> After {
    s.array.powered(s.site).await;
    match s.store.get(VRS, &namespace, &name) {
        Some(vr) => settle(step(&s, &vr).await, "volume replication"),
        None => After::Done,
    }
}

/// What a reconcile reports.
#[derive(Debug, Default)]
struct Report {
    events: Vec<Event>,
    /// Defaults to the state there was, or `Unknown`.
    state: Option<&'static str>,
    message: String,
    /// The word that condition messages begin with.
    subject: &'static str,
    fields: Vec<(&'static str, Option<Value>)>,
}

impl Report {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            subject: "volume",
            ..Self::default()
        }
    }

    /// Writes status. Refused when the spec changed meanwhile: what was done was for another one.
    fn write(&self, s: &Storage, vr: &Value) -> Result<(), ApiError> {
        let (namespace, name) = key(vr);
        s.store
            .try_modify(VRS, &namespace, &name, Part::Status, |now| {
                if meta::generation(now) != meta::generation(vr) {
                    return Err(ApiError::stale(VRS, &name));
                }
                for event in &self.events {
                    conditions::set(now, self.subject, event);
                }
                let state = match (self.state, meta::text(now, "/status/state")) {
                    (Some(state), _) => state.to_owned(),
                    (None, "") => "Unknown".to_owned(),
                    (None, held) => held.to_owned(),
                };
                if state == "Secondary" {
                    conditions::remove(now, "Replicating");
                }
                let generation = meta::generation(now);
                let status = meta::map_at(now, "status");
                for (field, value) in &self.fields {
                    match value {
                        Some(value) => status.insert((*field).into(), value.clone()),
                        None => status.shift_remove(*field),
                    };
                }
                status.insert("message".into(), json!(self.message));
                status.insert("observedGeneration".into(), json!(generation));
                status.insert("state".into(), json!(state));
                Ok(())
            })
            .map(drop)
    }
}

/// Why a reconcile cannot get as far as the driver.
enum Obstacle {
    /// Said in status: what was tried, why it failed, the subject of the messages, whether to
    /// try again.
    Said(&'static str, String, &'static str, bool),
    /// Not said anywhere but in the controller's log.
    Silent(String),
}

fn failure(vr: &Value, tried: &'static str, error: String) -> Option<Event> {
    match meta::text(vr, "/spec/replicationState") {
        "primary" => Some(Event::FailedToPromote(tried, error)),
        "secondary" => Some(Event::FailedToDemote(tried, error)),
        "resync" => Some(Event::FailedToResync(tried, error)),
        _ => None,
    }
}

async fn step(s: &Storage, vr: &Arc<Value>) -> Result<After, ApiError> {
    let (driver, claim) = match prepare(s, vr) {
        Ok(found) => found,
        Err(Obstacle::Said(tried, error, subject, again)) => {
            let report = Report {
                events: failure(vr, tried, error.clone()).into_iter().collect(),
                subject,
                ..Report::new(error)
            };
            report.write(s, vr)?;
            return Ok(if again { After::Retry } else { After::Done });
        }
        Err(Obstacle::Silent(why)) => {
            tracing::debug!(
                vr = meta::name(vr),
                why,
                "volume replication not reconciled"
            );
            return Ok(After::Retry);
        }
    };
    if meta::deleting(vr) {
        return remove(s, vr, &driver, &claim);
    }
    if let Some(refused) = own(s, vr, &claim)? {
        tracing::debug!(
            vr = meta::name(vr),
            refused,
            "volume replication not reconciled"
        );
        return Ok(After::Retry);
    }
    strike::lag(s, vr).await?;
    match meta::text(vr, "/spec/replicationState") {
        "primary" => primary(s, vr, &driver, &claim).await,
        "secondary" => secondary(s, vr, &driver),
        _ => resync(s, vr, &driver, true),
    }
}

/// Everything that a reconcile needs: the class, the claim, a leading sidecar.
fn prepare(s: &Storage, vr: &Value) -> Result<(Driver, Arc<Value>), Obstacle> {
    let class_name = meta::text(vr, "/spec/volumeReplicationClass");
    let Some(class) = s.store.get(VR_CLASSES, "", class_name) else {
        let error = format!(
            "VolumeReplicationClass.replication.storage.openshift.io \"{class_name}\" not found"
        );
        let tried = "failed to get volumeReplication class";
        return Err(Obstacle::Said(tried, error, subject(vr), true));
    };
    let parameters = class.pointer("/spec/parameters").and_then(Value::as_object);
    let known = ["replication-secret-name", "replication-secret-namespace"];
    let unknown = parameters.into_iter().flat_map(|p| p.keys()).find(|key| {
        key.strip_prefix(PREFIX)
            .is_some_and(|rest| !known.contains(&rest))
    });
    if let Some(unknown) = unknown {
        let error =
            format!("found unknown parameter key \"{unknown}\" with reserved prefix {PREFIX}");
        let tried = "failed to validate parameters of volumeReplicationClass";
        return Err(Obstacle::Said(tried, error, subject(vr), true));
    }
    let (claim, volume) = source(s, vr)?;
    let provisioner = meta::text(&class, "/spec/provisioner");
    if strike::leaderless(s) || !driver::led(&s.store, provisioner) {
        let why = format!("no leader for the ControllerService of driver \"{provisioner}\"");
        return Err(Obstacle::Silent(why));
    }
    Ok((Driver::new(s, &class, &claim, &volume), claim))
}

/// What condition messages about the class begin with.
fn subject(vr: &Value) -> &'static str {
    match meta::text(vr, "/spec/dataSource/kind") {
        "PersistentVolumeClaim" => "volume",
        "VolumeGroupReplication" => "volume group",
        _ => "",
    }
}

/// The claim to replicate and its volume. The real controller passes the data source's name where
/// its kind belongs, so that the messages of these failures begin with a blank.
fn source(s: &Storage, vr: &Value) -> Result<(Arc<Value>, Arc<Value>), Obstacle> {
    let name = meta::text(vr, "/spec/dataSource/name");
    let namespace = meta::namespace(vr);
    match meta::text(vr, "/spec/dataSource/kind") {
        "PersistentVolumeClaim" => {
            let failed = |error: String| Obstacle::Said("failed to find PVC", error, "", true);
            let Some(claim) = s.store.get(CLAIMS, namespace, name) else {
                return Err(failed(format!(
                    "PersistentVolumeClaim \"{name}\" not found"
                )));
            };
            if phase(&claim) != "Bound" {
                return Err(failed(format!("PVC \"{name}\" is not bound to any PV")));
            }
            let volume = volume_name(&claim);
            match s.store.get(VOLUMES, "", volume) {
                Some(found) if !handle(&found).is_empty() => Ok((claim, found)),
                Some(_) => Err(failed(format!("PV \"{volume}\" is not a CSI PV"))),
                None => Err(failed(format!("PersistentVolume \"{volume}\" not found"))),
            }
        }
        "VolumeGroupReplication" => {
            let tried = "failed to get VolumeGroupReplication";
            let error = match s.store.get(VGRS, namespace, name) {
                None => format!(
                    "VolumeGroupReplication.replication.storage.openshift.io \"{name}\" not found"
                ),
                Some(_) => "VolumeGroupReplicationContentName is empty".to_owned(),
            };
            Err(Obstacle::Said(tried, error, "", true))
        }
        _ => {
            let error = "unsupported datasource kind".to_owned();
            Err(Obstacle::Said("unsupported datasource", error, "", false))
        }
    }
}

/// Puts finalizers and the owner's name on; `Some` says who owns the claim instead.
fn own(s: &Storage, vr: &Value, claim: &Value) -> Result<Option<String>, ApiError> {
    let (namespace, name) = key(vr);
    let owner = format!("{name}/{namespace}");
    s.store.modify(VRS, &namespace, &name, Part::Object, |vr| {
        meta::add_finalizer(vr, FINALIZER);
    })?;
    let held = meta::annotation(claim, OWNER).unwrap_or_default();
    let group = meta::annotation(claim, GROUP_OWNER).unwrap_or_default();
    if !group.is_empty() || (!held.is_empty() && held != owner) {
        let other = if group.is_empty() { held } else { group };
        return Ok(Some(format!("claim is owned by {other}")));
    }
    let (_, claim) = key(claim);
    s.store
        .modify(CLAIMS, &namespace, &claim, Part::Object, |c| {
            annotate(c, OWNER, &owner);
            meta::add_finalizer(c, CLAIM_FINALIZER);
        })?;
    Ok(None)
}

fn remove(s: &Storage, vr: &Value, driver: &Driver, claim: &Value) -> Result<After, ApiError> {
    if !meta::finalizers(vr).contains(&FINALIZER) {
        return Ok(After::Done);
    }
    let disabled = strike::disable(s, vr).map_or_else(|| driver.disable(), Err);
    match disabled {
        Err(status) if status.code != Code::NotFound => {
            tracing::debug!(vr = meta::name(vr), %status, "failed to disable replication");
            return Ok(After::Retry);
        }
        _ => {}
    }
    let (namespace, name) = key(vr);
    s.store
        .modify(CLAIMS, &namespace, meta::name(claim), Part::Object, |c| {
            let held = c.pointer_mut("/metadata/annotations");
            if let Some(held) = held.and_then(Value::as_object_mut) {
                held.shift_remove(OWNER);
            }
            meta::remove_finalizer(c, CLAIM_FINALIZER);
        })?;
    if held_back(s, &format!("{namespace}/{name}")) {
        return Ok(After::Retry);
    }
    s.store.modify(VRS, &namespace, &name, Part::Object, |vr| {
        meta::remove_finalizer(vr, FINALIZER);
    })?;
    Ok(After::Done)
}

/// Whether this object is the one that must survive cleanup (fault `leftover-after-cleanup`): the
/// first that is deleted while the fault is planted.
fn held_back(s: &Storage, object: &str) -> bool {
    let fault = Fault::LeftoverAfterCleanup;
    if !s.array.board().armed(fault) {
        return false;
    }
    let strikes = s.array.strikes();
    let first = strikes.iter().find(|strike| strike.fault == fault);
    if first.is_some_and(|f| f.site != s.site || f.image != object) {
        return false;
    }
    s.array.record(fault, s.site, object, "keeps its finalizer");
    true
}

async fn primary(
    s: &Storage,
    vr: &Value,
    driver: &Driver,
    claim: &Value,
) -> Result<After, ApiError> {
    if strike::prune(s, vr)? {
        return Ok(After::Done);
    }
    let mut report = Report::new("volume is marked primary");
    let promoted = meta::text(vr, "/status/state") == "Primary";
    let struck = strike::promotion(s).filter(|_| !promoted);
    if struck == Some(Promotion::CompletedOnly) {
        report.events.push(Event::Promoted);
        report.write(s, vr)?;
        return Ok(After::Done);
    }
    let done = match (struck, strike::parent(s, claim)) {
        _ if promoted => Ok(()),
        (_, Some(status)) => Err(enable_failed(status)),
        (Some(Promotion::Early(wait)), None) => {
            strike::promote_later(s, vr, driver.clone(), wait);
            Ok(())
        }
        (Some(Promotion::Unrecognised), None) => become_primary(driver)
            .await
            .and_then(|()| Err(enable_failed(strike::unrecognised()))),
        (_, None) => become_primary(driver).await,
    };
    if let Err((event, status)) = done {
        let report = Report {
            events: vec![event],
            ..Report::new(status.message)
        };
        report.write(s, vr)?;
        return Ok(After::Retry);
    }
    report.events.push(Event::Promoted);
    report.state = Some("Primary");
    report
        .fields
        .push(("lastCompletionTime", Some(json!(meta::now()))));
    let after = match driver.info() {
        Ok(Replica { sync, state, text }) => {
            let seconds = sync.duration.as_secs_f64();
            report.fields.extend([
                (
                    "lastSyncTime",
                    Some(json!(meta::stamp(strike::clock(s, sync.time)))),
                ),
                ("lastSyncDuration", Some(json!(format!("{seconds}s")))),
                (
                    "lastSyncBytes",
                    Some(json!(sync.bytes)).filter(|_| sync.bytes > 0),
                ),
            ]);
            report.events.push(Event::Replicating(state, text));
            After::Requeue(driver.info_interval().unwrap_or(INFO_INTERVAL))
        }
        // Swallowed: what status said about the last sync stays.
        Err(status) if status.code == Code::NotFound => {
            After::Requeue(driver.info_interval().unwrap_or(INFO_INTERVAL))
        }
        Err(status) => {
            report.events.push(Event::Replicating(None, status.message));
            After::Retry
        }
    };
    report.write(s, vr)?;
    Ok(after)
}

fn enable_failed(status: Status) -> (Event, Status) {
    let tried = "failed to enable volume replication";
    let text = status.to_string();
    let event = if status.code == Code::FailedPrecondition {
        Event::PrerequisiteNotMet(tried, text)
    } else {
        Event::FailedToPromote(tried, text)
    };
    (event, status)
}

async fn become_primary(driver: &Driver) -> Result<(), (Event, Status)> {
    driver.enable().map_err(enable_failed)?;
    let failed =
        |tried, status: Status| (Event::FailedToPromote(tried, status.to_string()), status);
    match driver.promote(false).await {
        Err(status) if status.code == Code::FailedPrecondition => {
            tracing::info!(%status, "force promoting volume due to known grpc error");
            let forced = driver.promote(true).await;
            forced.map_err(|status| failed("failed to force promote volume", status))
        }
        done => done.map_err(|status| failed("failed to promote volume", status)),
    }
}

fn secondary(s: &Storage, vr: &Value, driver: &Driver) -> Result<After, ApiError> {
    let first = meta::text(vr, "/status/state") != "Secondary";
    if let Err(status) = driver.demote() {
        let event = Event::FailedToDemote("failed to demote volume", status.to_string());
        let report = Report {
            events: vec![event],
            ..Report::new(status.message)
        };
        report.write(s, vr)?;
        return Ok(if first {
            After::Retry
        } else {
            After::Requeue(AFTER_DEMOTE)
        });
    }
    if first {
        let report = Report {
            events: vec![Event::Demoted],
            state: Some("Secondary"),
            ..Report::new("volume is marked secondary and is degraded")
        };
        report.write(s, vr)?;
        return Ok(After::Requeue(AFTER_DEMOTE));
    }
    let force = vr.pointer("/spec/autoResync") == Some(&json!(true));
    resync(s, vr, driver, force)
}

fn resync(s: &Storage, vr: &Value, driver: &Driver, force: bool) -> Result<After, ApiError> {
    let wanted = meta::text(vr, "/spec/replicationState");
    let (report, after) = match driver.resync(force) {
        Err(status) => {
            let event = Event::FailedToResync("failed to resync volume", status.to_string());
            let report = Report {
                events: vec![event],
                ..Report::new(status.message)
            };
            let after = if meta::text(vr, "/status/state") == "Secondary" {
                After::Requeue(AFTER_DEMOTE)
            } else {
                After::Retry
            };
            (report, after)
        }
        Ok(false) => {
            let report = Report {
                events: vec![Event::Resyncing],
                ..Report::new("volume is degraded")
            };
            (report, After::Requeue(AFTER_RESYNC))
        }
        Ok(true) => {
            let mut report = Report::new(match wanted {
                "resync" => "volume is marked for resyncing",
                _ => "volume is marked secondary",
            });
            report.events.push(Event::Resynced);
            report.state = Some("Secondary");
            report
                .fields
                .push(("lastCompletionTime", Some(json!(meta::now()))));
            if wanted == "secondary" {
                report.fields.push(("lastSyncTime", None));
            }
            // The healthy state is a latch: nobody looks again.
            (report, After::Done)
        }
    };
    report.write(s, vr)?;
    Ok(after)
}
