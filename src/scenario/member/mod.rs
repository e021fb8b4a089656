//! One VM under test in one trial: what it is, where it is, and what is known of it so far.

mod left;
mod offshoot;
mod part;

use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::time::Instant;

use super::commits::Commits;
use super::trouble::Trouble;
use super::world::{World, hex};
use crate::cluster::{
    Cluster, ObjRef, Owner,
    crd::kubevirt::{VirtualMachine, VirtualMachineInstance},
};
use crate::guest::{HostKeyRule, Login, LoginKey, Pins, Route};
use crate::history::event::{CutVolume, Fact, LedgerMode, Site, Stage, VolumeFact};
use crate::history::recorder::Scope;
use crate::plan::model::{self, FileSystem, LedgerKind, VolumeMode, Workload};
use crate::probe::host::{Inside, Prober, Reach};
use crate::probe::layout::{CELL, Layout, LayoutSpec, mix};
use crate::probe::{config, filesystem};
use crate::replicate::{Mode, Set, Work, handover::Captured};
use crate::workload::{Identity, Instance, Rendered, Root, Subject, fit_name};
pub(super) use left::Left;
pub(super) use part::Extent;

/// A probe run of a member, as its events name it.
#[derive(Clone)]
pub(super) struct Incarnation {
    /// 16 hex digits.
    pub(super) name: String,
    /// As it stands in cells.
    pub(super) number: u64,
    /// Regions by volume ordinal.
    pub(super) layouts: Vec<Layout>,
}

/// A freeze that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frozen {
    /// When, as the storage of its site may at most count it.
    pub(super) storage: Timestamp,
    /// When, on the run's clock.
    pub(super) at: Instant,
    /// The undo of a freeze from inside the guest.
    pub(super) inside: Option<u64>,
}

/// A point in time of a member's volumes that was taken.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    /// Its name in events and on the cluster.
    pub(super) name: String,
    /// How many loads there were.
    pub(super) loads: usize,
    /// Its volumes.
    pub(super) volumes: Vec<CutVolume>,
}

/// A VM under test.
pub struct Member {
    /// Scope of its events.
    pub(super) scope: Scope,
    /// On whose behalf its objects are made.
    pub(super) owner: Owner,
    /// Its plan workload.
    pub(super) workload: Workload,
    /// Its objects.
    pub(super) subject: Subject,
    /// Its volumes, which move together.
    pub(super) set: Set,
    /// Its data volumes.
    pub(super) volumes: Vec<VolumeFact>,
    /// Volume ids as they stand in cells, by ordinal.
    pub(super) vol_ids: Vec<[u8; 16]>,
    /// The seed of its address stream and payloads.
    pub(super) seed: u64,
    /// Where it should be.
    pub(super) site: Site,
    /// How it may go to the other site, once the way is open: without loss if its volumes were
    /// demoted, else by force on the evidence that nothing writes here any more.
    pub(super) way: Option<Mode>,
    /// Whether the trial owes every acknowledged write.
    owed: bool,
    /// Whether its last move owes them, once it has moved.
    lossless: Option<bool>,
    /// Whether its first recovery is over, which is the one that stages are told of.
    recovered: bool,
    /// Claims and volumes as they stood on the first site.
    pub(super) captured: Vec<Captured>,
    /// The incarnations that wrote load, oldest first.
    pub(super) loads: Vec<Incarnation>,
    /// Its probe, while it is listened to.
    pub(super) loader: Option<Prober>,
    /// Why it stopped short, if it did.
    pub(super) failed: Option<Trouble>,
    /// When its file systems were frozen, while they are.
    pub(super) frozen: Option<Frozen>,
    /// The login by which they were frozen from inside, while they are.
    pub(super) inside: Option<Inside>,
    /// The run that its cells are of: of its own where two probes live in one guest.
    run_id: [u8; 16],
    /// What of a VM it is.
    pub(super) extent: Extent,
    /// A part of its VM with a ledger and a probe of its own: a disk that was plugged into its guest, or
    /// what a volume grew by.
    pub(super) part: Option<Box<Self>>,
    /// The points in time that were taken of it, oldest first.
    pub(super) cuts: Vec<Taken>,
    /// The one that its volumes were made from, if they were.
    pub(super) restored: Option<String>,
    /// Whether it comes up again after something else than an outage, of which no stage is told.
    pub(super) aside: bool,
    /// The VM that was cloned from it.
    pub(super) twin: Option<Box<Self>>,
    /// What its disks left behind when they moved.
    pub(super) left: Option<Left>,
    /// Who commits to the database in its guest.
    pub(super) commits: Option<Commits>,
}

