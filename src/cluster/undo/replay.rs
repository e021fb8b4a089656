//! Undoing: reverse order, subjects side by side, everything awaited, and an account of what is left.

use std::collections::BTreeMap;
use std::path::Path;

use futures::StreamExt as _;
use serde_json::{Value, json};

use super::{Entry, Hands, Thaw, Undo, UndoLog};
use crate::cluster::crd::csiaddons::NetworkFence;
use crate::cluster::crd::replication::VolumeReplication;
use crate::cluster::error::Error;
use crate::cluster::kind::{ObjRef, Typed as _, uid};
use crate::cluster::owner::{RUN_LABEL, label};
use crate::cluster::view::{Scope, Seen};
use crate::cluster::wait::{Wake, repeat};
use crate::cluster::write::{Patch, Propagation};
use crate::cluster::{Cluster, Deadline, Method, Sites};
use crate::history::event::Site;

/// How many subjects are undone at a time.
const SIDE_BY_SIDE: usize = 16;

/// Something that could not be undone.
#[derive(Debug, Clone, PartialEq)]
pub struct Left {
    /// What should have been done.
    pub entry: Entry,
    /// Why it was not.
    pub why: String,
    /// Whether the site's API did not serve us, so that nobody knows whether it could be undone.
    pub blind: bool,
}

/// Why an entry was not undone.
struct Obstacle {
    why: String,
    blind: bool,
}

impl From<String> for Obstacle {
    fn from(why: String) -> Self {
        Self { why, blind: false }
    }
}

impl From<Error> for Obstacle {
    fn from(error: Error) -> Self {
        Self {
            why: error.to_string(),
            blind: error.is_blind(),
        }
    }
}

/// Undoes what the log still holds, newest first, and returns what is left. Entries of different
/// lanes are undone side by side; one without a lane waits for all before it and is waited for.
/// A stuck entry gets a third of the time that is left, so that it does not keep the others from
/// being tried.
pub async fn replay(
    log: &UndoLog,
    sites: &Sites,
    hands: &dyn Hands,
    deadline: &Deadline,
) -> Vec<Left> {
    let on = On {
        log,
        sites,
        hands,
        deadline,
    };
    let mut left = Vec::new();
    let mut lanes: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    let mut entries = log.pending();
    entries.reverse();
    for entry in entries {
        if let Some(lane) = &entry.lane {
            lanes.entry(lane.clone()).or_default().push(entry);
        } else {
            left.extend(undo_lanes(&on, std::mem::take(&mut lanes)).await);
            left.extend(undo_all(&on, vec![entry]).await);
        }
    }
    left.extend(undo_lanes(&on, lanes).await);
    left
}

/// What is undone, where, by whom and until when.
struct On<'a> {
    log: &'a UndoLog,
    sites: &'a Sites,
    hands: &'a dyn Hands,
    deadline: &'a Deadline,
}

async fn undo_lanes(on: &On<'_>, lanes: BTreeMap<String, Vec<Entry>>) -> Vec<Left> {
    futures::stream::iter(lanes.into_values())
        .map(|lane| async {
            demoted_promoted(on.sites, on.deadline, &lane).await;
            let lane = primaries_first(on.sites, lane).await;
            undo_all(on, lane).await
        })
        .buffer_unordered(SIDE_BY_SIDE)
        .concat()
        .await
}

async fn undo_all(on: &On<'_>, entries: Vec<Entry>) -> Vec<Left> {
    let (log, deadline) = (on.log, on.deadline);
    let mut left = Vec::new();
    for entry in entries {
        let share = deadline.within(deadline.remaining() / 3);
        let done = match undo(on, &share, &entry.undo).await {
            Ok(()) => log.done(entry.id).await.map_err(|e| e.to_string().into()),
            Err(obstacle) => Err(obstacle),
        };
        if let Err(Obstacle { why, blind }) = done {
            left.push(Left { entry, why, blind });
        }
    }
    left
}

/// Gives every volume of a lane a primary again that was left without one, in the middle of a planned
/// move: the storage refuses to end replication where both sides are demoted. What fails here shows
/// in the deletions that follow.
async fn demoted_promoted(sites: &Sites, deadline: &Deadline, lane: &[Entry]) {
    let mut volumes: BTreeMap<&ObjRef, Vec<Site>> = BTreeMap::new();
    for entry in lane {
        if let Undo::Delete { site, object, .. } = &entry.undo
            && object.kind == VolumeReplication::KIND
        {
            volumes.entry(object).or_default().push(*site);
        }
    }
    let promotions = volumes.into_iter().map(async |(object, of)| {
        match promote_one(sites, deadline, object, &of).await {
            Ok(()) => {}
            Err(error) => tracing::info!(%object, %error, "no side of a volume could be promoted"),
        }
    });
    futures::future::join_all(promotions).await;
}

