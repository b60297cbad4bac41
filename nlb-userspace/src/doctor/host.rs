//! Facts about the host.

use std::{fs, io::Read as _, path::Path, thread};

use rustix::{
    fs::statfs,
    process::{Resource, getrlimit},
    system::uname,
    thread::{CapabilitySet, capabilities},
};

use super::facts::Host;

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS: i64 = 0xcafe_4a11;
/// What nlb starts with.
const CAPABILITIES: [(CapabilitySet, &str); 4] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
];
/// What the kernel must have been built with.
const OPTIONS: [&str; 4] = [
    "CONFIG_BPF_SYSCALL",
    "CONFIG_BPF_JIT",
    "CONFIG_NET",
    "CONFIG_INET",
];

pub(super) fn look(bpffs: &Path) -> Host {
    let kernel = uname();
    let release = kernel.release().to_string_lossy().into_owned();
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok();
    Host {
        missing_options: options(&release).map_or_else(Vec::new, |text| missing(&text)),
        kernel: release,
        machine: kernel.machine().to_string_lossy().into_owned(),
        processors: thread::available_parallelism().map_or(1, Into::into),
        jit: jit.and_then(|text| text.trim().parse().ok()),
        missing_capabilities: CAPABILITIES
            .iter()
            .filter(|(capability, _)| !effective.contains(*capability))
            .map(|(_, name)| *name)
            .collect(),
        memlock_bytes: getrlimit(Resource::Memlock).current,
        has_bpffs: statfs(bpffs).is_ok_and(|found| found.f_type == BPF_FS),
        bpffs: bpffs.display().to_string(),
    }
}

/// What the kernel was built with, where it says.
fn options(release: &str) -> Option<String> {
    if let Ok(text) = fs::read_to_string(format!("/boot/config-{release}")) {
        return Some(text);
    }
    let packed = fs::File::open("/proc/config.gz").ok()?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

fn missing(text: &str) -> Vec<&'static str> {
    let is_set = |option: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .any(|(name, value)| name == option && matches!(value, "y" | "m"))
    };
    OPTIONS
        .into_iter()
        .filter(|option| !is_set(option))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_off_or_not_named_are_missing() {
        let text = "CONFIG_BPF_SYSCALL=y\n# CONFIG_BPF_JIT is not set\nCONFIG_NETDEVICES=y\n\
                    CONFIG_INET=m\n";
        assert_eq!(missing(text), ["CONFIG_BPF_JIT", "CONFIG_NET"]);
    }

    #[test]
    fn this_host_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let host = look(folder.path());
        assert!(!host.kernel.is_empty() && host.processors > 0);
        assert!(!host.has_bpffs, "a folder is no bpffs");
    }
}