impl Member {
    /// The `index`-th VM of a workload in a trial, which owes every acknowledged write if `owed`.
    pub(super) fn new(
        world: &World,
        trial: &Scope,
        namespace: &str,
        (workload, rendered): (&Workload, &Rendered),
        owed: bool,
        index: u32,
    ) -> anyhow::Result<Self> {
        let name = fit_name(&workload.name, &index.to_string());
        let lineage = format!("{namespace}/{name}");
        let instance = instance(world, workload, namespace, &name)?;
        let subject = rendered.bind(&instance);
        let vol_ids: Vec<[u8; 16]> = subject
            .data_disks
            .iter()
            .map(|disk| vol_id(&world.run_id, &lineage, &disk.name))
            .collect();
        let volumes = subject
            .data_disks
            .iter()
            .zip(&vol_ids)
            .map(|(disk, id)| VolumeFact {
                ordinal: disk.ordinal,
                name: disk.name.clone(),
                pvc: disk.pvc.clone(),
                vol_id: hex(id),
                volume_mode: disk.volume_mode.map_or("", VolumeMode::name).to_owned(),
                ledger: match disk.ledger {
                    LedgerKind::Raw => LedgerMode::Raw,
                    LedgerKind::File => LedgerMode::File,
                },
            })
            .collect();
        let set = Set {
            namespace: namespace.to_owned(),
            vm: subject.vm.clone(),
            pvcs: subject.claims.clone(),
        };
        let drawn = blake3::hash(lineage.as_bytes());
        let drawn = u64::from_le_bytes(drawn.as_bytes()[..8].try_into().context("eight bytes")?);
        Ok(Self {
            scope: trial.subject(name),
            owner: world.owner.lane(&lineage),
            workload: workload.clone(),
            subject,
            set,
            volumes,
            vol_ids,
            seed: mix(world.seed ^ drawn),
            site: Site::Primary,
            way: None,
            owed,
            lossless: None,
            recovered: false,
            captured: Vec::new(),
            loads: Vec::new(),
            loader: None,
            failed: None,
            frozen: None,
            inside: None,
            run_id: world.run_id,
            extent: Extent::Whole,
            part: None,
            cuts: Vec::new(),
            restored: None,
            aside: false,
            twin: None,
            left: None,
            commits: None,
        })
    }

    /// The load incarnations that a read-back of its first so many loads is evidence of, oldest first: by
    /// name, and as they stand in cells.
    pub(super) fn judged(&self, loads: usize) -> (Vec<String>, Vec<u64>) {
        let loads = self.loads.iter().take(loads);
        loads.map(|load| (load.name.clone(), load.number)).unzip()
    }

    /// Its name in events.
    pub fn name(&self) -> &str {
        self.scope.subject.as_deref().unwrap_or_default()
    }

    /// Records a fact about it.
    pub(super) async fn tell(&self, world: &World, fact: Fact) -> anyhow::Result<()> {
        world.recorder.record(&self.scope, fact).await?;
        Ok(())
    }

    /// Records that a stage of its first recovery closed; a move after it is not what the trial's
    /// outage is about.
    pub(super) async fn stage(&self, world: &World, stage: Stage) -> anyhow::Result<()> {
        if self.recovered || self.aside {
            return Ok(());
        }
        self.tell(world, Fact::StageReached { stage }).await
    }

    /// Records that it serves again, the last stage of its recovery.
    pub(super) async fn serves(&mut self, world: &World) -> anyhow::Result<()> {
        self.stage(world, Stage::FirstAck).await?;
        // A guest that was only restarted where it is has its recovery before it.
        let aside = std::mem::take(&mut self.aside);
        self.recovered |= !aside && self.has_moved();
        Ok(())
    }

    /// It is on the other site from now on; `lossless` if its move owes every acknowledged write.
    pub(super) fn arrive(&mut self, lossless: bool) {
        self.site = self.site.peer();
        self.lossless = Some(lossless);
        self.way = None;
    }

    /// What its last move owes where that differs from what the trial owes.
    pub(super) fn zero_loss(&self) -> Option<bool> {
        self.lossless.filter(|lossless| *lossless != self.owed)
    }

    /// Whether it was brought to where it is from the other site.
    pub(super) const fn has_moved(&self) -> bool {
        self.lossless.is_some()
    }

    /// The load that was written last.
    pub(super) fn load(&self) -> Option<&Incarnation> {
        self.loads.last()
    }

