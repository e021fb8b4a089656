//! Whether KVM serves, found out by running a machine.
//!
//! A `/dev/kvm` that opens proves nothing: nested or paravirtual hosts (such as kvm_pvm) offer it, and
//! then refuse QEMU's processor models, or run guest kernels one emulated instruction at a time. So a
//! tiny kernel must count to two hundred million and end the machine: a tenth of a second on a
//! processor, a second under TCG, hours under such an emulation.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::{Accel, Host};
use crate::lab::qemu::process::{spawn, tail};

/// Ample for a real KVM, even on an overloaded host.
pub const KVM_DEADLINE: Duration = Duration::from_secs(20);

/// What the probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kvm {
    /// A guest ran at speed.
    Usable,
    /// It did not; why.
    Unusable(String),
}

/// Where the kernel below is loaded.
const BASE: u32 = 0x0010_0000;
const MAGIC: u32 = 0x1bad_b002;
/// The header tells addresses, so that no ELF file is needed.
const FLAGS: u32 = 0x0001_0000;
const HEADER: u32 = 32;

/// What the kernel writes to the device `isa-debug-exit`, which turns `v` into exit code `2v + 1`.
const DONE: u8 = 0x10;
const EXIT_CODE: i32 = (DONE as i32) * 2 + 1;

const COUNT: u32 = 200_000_000;

/// A kernel after the Multiboot specification, version 0.6.96: header, then code that begins in
/// 32-bit protected mode.
fn kernel() -> Vec<u8> {
    let sum = 0u32.wrapping_sub(MAGIC.wrapping_add(FLAGS));
    // magic, flags, checksum, header_addr, load_addr, load_end_addr (0: the whole file),
    // bss_end_addr (0: none), entry_addr.
    let header = [MAGIC, FLAGS, sum, BASE, BASE, 0, 0, BASE + HEADER];
    let mut image: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    image.push(0xb9); // mov ecx, COUNT
    image.extend(COUNT.to_le_bytes());
    image.extend([
        0x49, // count: dec ecx
        0x75, 0xfd, // jnz count
        0xb0, DONE, // mov al, DONE
        0xe6, 0xf4, // out 0xf4, al
        0xf4, // idle: hlt
        0xeb, 0xfd, // jmp idle
    ]);
    image
}

/// Boots the tiny kernel under KVM.
pub async fn probe_kvm(host: &Host, deadline: Duration) -> Kvm {
    probe(host, Accel::Kvm, deadline).await
}

pub(super) async fn probe(host: &Host, accel: Accel, deadline: Duration) -> Kvm {
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => return Kvm::Unusable(format!("no temporary folder for the probe: {error}")),
    };
    match boot(host, accel, deadline, folder.path()).await {
        Ok(()) => Kvm::Usable,
        Err(why) => Kvm::Unusable(why),
    }
}

async fn boot(host: &Host, accel: Accel, deadline: Duration, folder: &Path) -> Result<(), String> {
    let image = folder.join("probe.bin");
    let log = folder.join("probe.log");
    let prepare = |error: std::io::Error| format!("the probe could not be prepared: {error}");
    std::fs::write(&image, kernel()).map_err(prepare)?;
    let stderr = std::fs::File::create(&log).map_err(prepare)?;
    let mut command = Command::from(spawn::tied(host));
    command
        .args(["-M", "q35", "-m", "64", "-cpu", "max", "-accel"])
        .arg(match accel {
            Accel::Tcg => "tcg",
            Accel::Kvm => "kvm",
        })
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"])
        .arg(&image)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .kill_on_drop(true);
    let mut child = spawn::spawn(command)
        .await
        .map_err(|error| error.to_string())?;
    let Ok(ended) = timeout(deadline, child.wait()).await else {
        // Whether it could be killed changes nothing in what was found.
        child.kill().await.ok();
        return Err(format!(
            "a guest that counts to {COUNT} was not done after {} s",
            deadline.as_secs_f32()
        ));
    };
    let status = ended.map_err(|error| format!("waiting for the probe failed: {error}"))?;
    if status.code() == Some(EXIT_CODE) {
        return Ok(());
    }
    let said = tail(&log, 2);
    Err(format!("QEMU ended with {status}; its last words: {said}"))
}
