//! What is typed behind `nlb decap`, and what is wrong about it.

use std::{collections::BTreeSet, net::IpAddr};

use clap::{Args, ValueEnum};

use super::{DecapError, prefix::Prefix};
use crate::config;

/// What is typed.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("encapsulation").required(true).multiple(true))]
pub struct Options {
    /// An interface that packets from the load balancers come in through; may be repeated
    #[arg(long, short, value_name = "NAME", required = true)]
    pub interface: Vec<String>,
    /// A VIP, which this host must have on its loopback interface; may be repeated
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub vip: Vec<IpAddr>,
    /// An address of this host that tunnels end at: what the load balancers have as this target's
    /// address; may be repeated
    ///
    /// Without it, all addresses that the interfaces have at each time.
    #[arg(long, value_name = "ADDRESS")]
    pub address: Vec<IpAddr>,
    /// Where the load balancers send from, as an address or a prefix; may be repeated
    ///
    /// A packet for a VIP out of a tunnel from elsewhere is dropped and counted. Without it, whoever
    /// reaches this host can send packets in any client's name, past your firewall: give it unless
    /// the network itself keeps strangers away from the tunnels.
    #[arg(long, value_name = "PREFIX")]
    pub from: Vec<Prefix>,
    /// Take off IP in IP: the mode dsr-ipip
    #[arg(long, group = "encapsulation")]
    pub ipip: bool,
    /// Take off GUE, at this UDP port or at 6080: the mode dsr-gue
    #[arg(
        long,
        value_name = "PORT",
        group = "encapsulation",
        num_args = 0..=1,
        default_missing_value = "6080",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub gue_port: Option<u16>,
    /// Take off Geneve, at this UDP port or at 6081: the mode dsr-geneve
    #[arg(
        long,
        value_name = "PORT",
        group = "encapsulation",
        num_args = 0..=1,
        default_missing_value = "6081",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub geneve_port: Option<u16>,
    /// Where the program runs
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub xdp_mode: Mode,
    /// Print the counters every so many seconds, not only on SIGUSR1 and at the end
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub stats_interval: Option<u32>,
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// In the driver if it can, else generic
    Auto,
    /// In the driver
    Driver,
    /// In the stack, which is slower
    Generic,
}

impl From<Mode> for config::XdpMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::Driver => Self::Driver,
            Mode::Generic => Self::Generic,
        }
    }
}

/// Whether packets of other hosts can be addressed to it.
fn is_reachable(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_broadcast)
}

impl Options {
    /// The VIPs; IPv4 that was typed as mapped into IPv6 is IPv4.
    pub fn vips(&self) -> BTreeSet<IpAddr> {
        self.vip.iter().map(IpAddr::to_canonical).collect()
    }

    /// The addresses that were typed.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.address.iter().map(IpAddr::to_canonical).collect()
    }

    /// Where the load balancers send from.
    pub fn sources(&self) -> BTreeSet<Prefix> {
        self.from.iter().copied().collect()
    }

    /// The first thing that is wrong about the whole.
    pub fn check(&self) -> Result<(), DecapError> {
        let mut interfaces = BTreeSet::new();
        for name in &self.interface {
            if !interfaces.insert(name) {
                return Err(DecapError::InterfaceTwice(name.clone()));
            }
        }
        if let (Some(gue), Some(geneve)) = (self.gue_port, self.geneve_port)
            && gue == geneve
        {
            return Err(DecapError::OnePort(gue));
        }
        let (vips, addresses) = (self.vips(), self.addresses());
        for (option, typed) in [("--vip", &vips), ("--address", &addresses)] {
            if let Some(address) = typed.iter().copied().find(|a| !is_reachable(*a)) {
                return Err(DecapError::Unreachable { option, address });
            }
        }
        match vips.intersection(&addresses).next() {
            Some(address) => Err(DecapError::VipIsOwn(*address)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn typed(line: &str) -> Result<Options, String> {
        let words = ["nlb", "decap"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words) {
            Ok(Cli {
                command: Command::Decap(options),
            }) => Ok(options),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn ports_may_be_left_to_the_standard() {
        let options = typed("-i eth0 --vip 192.0.2.20 --gue-port --geneve-port 7000").unwrap();
        assert_eq!(options.gue_port, Some(6080));
        assert_eq!(options.geneve_port, Some(7000));
        assert!(!options.ipip);
        options.check().unwrap();
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let base = "-i eth0 --vip 192.0.2.20";
        for (rest, part) in [
            ("", "--ipip"),
            ("--gue-port 0", "0 is not in 1..=65535"),
            ("--ipip --from 10.0.0.1/24", "bits behind its prefix"),
            ("--ipip --stats-interval 0", "0 is not in 1.."),
        ] {
            let error = typed(&format!("{base} {rest}")).unwrap_err();
            assert!(error.contains(part), "{rest}: {error}");
        }
        for (rest, part) in [
            ("--ipip -i eth0", "--interface eth0 is there twice"),
            ("--gue-port 7 --geneve-port 7", "both 7"),
            ("--ipip --vip 127.0.0.1", "--vip 127.0.0.1"),
            ("--ipip --address ff02::1", "--address ff02::1"),
            (
                "--ipip --address ::ffff:192.0.2.20",
                "both a --vip and an --address",
            ),
        ] {
            let error = typed(&format!("{base} {rest}")).unwrap().check();
            let error = error.unwrap_err().to_string();
            assert!(error.contains(part), "{rest}: {error}");
        }
    }
}