    /// The cluster where it should be.
    pub(super) fn cluster<'w>(&self, world: &'w World) -> &'w Arc<Cluster> {
        world.sites.of(self.site)
    }

    /// Its VM.
    pub(super) fn vm(&self) -> ObjRef {
        ObjRef::of::<VirtualMachine>(&self.subject.namespace, &self.subject.vm)
    }

    /// Its VMI.
    pub(super) fn vmi(&self) -> ObjRef {
        ObjRef::of::<VirtualMachineInstance>(&self.subject.namespace, &self.subject.vm)
    }

    /// The volumes with a file system, by ordinal.
    pub(super) fn files(&self) -> impl Iterator<Item = u8> {
        let files = self.volumes.iter().filter(|v| v.ledger == LedgerMode::File);
        files.map(|volume| volume.ordinal)
    }

    /// What the replication driver works on.
    pub(super) fn work<'a>(&'a self, world: &'a World) -> Work<'a> {
        Work {
            sites: &world.sites,
            owner: &self.owner,
            set: &self.set,
        }
    }

    /// How to reach its guest where it is; `address` is the VMI's, for routes that need it.
    pub(super) fn reach(&self, world: &World, address: Option<&str>) -> anyhow::Result<Reach> {
        let (namespace, vm) = (&self.subject.namespace, &self.subject.vm);
        let guest = (namespace.as_str(), vm.as_str(), address);
        let who = (&world.key, &world.pins);
        let route = route(&self.workload.ssh, self.cluster(world), guest, who)?;
        Ok(Reach {
            route,
            login: self.login(world),
        })
    }

    /// Who logs in. A changed host key is a finding for G1, not a reason to look away, so it is
    /// observed and recorded.
    fn login(&self, world: &World) -> Login {
        let host_key = match &self.subject.root {
            Root::Persistent { pvc } => HostKeyRule::Observed {
                lineage: format!("{}/{pvc}", self.subject.namespace),
            },
            Root::Ephemeral => HostKeyRule::Fresh,
        };
        Login {
            user: self.subject.ssh_user.clone(),
            key: world.key.clone(),
            pins: Arc::clone(&world.pins),
            host_key,
        }
    }

    /// What a probe of it is told.
    pub(super) fn config(
        &self,
        world: &World,
        incarnation: u64,
        purpose: config::Purpose,
    ) -> config::Config {
        // Regions are fitted once, to the volumes that were filled.
        let cells = |ordinal: usize| Some(self.load()?.layouts.get(ordinal)?.cells);
        let volumes = self
            .subject
            .data_disks
            .iter()
            .zip(&self.vol_ids)
            .enumerate();
        let volumes = volumes.map(|(ordinal, (disk, vol_id))| {
            let on = config::Locator::Serial(disk.serial.clone());
            let target = match disk.ledger {
                LedgerKind::Raw => config::Target::Raw(on),
                LedgerKind::File => config::Target::File(config::FileTarget {
                    on,
                    mount: format!("/run/virtproof/mnt-{}", disk.serial),
                    kind: match disk.filesystem {
                        FileSystem::Ext4 => filesystem::Kind::Ext4,
                        FileSystem::Xfs => filesystem::Kind::Xfs,
                    },
                }),
            };
            config::Volume {
                vol_id: *vol_id,
                target,
                cells: cells(ordinal),
                from: self.extent.from(),
            }
        });
        config::Config {
            run_id: self.run_id,
            seed: self.seed,
            incarnation,
            purpose,
            layout: layout(world.plan.load()),
            volumes: volumes.collect(),
            scratch: config::DEFAULT_SCRATCH,
            expect: Vec::new(),
        }
    }
}

/// The way to a guest, by its namespace, its name and the address of its VMI, for routes that need one.
pub(super) fn route(
    ssh: &model::Ssh,
    cluster: &Arc<Cluster>,
    (namespace, vmi, address): (&str, &str, Option<&str>),
    (key, pins): (&LoginKey, &Arc<Pins>),
) -> anyhow::Result<Route> {
    let port = ssh.port;
    let target = || {
        let host = address.context("the VMI has no address for a direct route yet")?;
        Ok::<_, anyhow::Error>(crate::guest::HostPort::new(host, port))
    };
    Ok(match &ssh.route {
        model::Route::PortForward => Route::PortForward {
            via: Arc::clone(cluster) as Arc<dyn crate::guest::PortForward>,
            namespace: namespace.to_owned(),
            vmi: vmi.to_owned(),
            port,
        },
        model::Route::Direct => Route::Direct { addr: target()? },
        model::Route::Jump(jump) => {
            let login = Login {
                user: jump.user.clone(),
                key: key.clone(),
                pins: Arc::clone(pins),
                host_key: HostKeyRule::Pinned {
                    lineage: format!("jump {}", jump.host),
                },
            };
            let addr = crate::guest::HostPort::new(jump.host.clone(), jump.port);
            let via = crate::guest::JumpHost::new(Route::Direct { addr }, login);
            Route::Jump {
                via,
                target: target()?,
            }
        }
    })
}

/// The place of a VM of a workload in the run.
fn instance(
    world: &World,
    workload: &Workload,
    namespace: &str,
    name: &str,
) -> anyhow::Result<Instance> {
    Ok(Instance {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        run: world.owner.run().to_owned(),
        subject: name.to_owned(),
        workload: workload.name.clone(),
        ssh_public_key: world.key.public_line().context("the run's SSH key")?,
        identity: Identity::derive(world.owner.run(), &format!("{namespace}/{name}")),
        storage_class: None,
    })
}

/// The ledger's volume id: from the run and the logical volume, never from a PVC's UID, which
/// changes on failover.
fn vol_id(run_id: &[u8; 16], lineage: &str, volume: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(run_id);
    hasher.update(lineage.as_bytes());
    hasher.update(b"\0");
    hasher.update(volume.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    id
}

fn layout(load: &model::Load) -> LayoutSpec {
    let cells = |bytes: u64| bytes.div_ceil(CELL as u64);
    LayoutSpec {
        log: cells(load.log),
        hot: cells(load.hot),
        cold_stride: cells(load.cold_stride),
        ..LayoutSpec::default()
    }
}
