//! Bonds: which interfaces belong together, and whether the bonding driver runs XDP programs for them.
//! Read from sysfs, where the kernel describes a bond in words.
//!
//! What the driver does is told in `drivers/net/bonding/bond_main.c` (Linux 5.15 and later): a program on
//! the bond is run for each member (`bond_xdp_set`), if the bond's mode and hash policy have a way to
//! choose a member for a frame that has no socket buffer (`bond_xdp_check`).

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the kernel describes the interfaces of our network namespace.
const SYSFS: &str = "/sys/class/net";

/// Modes in which the driver runs programs.
const MODES: [&str; 4] = ["balance-rr", "active-backup", "balance-xor", "802.3ad"];
/// Those of them that choose the member by a hash.
const MODES_WITH_HASH: [&str; 2] = ["balance-xor", "802.3ad"];
/// The hash that a frame without a socket buffer cannot have.
const HASH_WITHOUT_XDP: &str = "vlan+srcmac";

/// A bond.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Bond {
    /// Its mode, such as `802.3ad`.
    pub mode: String,
    /// How it chooses members, such as `layer3+4`.
    pub hash_policy: String,
    /// The interfaces that it consists of.
    pub members: Vec<String>,
}

/// Why the bonding driver runs no program on a bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutXdp {
    /// Its mode is none of those.
    Mode,
    /// Its hash policy is the one.
    HashPolicy,
}

impl Bond {
    /// The bond of this name, if the interface is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::below(Path::new(SYSFS), name)
    }

    fn below(sysfs: &Path, name: &str) -> Option<Self> {
        let folder = sysfs.join(name).join("bonding");
        // `802.3ad 4`: the word, and its number.
        let word = |file: &str| {
            let text = fs::read_to_string(folder.join(file)).ok()?;
            Some(text.split_whitespace().next()?.to_owned())
        };
        let members = fs::read_to_string(folder.join("slaves")).unwrap_or_default();
        Some(Self {
            mode: word("mode")?,
            hash_policy: word("xmit_hash_policy").unwrap_or_default(),
            members: members.split_whitespace().map(str::to_owned).collect(),
        })
    }

    /// Why the driver runs no program on it, if that is so.
    pub fn without_xdp(&self) -> Option<WithoutXdp> {
        let mode = self.mode.as_str();
        if !MODES.contains(&mode) {
            Some(WithoutXdp::Mode)
        } else if MODES_WITH_HASH.contains(&mode) && self.hash_policy == HASH_WITHOUT_XDP {
            Some(WithoutXdp::HashPolicy)
        } else {
            None
        }
    }
}

/// The bond that an interface is a member of, if it is.
pub(crate) fn bond_of(interface: &str) -> Option<String> {
    bond_of_below(Path::new(SYSFS), interface)
}

fn bond_of_below(sysfs: &Path, interface: &str) -> Option<String> {
    let folder = sysfs.join(interface);
    if !folder.join("bonding_slave").is_dir() {
        return None;
    }
    let master: PathBuf = fs::read_link(folder.join("master")).ok()?;
    Some(master.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A host as sysfs tells it: `bond0` of `eth0` and `eth1`, and `eth2` in a bridge.
    fn sysfs(mode: &str, hash_policy: &str) -> tempfile::TempDir {
        let host = tempfile::tempdir().unwrap();
        let net = host.path();
        let bonding = net.join("bond0/bonding");
        fs::create_dir_all(&bonding).unwrap();
        fs::write(bonding.join("mode"), mode).unwrap();
        fs::write(bonding.join("xmit_hash_policy"), hash_policy).unwrap();
        fs::write(bonding.join("slaves"), "eth0 eth1\n").unwrap();
        for (member, kind, master) in [
            ("eth0", "bonding_slave", "bond0"),
            ("eth1", "bonding_slave", "bond0"),
            ("eth2", "brport", "br0"),
        ] {
            fs::create_dir_all(net.join(member).join(kind)).unwrap();
            symlink(format!("../{master}"), net.join(member).join("master")).unwrap();
        }
        fs::create_dir_all(net.join("eth3")).unwrap();
        host
    }

    #[test]
    fn a_bond_and_its_members_are_known_and_no_others() {
        let host = sysfs("802.3ad 4\n", "layer3+4 1\n");
        let bond = Bond::below(host.path(), "bond0").unwrap();
        assert_eq!(bond.mode, "802.3ad");
        assert_eq!(bond.hash_policy, "layer3+4");
        assert_eq!(bond.members, ["eth0", "eth1"]);
        for (interface, expected) in [
            ("eth0", Some("bond0")),
            ("eth1", Some("bond0")),
            ("eth2", None),
            ("eth3", None),
            ("bond0", None),
            ("nothing", None),
        ] {
            let found = bond_of_below(host.path(), interface);
            assert_eq!(found.as_deref(), expected, "{interface}");
            let is_bond = Bond::below(host.path(), interface).is_some();
            assert_eq!(is_bond, interface == "bond0", "{interface}");
        }
    }

    #[test]
    fn the_driver_runs_programs_where_it_can_choose_a_member() {
        for (mode, hash_policy, expected) in [
            ("balance-rr 0", "layer2 0", None),
            ("active-backup 1", "layer2 0", None),
            ("active-backup 1", "vlan+srcmac 5", None),
            ("balance-xor 2", "layer2+3 2", None),
            ("802.3ad 4", "layer3+4 1", None),
            (
                "balance-xor 2",
                "vlan+srcmac 5",
                Some(WithoutXdp::HashPolicy),
            ),
            ("802.3ad 4", "vlan+srcmac 5", Some(WithoutXdp::HashPolicy)),
            ("broadcast 3", "layer2 0", Some(WithoutXdp::Mode)),
            ("balance-tlb 5", "layer2 0", Some(WithoutXdp::Mode)),
            ("balance-alb 6", "layer2 0", Some(WithoutXdp::Mode)),
        ] {
            let host = sysfs(mode, hash_policy);
            let bond = Bond::below(host.path(), "bond0").unwrap();
            assert_eq!(bond.without_xdp(), expected, "{mode} {hash_policy}");
        }
    }
}