async fn promote_one(
    sites: &Sites,
    deadline: &Deadline,
    object: &ObjRef,
    of: &[Site],
) -> Result<(), Error> {
    let namespace = object.namespace.as_deref().unwrap_or_default();
    let mut demoted = None;
    for site in of {
        let cluster = sites.of(*site);
        match cluster
            .find::<VolumeReplication>(namespace, &object.name)
            .await?
        {
            Some(vr) if vr.status.state == "Primary" => return Ok(()),
            Some(vr)
                if vr.status.state == "Secondary" && vr.metadata.deletion_timestamp.is_none() =>
            {
                demoted.get_or_insert(cluster);
            }
            _ => {}
        }
    }
    let Some(cluster) = demoted else {
        return Ok(());
    };
    let primary = json!({"spec": {"replicationState": "primary", "autoResync": false}});
    cluster.patch(object, &Patch::Merge(primary)).await?;
    let share = deadline.within(deadline.remaining() / 3);
    let waiting_for = format!("{object} to be primary again");
    cluster
        .view::<VolumeReplication>(&Scope::Namespace(namespace.to_owned()))
        .until_object(
            &share,
            namespace,
            &object.name,
            &waiting_for,
            |vr| match vr {
                Some(vr) if vr.status.state != "Primary" => Seen::Not(vr.status.message.clone()),
                _ => Seen::Met(()),
            },
        )
        .await
}

/// Moves a lane's VolumeReplication deletions together, primaries first. Disabling on a primary
/// removes the replicas with it; the other way round, a secondary that is not replaying refuses and
/// stays Terminating.
async fn primaries_first(sites: &Sites, lane: Vec<Entry>) -> Vec<Entry> {
    let is_vr = |e: &Entry| matches!(&e.undo, Undo::Delete { object, .. } if object.kind == VolumeReplication::KIND);
    let Some(first) = lane.iter().position(is_vr) else {
        return lane;
    };
    let (replications, mut rest): (Vec<_>, Vec<_>) = lane.into_iter().partition(is_vr);
    let mut ranked = Vec::new();
    for entry in replications {
        let secondary = match &entry.undo {
            Undo::Delete { site, object, .. } => {
                let namespace = object.namespace.as_deref().unwrap_or_default();
                let found = sites
                    .of(*site)
                    .find::<VolumeReplication>(namespace, &object.name)
                    .await;
                !matches!(found, Ok(Some(vr)) if vr.status.state == "Primary")
            }
            _ => true,
        };
        ranked.push((secondary, entry));
    }
    ranked.sort_by_key(|(secondary, _)| *secondary);
    rest.splice(first..first, ranked.into_iter().map(|(_, entry)| entry));
    rest
}

async fn undo(on: &On<'_>, deadline: &Deadline, what: &Undo) -> Result<(), Obstacle> {
    let (run, sites) = (on.log.run(), on.sites);
    let done = match what {
        Undo::Delete { site, object, uid } => {
            delete(run, sites.of(*site), deadline, object, uid.as_deref()).await
        }
        Undo::Patch {
            site,
            object,
            merge,
        } => {
            restore(
                sites.of(*site),
                deadline,
                object,
                &Patch::Merge(merge.clone()),
            )
            .await
        }
        Undo::Put {
            site,
            object,
            subresource,
            body,
        } => {
            let cluster = sites.of(*site);
            put(cluster, deadline, object, (subresource, body.as_ref())).await
        }
        Undo::Unfence { site, name } => unfence(run, sites.of(*site), deadline, name).await,
        Undo::Thaw(what) => return thaw(on, deadline, what).await,
        Undo::Command { argv, dir } => return Ok(command(deadline, argv, dir).await?),
    };
    Ok(done?)
}

async fn delete(
    run: &str,
    cluster: &Cluster,
    deadline: &Deadline,
    object: &ObjRef,
    known: Option<&str>,
) -> Result<(), Error> {
    let waiting_for = format!("the deletion of {object} to be accepted");
    let doomed = repeat(deadline, &waiting_for, Wake::paced(), || async {
        let found = match cluster.read(object).await {
            Ok(found) => found,
            Err(Error::NotFound { .. } | Error::MissingKind { .. }) => return Ok(Seen::Met(None)),
            Err(e) => return Err(e),
        };
        let ours = match known {
            Some(known) => uid(&found) == Some(known),
            None => label(&found, RUN_LABEL) == Some(run),
        };
        if !ours {
            // Somebody else's object bears the name now; ours is gone.
            return Ok(Seen::Met(None));
        }
        let doomed = uid(&found).unwrap_or_default().to_owned();
        cluster
            .delete(object, Some(&doomed), Propagation::Background)
            .await?;
        Ok(Seen::Met(Some(doomed)))
    })
    .await?;
    match doomed {
        None => Ok(()),
        Some(uid) => cluster.until_gone_at(deadline, object, &uid).await,
    }
}

