//! From facts to findings. Pure: what is wrong follows from what was looked at, and nothing else.

use super::{
    facts::{Facts, Host, Interface, Link, Target, Way, Xdp},
    finding::{Finding, Severity},
};
use crate::bond::WithoutXdp;

/// What we aim at (docs/operations.md).
const OLDEST_KERNEL: (u32, u32) = (6, 1);
/// From here on maps are not counted as locked memory.
const KERNEL_WITHOUT_MEMLOCK: (u32, u32) = (5, 11);
/// What drivers take with XDP in one buffer, in bytes.
const USUAL_XDP_MTU: u32 = 3498;
/// Our program's name.
const OURS: &str = "nlb";
/// `rp_filter` in strict mode (RFC 3704).
const STRICT: u32 = 1;

/// Everything that is wrong, the worst first.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::default();
    findings.host(&facts.host);
    if !facts.daemon_answers {
        findings.add(
            Severity::Advice,
            ("daemon", ""),
            "no daemon answers on the control socket",
            "health checks and changes; traffic goes on as long as a data plane is left",
            Some("systemctl start nlb".to_owned()),
        );
    }
    for Interface { name, link } in &facts.interfaces {
        match link {
            None => findings.add(
                Severity::Problem,
                ("interface", name),
                "there is no such interface",
                "all traffic that comes in by it",
                Some("ip -brief link show".to_owned()),
            ),
            Some(link) => findings.interface(name, link, facts),
        }
    }
    for target in &facts.targets {
        findings.target(target);
    }
    findings.narrow_ways(facts);
    findings.0.sort_by_key(|finding| finding.severity);
    findings.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        (check, subject): (&'static str, &str),
        found: impl Into<String>,
        breaks: &'static str,
        mend: Option<String>,
    ) {
        self.0.push(Finding {
            severity,
            check,
            subject: subject.to_owned(),
            found: found.into(),
            breaks,
            mend,
        });
    }

    fn host(&mut self, host: &Host) {
        let version = version(&host.kernel);
        if version.is_some_and(|version| version < OLDEST_KERNEL) {
            self.add(
                Severity::Problem,
                ("kernel", ""),
                format!("Linux {}, and nlb aims at 6.1 or newer", host.kernel),
                "loading the program, or what newer kernels do for it",
                Some("apt-get install linux-image-amd64".to_owned()),
            );
        }
        if host.machine != "x86_64" {
            self.add(
                Severity::Problem,
                ("processor", ""),
                format!("{}, and nlb is for x86_64", host.machine),
                "everything: the tables count on x86_64's order of loads and stores",
                None,
            );
        }
        if !host.missing_options.is_empty() {
            self.add(
                Severity::Problem,
                ("kernel_options", ""),
                format!("built without {}", host.missing_options.join(", ")),
                "loading the program, or its speed",
                Some("apt-get install linux-image-amd64".to_owned()),
            );
        }
        if host.jit == Some(0) {
            self.add(
                Severity::Problem,
                ("jit", ""),
                "BPF programs are interpreted",
                "speed: a packet costs several times as much",
                Some("sysctl -w net.core.bpf_jit_enable=1".to_owned()),
            );
        }
        if !host.missing_capabilities.is_empty() {
            self.add(
                Severity::Problem,
                ("capabilities", ""),
                format!("this user lacks {}", host.missing_capabilities.join(", ")),
                "`nlb run` as this user; and some of what is looked at here",
                Some("sudo nlb doctor".to_owned()),
            );
        }
        if host.memlock_bytes.is_some() && version.is_some_and(|it| it < KERNEL_WITHOUT_MEMLOCK) {
            self.add(
                Severity::Problem,
                ("memlock", ""),
                "locked memory is limited, and this kernel counts maps as such",
                "making the maps",
                Some("ulimit -l unlimited".to_owned()),
            );
        }
        if !host.has_bpffs {
            let bpffs = &host.bpffs;
            self.add(
                Severity::Problem,
                ("bpffs", bpffs),
                "no bpffs is mounted here",
                "starting: what outlives the daemon is pinned there",
                Some(format!("mkdir -p {bpffs} && mount -t bpf bpf {bpffs}")),
            );
        }
    }

    fn interface(&mut self, name: &str, link: &Link, facts: &Facts) {
        if !link.is_up {
            self.add(
                Severity::Problem,
                ("interface", name),
                "it is down, or has no carrier",
                "all traffic by it",
                Some(format!("ip link set dev {name} up")),
            );
        }
        for (forwards, version, mend) in [
            (link.forwards_v4, "IPv4", "net.ipv4.ip_forward=1"),
            (link.forwards_v6, "IPv6", "net.ipv6.conf.all.forwarding=1"),
        ] {
            if forwards == Some(false) {
                self.add(
                    Severity::Problem,
                    ("forwarding", name),
                    format!("{version} forwarding is off"),
                    "answers of targets on their way to clients (stop `forwarding_off`)",
                    Some(format!("sysctl -w {mend}")),
                );
            }
        }
        if link.rp_filter == Some(STRICT) {
            self.add(
                Severity::Advice,
                ("rp_filter", name),
                "the reverse path filter is strict",
                "what nlb leaves to the host and what comes by another way than the way back: \
                 answers to health checks, ICMP errors, pings",
                // The kernel takes the larger of all's and the interface's.
                Some("sysctl -w net.ipv4.conf.all.rp_filter=2".to_owned()),
            );
        }
        self.bond(name, link);
        let is_generic = (link.xdp.as_ref()).is_some_and(|xdp| xdp.mode == "generic");
        if let Some(xdp) = &link.xdp {
            self.xdp(name, link, xdp);
        }
        self.offloads(name, link, is_generic, facts.host.processors);
    }

    fn bond(&mut self, name: &str, link: &Link) {
        if let Some(bond) = &link.member_of {
            self.add(
                Severity::Problem,
                ("bond", name),
                format!("it is a member of {bond}: name {bond} in node.interfaces instead"),
                "packets that come in by other members, and attaching to the bond",
                None,
            );
        }
        let without = link
            .bond
            .as_ref()
            .and_then(|bond| Some((bond, bond.without_xdp()?)));
        let Some((bond, why)) = without else { return };
        let (found, mend) = match why {
            WithoutXdp::Mode => (format!("mode {}", bond.mode), None),
            WithoutXdp::HashPolicy => (
                format!("hash policy {}", bond.hash_policy),
                Some(format!(
                    "ip link set dev {name} type bond xmit_hash_policy layer3+4"
                )),
            ),
        };
        self.add(
            Severity::Advice,
            ("bond", name),
            format!("{found}: the bonding driver runs no XDP program there"),
            "speed: XDP is generic; with node.xdp_mode = \"driver\", attaching",
            mend,
        );
    }

    fn xdp(&mut self, name: &str, link: &Link, xdp: &Xdp) {
        // Whoever may not ask for names is told so under `capabilities`.
        if let Some(other) = xdp.name.as_deref().filter(|other| *other != OURS) {
            let flavour = if xdp.mode == "generic" {
                "xdpgeneric"
            } else {
                "xdp"
            };
            self.add(
                Severity::Problem,
                ("other_xdp", name),
                format!("another XDP program is attached: {other}"),
                "attaching nlb to it: nlb does not chain programs",
                Some(match xdp.link_id {
                    Some(id) => format!("bpftool link detach id {id}"),
                    None => format!("ip link set dev {name} {flavour} off"),
                }),
            );
        } else if xdp.mode == "generic" {
            let is_large = link.mtu_bytes > USUAL_XDP_MTU;
            let found = if is_large {
                format!("XDP is generic, perhaps for the MTU of {}", link.mtu_bytes)
            } else {
                "XDP is generic, not the driver's".to_owned()
            };
            self.add(
                Severity::Advice,
                ("xdp_mode", name),
                found,
                "speed: packets have been through half of the kernel before nlb sees them",
                is_large.then(|| format!("ip link set dev {name} mtu {USUAL_XDP_MTU}")),
            );
        }
    }

    fn offloads(&mut self, name: &str, link: &Link, is_generic: bool, processors: usize) {
        let offloads = &link.offloads;
        if offloads.lro == Some(true) {
            self.add(
                Severity::Problem,
                ("lro", name),
                "large receive offload is on",
                "packets that the card has merged: they fit nowhere (stop `too_big`), and some \
                 drivers refuse XDP",
                Some(format!("ethtool -K {name} lro off")),
            );
        }
        if is_generic && offloads.gro == Some(true) {
            self.add(
                Severity::Problem,
                ("gro", name),
                "generic receive offload is on where XDP is generic",
                "large transfers: nlb sees packets that were merged, which fit nowhere (stop \
                 `too_big`)",
                Some(format!("ethtool -K {name} gro off")),
            );
        }
        if link.has_vlans && offloads.rx_vlan == Some(true) {
            self.add(
                Severity::Problem,
                ("vlan_offload", name),
                "the card takes VLAN tags off",
                "VLANs: XDP does not see a tag that the card took off",
                Some(format!("ethtool -K {name} rxvlan off txvlan off")),
            );
        }
        if offloads.rx_checksum == Some(false) {
            self.add(
                Severity::Advice,
                ("rx_checksum", name),
                "the card does not check sums of packets that come in",
                "speed of what nlb leaves to the host",
                Some(format!("ethtool -K {name} rx on")),
            );
        }
        let wanted = offloads.most_queues.map(|most| {
            let processors = u32::try_from(processors).unwrap_or(u32::MAX);
            most.min(processors)
        });
        if let (Some(queues), Some(wanted)) = (offloads.queues, wanted)
            && queues < wanted
        {
            let kind = if offloads.queues_are_combined {
                "combined"
            } else {
                "rx"
            };
            self.add(
                Severity::Advice,
                ("queues", name),
                format!("{queues} of {wanted} receive queues that processors could serve"),
                "speed: packets of one queue are one processor's",
                Some(format!("ethtool -L {name} {kind} {wanted}")),
            );
        }
    }

    fn target(&mut self, target: &Target) {
        let subject = format!("{} {}", target.group, target.address);
        match &target.way {
            Way::Known { .. } => {}
            Way::NoNeighbour {
                interface,
                neighbour,
            } => self.add(
                Severity::Problem,
                ("neighbour", &subject),
                format!("{neighbour} does not answer on {interface}: its MAC address is not known"),
                "packets to the target (stop `neighbour_unknown`)",
                Some(format!(
                    "ip neigh replace {neighbour} lladdr MAC dev {interface}"
                )),
            ),
            Way::Down { interface } => self.add(
                Severity::Problem,
                ("route", &subject),
                format!("the way leads by {interface}, which is down"),
                "packets to the target (stop `no_route`)",
                Some(format!("ip link set dev {interface} up")),
            ),
            Way::Routed { gateway } => self.add(
                Severity::Problem,
                ("route", &subject),
                format!(
                    "behind the router {gateway}, where {} cannot reach it",
                    target.mode
                ),
                "packets to the target (stop `not_on_link`)",
                // It has to move, or its group needs another mode.
                None,
            ),
            Way::None { reason } => {
                let address = target.address.ip();
                let family = if address.is_ipv4() { "-4" } else { "-6" };
                self.add(
                    Severity::Problem,
                    ("route", &subject),
                    reason.clone(),
                    "packets to the target (stop `no_route`)",
                    Some(format!("ip {family} route add {address} via GATEWAY")),
                );
            }
        }
    }

    /// Ways that take less than what comes in by the widest interface.
    fn narrow_ways(&mut self, facts: &Facts) {
        let links = facts.interfaces.iter().filter_map(|it| it.link.as_ref());
        let widest = links.map(|link| link.mtu_bytes).max().unwrap_or(0);
        for target in &facts.targets {
            let Way::Known {
                interface,
                mtu_bytes,
            } = &target.way
            else {
                continue;
            };
            let needed = widest + target.overhead_bytes;
            if *mtu_bytes >= needed {
                continue;
            }
            let taken = mtu_bytes.saturating_sub(target.overhead_bytes);
            // One mends the ways of all targets behind it.
            let mend = format!("ip link set dev {interface} mtu {needed}");
            if self
                .0
                .iter()
                .any(|finding| finding.mend.as_deref() == Some(&mend))
            {
                continue;
            }
            self.add(
                Severity::Advice,
                ("mtu", interface),
                format!(
                    "takes packets of {taken} bytes to {} {}, and clients may send {widest}",
                    target.group, target.address
                ),
                "larger packets: their senders are told (stop `too_big`), and those that do not \
                 hear it hang",
                Some(mend),
            );
        }
    }
}

/// `6.1` of `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
