//! Which packets are captured: as it is typed, and as the kernel is asked for it.

use std::net::SocketAddr;

use nlb_common::{
    capture::{ENDS, End, Ends, Wish},
    stop::Stop,
    target::Mode,
    tick::Clock,
};

use crate::{
    flows::{
        Table,
        filter::{self, FilterError},
    },
    names::Names,
};

/// What packets must have in common to be captured; what is left out is not asked. The names are those of
/// `nlb flows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Filter {
    /// Packets of this listener, such as `web/TCP/80`, as `nlb status` has it; a load balancer's name alone
    /// means all of its listeners
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// Packets to or from this VIP
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub vip: Option<String>,
    /// Packets to or from this target
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub target: Option<String>,
    /// Packets to or from the targets of this target group
    #[arg(long, value_name = "NAME")]
    pub target_group: Option<String>,
    /// Packets to or from these clients
    #[arg(long, value_name = "PREFIX")]
    pub client: Option<String>,
    /// `tcp` or `udp`
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<String>,
    /// Packets that were stopped for this reason, such as `no_target`, as `nlb stops` has it; may be given
    /// several times
    #[arg(long, value_name = "REASON", conflicts_with = "stopped")]
    pub stop: Vec<String>,
    /// Packets that were stopped, for any reason
    #[arg(long)]
    pub stopped: bool,
}

/// Why a filter means nothing, or nothing that the kernel can be asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// As for flows.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// There is no such reason.
    #[error("stop: `{0}` is no reason for which packets are stopped; `nlb stops --all` lists them")]
    Stop(String),
    /// More ends than the kernel is asked for.
    #[error(
        "{field}: that means {count} of them, and {ENDS} are told apart in one capture; name fewer"
    )]
    TooMany {
        /// Listeners or targets.
        field: &'static str,
        /// How many are meant.
        count: usize,
    },
    /// Nothing is there that it could mean.
    #[error("{0}: nothing that is in use has this address; `nlb status` shows what there is")]
    Nothing(&'static str),
    /// Packets to such targets do not carry their address.
    #[error(
        "target: packets to {0}, a target of mode dsr-l2, do not carry its address; capture by \
         listener, VIP or client, and look at the comments"
    )]
    Dsr(SocketAddr),
}

impl Filter {
    /// What it comes to, as listeners and targets are now.
    pub fn resolve(
        &self,
        table: &Table<'_>,
        names: &Names,
        clock: Clock,
    ) -> Result<Wish, WishError> {
        let flows = filter::Filter {
            listener: self.listener.clone(),
            vip: self.vip.clone(),
            target: self.target.clone(),
            target_group: self.target_group.clone(),
            client: self.client.clone(),
            protocol: self.protocol.clone(),
            ..filter::Filter::default()
        };
        let meant = flows.resolve(table, names, clock)?;
        let listeners = match meant.listeners() {
            None => Ends::ANY,
            Some(ids) => ends("vip", ids.filter_map(|id| table.vip(id)).map(|(at, _)| at))?,
        };
        let targets = match meant.targets() {
            None => Ends::ANY,
            Some(ids) => {
                let ids = ids.filter_map(|id| target(table, id));
                ends("target", ids.collect::<Result<Vec<_>, _>>()?.into_iter())?
            }
        };
        let (client, client_bits) = meant.client().unwrap_or((Wish::EVERYTHING.client, 0));
        Ok(Wish {
            listeners,
            targets,
            client,
            client_bits: client_bits.into(),
            protocol: meant.protocol().unwrap_or(0).into(),
            stops: self.stops()?,
            ..Wish::EVERYTHING
        })
    }

    /// A bit for each reason that is meant; 0 if none is asked for.
    fn stops(&self) -> Result<u64, WishError> {
        if self.stopped {
            return Ok(u64::MAX);
        }
        self.stop.iter().try_fold(0, |bits, name| {
            let stops = (0..).zip(Stop::ALL);
            let mut named = stops.filter(|(_, stop)| stop.name() == name);
            let (number, _) = named.next().ok_or_else(|| WishError::Stop(name.clone()))?;
            Ok(bits | 1_u64 << number)
        })
    }
}

/// The end by which packets of a target are known.
fn target(table: &Table<'_>, id: u32) -> Option<Result<SocketAddr, WishError>> {
    let at = table.target(id)?;
    let mode = table
        .targets
        .get(usize::try_from(id).ok()?)?
        .control()?
        .mode;
    Some(match mode {
        Mode::DSR_L2 => Err(WishError::Dsr(at)),
        Mode::NAT | Mode::FULL_NAT => Ok(at),
        // A tunnel goes to the target's address, and to no port of it.
        _ => Ok(SocketAddr::new(at.ip(), 0)),
    })
}

fn ends(field: &'static str, meant: impl Iterator<Item = SocketAddr>) -> Result<Ends, WishError> {
    let mut meant: Vec<SocketAddr> = meant.collect();
    meant.sort_unstable();
    meant.dedup();
    if meant.is_empty() {
        return Err(WishError::Nothing(field));
    }
    let mut ends = Ends::ANY;
    let count = meant.len();
    let places = ends
        .ends
        .get_mut(..count)
        .ok_or(WishError::TooMany { field, count })?;
    for (place, at) in places.iter_mut().zip(meant) {
        *place = End::new(at.ip().into(), at.port().into());
    }
    ends.count = count as u64;
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_asked_for_by_the_names_that_the_counters_have() {
        let named = |names: &[&str]| Filter {
            stop: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Filter::default()
        };
        assert_eq!(Filter::default().stops(), Ok(0));
        let both = 1 << Stop::NoTarget as u64 | 1 << Stop::Stray as u64;
        assert_eq!(named(&["no_target", "stray"]).stops(), Ok(both));
        let unknown = WishError::Stop("strays".to_owned());
        assert_eq!(named(&["stray", "strays"]).stops(), Err(unknown));
        let stopped = Filter {
            stopped: true,
            ..Filter::default()
        };
        assert_eq!(stopped.stops(), Ok(u64::MAX));
    }

    #[test]
    fn as_many_ends_are_told_apart_as_the_kernel_has_room_for() {
        let many = |count: usize| {
            let ports = 1..=u16::try_from(count).unwrap();
            ends(
                "vip",
                ports.map(|port| SocketAddr::from(([192, 0, 2, 1], port))),
            )
        };
        assert_eq!(many(0), Err(WishError::Nothing("vip")));
        let most = many(ENDS).unwrap();
        assert_eq!(most.count, ENDS as u64);
        assert_eq!(most.ends[ENDS - 1].port.get(), 16);
        let count = ENDS + 1;
        assert_eq!(
            many(count),
            Err(WishError::TooMany {
                field: "vip",
                count
            })
        );
        // One end twice is one end: groups may share a target.
        let at = SocketAddr::from(([192, 0, 2, 1], 80));
        assert_eq!(ends("target", [at; 20].into_iter()).unwrap().count, 1);
    }
}
