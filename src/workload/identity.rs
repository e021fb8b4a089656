//! What makes a VM the same VM on both sites: firmware UUID, serials and MAC addresses derived from
//! the run and the subject; and names that fit.

use uuid::Uuid;

/// Longest object name: claims and VMs end up as label values, which have at most 63 characters.
const NAME: usize = 63;

/// The identity of one VM, equal on both sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Firmware UUID, which is also the cloud-init NoCloud instance id
    /// (`cloud-init` would otherwise take a replicated disk for a new machine).
    pub firmware_uuid: Uuid,
    seed: [u8; 32],
}

impl Identity {
    /// The identity of a subject in a run.
    pub fn derive(run: &str, subject: &str) -> Self {
        let key = format!("virtproof identity\0{run}\0{subject}");
        let seed = *blake3::hash(key.as_bytes()).as_bytes();
        Self {
            firmware_uuid: Uuid::new_v5(&Uuid::NAMESPACE_OID, &seed),
            seed,
        }
    }

    /// The system serial.
    pub fn serial(&self) -> String {
        self.firmware_uuid.simple().to_string()
    }

    /// The MAC address of the `index`-th interface: locally administered, unicast.
    pub fn mac(&self, index: usize) -> String {
        let of = self.part("mac", index);
        let octets: Vec<String> = of[..5].iter().map(|octet| format!("{octet:02x}")).collect();
        format!("02:{}", octets.join(":"))
    }

    /// The serial of the data disk with a ledger ordinal: 18 characters, as virtio truncates after
    /// 20.
    pub fn disk_serial(&self, ordinal: u8) -> String {
        let of = self.part("disk", usize::from(ordinal));
        let hash = blake3::Hash::from_bytes(of).to_hex();
        format!("vp{ordinal:02}{}", &hash[..14])
    }

    fn part(&self, what: &str, index: usize) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(what.as_bytes());
        hasher.update(&u64::try_from(index).unwrap_or(u64::MAX).to_le_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// A name of at most 63 characters made of two parts; a long one keeps its beginning and ends in a
/// hash of the whole, so that different names stay different.
pub fn fit_name(first: &str, second: &str) -> String {
    let whole = format!("{first}-{second}").replace('.', "-");
    if whole.len() <= NAME {
        return whole;
    }
    let hash = blake3::hash(whole.as_bytes()).to_hex();
    let mut end = NAME - 9;
    while !whole.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{}", whole[..end].trim_end_matches('-'), &hash[..8])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::text::is_dns_label;

    #[test]
    fn identities_differ_by_run_and_subject_and_are_stable() {
        let one = Identity::derive("r1", "ledger-0");
        assert_eq!(one, Identity::derive("r1", "ledger-0"));
        assert_ne!(one, Identity::derive("r1", "ledger-1"));
        assert_ne!(one, Identity::derive("r2", "ledger-0"));
        assert_ne!(one.mac(0), one.mac(1));
        assert_ne!(one.disk_serial(0), one.disk_serial(1));
        assert_eq!((one.mac(0).len(), one.disk_serial(15).len()), (17, 18));
    }

    proptest! {
        #[test]
        fn names_fit_and_stay_distinct(a in "[a-z]([a-z0-9-]{0,40}[a-z0-9])?", b in "[a-z]([a-z0-9.-]{0,60}[a-z0-9])?") {
            let name = fit_name(&a, &b);
            prop_assert!(is_dns_label(&name, 63), "{}", name);
            prop_assert_ne!(name, fit_name(&a, &format!("{b}x")));
        }
    }
}
