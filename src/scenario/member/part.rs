//! Parts of a VM that are subjects of their own: each has a ledger over one stretch of one disk, which a
//! probe of its own writes beside the member's.

use anyhow::Context as _;

use super::{Member, vol_id};
use crate::history::event::{LedgerMode, VolumeFact};
use crate::history::recorder::Scope;
use crate::plan::model::{FileSystem, LedgerKind, VolumeMode};
use crate::probe::layout::mix;
use crate::replicate::Set;
use crate::scenario::world::World;
use crate::workload::{DataDisk, Subject, fit_name};

/// Volume and disk name in the VM of a disk that is plugged into it.
const PLUGGED: &str = "plugged";
/// What the name of the part adds to a VM's.
const GROWN: &str = "grown";

/// What of a VM a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scenario) enum Extent {
    /// All of it.
    Whole,
    /// A disk that was plugged into its guest.
    Plugged,
    /// What one of its volumes has behind its first so many cells, since it grew.
    Grown(u64),
}

impl Extent {
    /// The cells of its device that are not its own.
    pub(super) const fn from(self) -> u64 {
        match self {
            Self::Whole | Self::Plugged => 0,
            Self::Grown(from) => from,
        }
    }
}

impl Member {
    /// The name in the history of a disk that is plugged into it.
    pub(in crate::scenario) fn plugged_name(&self) -> String {
        fit_name(self.name(), PLUGGED)
    }

    /// The name in the history of what a volume of it grew by.
    pub(in crate::scenario) fn grown_name(&self) -> String {
        fit_name(self.name(), GROWN)
    }

    /// A disk that is to be plugged into its guest.
    pub(in crate::scenario) fn disk(&self, world: &World, claim: &str) -> Self {
        let name = self.plugged_name();
        let lineage = format!("{}/{name}", self.subject.namespace);
        let drawn = blake3::hash(lineage.as_bytes());
        let disk = DataDisk {
            ordinal: 0,
            name: PLUGGED.to_owned(),
            pvc: claim.to_owned(),
            serial: format!("vp{}", &drawn.to_hex()[..16]),
            volume_mode: Some(VolumeMode::Block),
            ledger: LedgerKind::Raw,
            filesystem: FileSystem::Ext4,
        };
        self.part_on(world, name, Extent::Plugged, disk)
    }

    /// What its raw data volume of this ordinal has behind its first so many cells.
    pub(in crate::scenario) fn grown(
        &self,
        world: &World,
        ordinal: u8,
        cells: u64,
    ) -> anyhow::Result<Self> {
        let mut disks = self.subject.data_disks.iter();
        let disk = disks.find(|disk| disk.ordinal == ordinal);
        let disk = DataDisk {
            ordinal: 0,
            ..disk.context("the volume that grew")?.clone()
        };
        Ok(self.part_on(world, self.grown_name(), Extent::Grown(cells), disk))
    }

    fn part_on(&self, world: &World, name: String, extent: Extent, disk: DataDisk) -> Self {
        let lineage = format!("{}/{name}", self.subject.namespace);
        let mut run = blake3::Hasher::new();
        run.update(&world.run_id).update(lineage.as_bytes());
        let mut run_id = [0; 16];
        run_id.copy_from_slice(&run.finalize().as_bytes()[..16]);
        let id = vol_id(&run_id, &lineage, &disk.name);
        let volume = VolumeFact {
            ordinal: 0,
            name: disk.name.clone(),
            pvc: disk.pvc.clone(),
            vol_id: super::hex(&id),
            volume_mode: VolumeMode::Block.name().to_owned(),
            ledger: LedgerMode::Raw,
        };
        let subject = Subject {
            claims: vec![disk.pvc.clone()],
            data_disks: vec![disk],
            ..self.subject.clone()
        };
        Self {
            scope: Scope {
                subject: Some(name),
                ..self.scope.clone()
            },
            owner: self.owner.clone(),
            workload: self.workload.clone(),
            set: Set {
                pvcs: subject.claims.clone(),
                ..self.set.clone()
            },
            subject,
            volumes: vec![volume],
            vol_ids: vec![id],
            seed: mix(self.seed ^ 1),
            way: None,
            captured: Vec::new(),
            loads: Vec::new(),
            loader: None,
            failed: None,
            run_id,
            extent,
            part: None,
            cuts: Vec::new(),
            restored: None,
            twin: None,
            left: None,
            commits: None,
            inside: None,
            ..*self
        }
    }
}
