//! Whether the kernel forwards packets that arrive on an interface.
//!
//! `bpf_fib_lookup` answers `BPF_FIB_LKUP_RET_FWD_DISABLED` on an interface where it does not, so
//! the daemon has to see this before it relies on the helper.

use std::path::Path;

/// Whether forwarding is on for `interface`, for IPv6 if `v6` and for IPv4 otherwise.
///
/// `None` if there is no such interface in the calling thread's network namespace, if it has no
/// IPv6, or if `/proc` cannot be read. Names with dots (`eth0.100`) are paths here, not sysctl
/// names, and need no translation.
pub fn forwarding(interface: &str, v6: bool) -> Option<bool> {
    read(Path::new("/proc/sys/net"), interface, v6)
}

fn read(root: &Path, interface: &str, v6: bool) -> Option<bool> {
    // The kernel refuses such names (dev_valid_name); refusing them too keeps the path inside `conf`.
    if interface.is_empty() || interface == "." || interface == ".." || interface.contains('/') {
        return None;
    }
    let family = if v6 { "ipv6" } else { "ipv4" };
    let file = root
        .join(family)
        .join("conf")
        .join(interface)
        .join("forwarding");
    let value = std::fs::read_to_string(file).ok()?;
    value.trim().parse::<u32>().ok().map(|value| value != 0)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn dots_in_a_name_are_part_of_the_name() {
        let root = tempfile::tempdir().unwrap();
        for (name, value) in [("eth0", "0\n"), ("eth0.100", "1\n")] {
            let conf = root.path().join("ipv4/conf").join(name);
            std::fs::create_dir_all(&conf).unwrap();
            std::fs::write(conf.join("forwarding"), value).unwrap();
        }
        assert_eq!(read(root.path(), "eth0", false), Some(false));
        assert_eq!(read(root.path(), "eth0.100", false), Some(true));
        assert_eq!(read(root.path(), "eth0.100", true), None);
    }

    #[test]
    fn a_name_cannot_leave_the_directory() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("ipv4/conf/eth0")).unwrap();
        std::fs::write(root.path().join("ipv4/forwarding"), "1\n").unwrap();
        for name in ["", ".", "..", "eth0/../.."] {
            assert_eq!(read(root.path(), name, false), None, "{name:?}");
        }
    }
}
