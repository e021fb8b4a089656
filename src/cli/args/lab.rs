//! What `lab` and everything that runs one is told.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What runs in the VMs of a lab.
#[derive(Debug, Clone, Args)]
pub struct GuestArgs {
    /// `sim`: simulated guests, which need nothing; `qemu`: real kernels, which need QEMU.
    #[arg(long, value_enum, value_name = "KIND", default_value_t = GuestKind::Sim)]
    pub guests: GuestKind,
    /// Boot QEMU guests from this kernel instead of the built image's.
    #[arg(long, value_name = "FILE", requires = "initrd")]
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk that goes with it.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,
    /// How QEMU runs guests; `auto` boots something under KVM first, because a device that opens
    /// proves nothing.
    #[arg(long, value_enum, value_name = "ACCEL", default_value_t = Accel::Auto)]
    pub accel: Accel,
    /// What a QEMU guest on a root volume starts with; systemd takes longer to come up.
    #[arg(long, value_enum, value_name = "INIT", default_value_t = GuestInit::Busybox,
        conflicts_with = "kernel")]
    pub guest_init: GuestInit,
    /// Let SSH sessions survive a live migration, as a bridge binding does; by default they break, as
    /// with masquerade.
    #[arg(long)]
    pub sessions_survive: bool,
}

/// Kinds of guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GuestKind {
    /// An SSH server in this process.
    Sim,
    /// A real kernel under QEMU.
    Qemu,
}

/// What a guest starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GuestInit {
    /// BusyBox init.
    Busybox,
    /// systemd, with sshd and the guest agent as units.
    Systemd,
}

/// What a guest image has beyond a plain system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layer {
    /// SQLite's command line.
    Sqlite,
    /// The PostgreSQL server.
    Postgres,
    /// The MariaDB server.
    Mariadb,
    /// fio.
    Bench,
    /// systemd.
    Systemd,
}

/// How QEMU runs guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// KVM where it really runs a guest, else emulation.
    Auto,
    /// KVM.
    Kvm,
    /// Emulation.
    Tcg,
}

/// `lab`.
#[derive(Debug, Args)]
pub struct Lab {
    /// What to do with the lab.
    #[command(subcommand)]
    pub verb: LabVerb,
}

/// The lab's verbs.
#[derive(Debug, Subcommand)]
pub enum LabVerb {
    /// Start two simulated sites and keep them running.
    Up(LabUp),
    /// Stop a detached lab.
    Down(LabDir),
    /// Say whether a lab runs, where its kubeconfigs are and which faults are planted.
    Status(LabDir),
    /// Plant, heal or list faults.
    Fault(LabFault),
    /// Cut or restore the power of a whole site.
    Power(LabPower),
    /// Build, list or remove the images that QEMU guests boot from.
    Image(LabImage),
}

/// `lab image`.
#[derive(Debug, Args)]
pub struct LabImage {
    /// What to do with images.
    #[command(subcommand)]
    pub verb: ImageVerb,
}

/// The verbs of `lab image`.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Build the image from the packages of this machine's Debian release.
    Build(ImageBuild),
    /// List the images in the cache.
    List,
    /// Remove images and downloaded packages from the cache.
    Clean,
}

/// `lab image build`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  virtproof lab image build\n  virtproof lab image build --layer bench"
)]
pub struct ImageBuild {
    /// Add what this layer needs; may be repeated.
    #[arg(long, value_enum, value_name = "LAYER")]
    pub layer: Vec<Layer>,
    /// Look for newer packages even if there is an image.
    #[arg(long)]
    pub refresh: bool,
}

/// `lab power`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  virtproof lab power primary off")]
pub struct LabPower {
    /// The site.
    #[arg(value_enum)]
    pub site: SiteName,
    /// Off or on.
    #[arg(value_enum)]
    pub state: PowerState,
    /// The folder given to `lab up`.
    #[arg(long, value_name = "DIR", default_value = "virtproof-lab")]
    pub dir: PathBuf,
}

/// A site by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SiteName {
    /// Where workloads start.
    Primary,
    /// Where they go.
    Secondary,
}

/// Power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PowerState {
    /// Nothing runs.
    Off,
    /// Everything runs that its objects say should.
    On,
}

/// `lab up`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  virtproof lab up\n  virtproof lab up --detach --dir lab/\n  \
    kubectl --kubeconfig lab/east.kubeconfig get vm,vmi,pvc -A"
)]
pub struct LabUp {
    /// Where kubeconfigs and the control socket go.
    #[arg(long, value_name = "DIR", default_value = "virtproof-lab")]
    pub dir: PathBuf,
    /// Return once the lab is up; `lab down` stops it.
    #[arg(long)]
    pub detach: bool,
    /// How many times faster than real schedules run.
    #[arg(long, value_name = "N", default_value_t = 60.0)]
    pub time_scale: f64,
    /// The seed behind every random choice.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// What runs in its VMs.
    #[command(flatten)]
    pub guests: GuestArgs,
}

/// A lab's folder.
#[derive(Debug, Args)]
pub struct LabDir {
    /// The folder given to `lab up`.
    #[arg(long, value_name = "DIR", default_value = "virtproof-lab")]
    pub dir: PathBuf,
}

/// `lab fault`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  virtproof lab fault --list\n  \
    virtproof lab fault bit-flip-cold\n  virtproof lab fault bit-flip-cold --heal")]
pub struct LabFault {
    /// The fault.
    #[arg(value_name = "NAME", required_unless_present = "list")]
    pub name: Option<String>,
    /// List the faults: name, phase, the check that must fire.
    #[arg(long)]
    pub list: bool,
    /// Heal it instead.
    #[arg(long)]
    pub heal: bool,
    /// The folder given to `lab up`.
    #[arg(long, value_name = "DIR", default_value = "virtproof-lab")]
    pub dir: PathBuf,
}