async fn restore(
    cluster: &Cluster,
    deadline: &Deadline,
    object: &ObjRef,
    patch: &Patch,
) -> Result<(), Error> {
    let waiting_for = format!("{object} to be restored");
    repeat(deadline, &waiting_for, Wake::paced(), || async {
        match cluster.patch(object, patch).await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(Seen::Met(())),
            Err(e) => Err(e),
        }
    })
    .await
}

async fn put(
    cluster: &Cluster,
    deadline: &Deadline,
    object: &ObjRef,
    (subresource, body): (&str, Option<&Value>),
) -> Result<(), Error> {
    let waiting_for = format!("{subresource} of {object}");
    repeat(deadline, &waiting_for, Wake::paced(), || async {
        match cluster
            .subresource(Method::Put, object, subresource, body)
            .await
        {
            // Conflict: it does not run any more, or is so already: there is nothing left to undo.
            Ok(_) | Err(Error::NotFound { .. } | Error::Conflict { .. }) => Ok(Seen::Met(())),
            Err(e) => Err(e),
        }
    })
    .await
}

/// Thaws what was frozen from inside a guest, if that very guest still runs.
async fn thaw(on: &On<'_>, deadline: &Deadline, what: &Thaw) -> Result<(), Obstacle> {
    let cluster = on.sites.of(what.site);
    let waiting_for = format!("{} to be seen", what.object);
    let runs = repeat(deadline, &waiting_for, Wake::paced(), || async {
        let found = match cluster.read(&what.object).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(Seen::Met(false)),
            Err(error) => return Err(error),
        };
        let phase = found.pointer("/status/phase").and_then(Value::as_str);
        let over = matches!(phase, Some("Succeeded" | "Failed"));
        Ok(Seen::Met(uid(&found) == Some(&what.uid) && !over))
    })
    .await?;
    if !runs {
        return Ok(());
    }
    Ok(on.hands.thaw(what, deadline).await?)
}

async fn unfence(
    run: &str,
    cluster: &Cluster,
    deadline: &Deadline,
    name: &str,
) -> Result<(), Error> {
    let object = ObjRef::of::<NetworkFence>("", name);
    let waiting_for = format!("NetworkFence {name} to be lifted");
    let asked = repeat(deadline, &waiting_for, Wake::paced(), || async {
        let found = match cluster.read(&object).await {
            Ok(found) => found,
            Err(Error::NotFound { .. } | Error::MissingKind { .. }) => return Ok(Seen::Met(None)),
            Err(e) => return Err(e),
        };
        if label(&found, RUN_LABEL) != Some(run) {
            return Ok(Seen::Met(None));
        }
        let lift = Patch::Merge(json!({"spec": {"fenceState": "Unfenced"}}));
        let changed = cluster.patch(&object, &lift).await?;
        Ok(Seen::Met(uid(&changed).map(ToOwned::to_owned)))
    })
    .await?;
    let Some(uid) = asked else { return Ok(()) };
    let view = cluster.view::<NetworkFence>(&Scope::All);
    view.until_object(deadline, "", name, &waiting_for, |fence| match fence {
        None => Seen::Met(()),
        Some(fence) if fence.is_lifted() => Seen::Met(()),
        Some(fence) => Seen::Not(fence.describe()),
    })
    .await?;
    delete(run, cluster, deadline, &object, Some(&uid)).await
}

async fn command(deadline: &Deadline, argv: &[String], dir: &Path) -> Result<(), String> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err("the command is empty".into());
    };
    // A relative path is relative to the folder; a bare name is looked up as usual.
    let found = if program.contains('/') {
        dir.join(program)
    } else {
        program.into()
    };
    let work = tokio::process::Command::new(found)
        .args(arguments)
        .current_dir(dir)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let waiting_for = format!("{argv:?} to end");
    let last_seen = || ("it runs".to_owned(), None);
    let output = deadline
        .bound(&waiting_for, last_seen, work)
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| format!("{argv:?} cannot be run: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let tail: String = stderr.trim().chars().take(300).collect();
    Err(format!("{argv:?} ended with {}: {tail}", output.status))
}
