//! From groups and the configuration to the wish: what should be in the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use nlb_common::{
    address::Address,
    listener::{ListenerKey, Stranded},
    next_hop::NextHopId,
    target::Mode as WireMode,
    wire::protocol,
};
use zerocopy::big_endian::U16;

use super::groups::{Group, Groups, Way};
use crate::{
    clock,
    config::{Desired, Listener, LoadBalancer, Mode, StrandedAction},
    plan::{
        Wish, WishedForward, WishedGroup, WishedListener, WishedQuic, WishedRing, WishedTarget,
        fingerprint,
    },
};

impl Groups {
    /// What should be in the maps.
    pub(super) fn wish(
        &self,
        desired: &Desired,
        now: Duration,
        next_hop: impl Fn(&Way) -> NextHopId,
    ) -> Wish {
        let mut forwards = Vec::new();
        let listeners = desired
            .load_balancers
            .iter()
            .flat_map(|balancer| {
                let listeners = balancer.listeners.iter();
                listeners.map(move |listener| (balancer, listener))
            })
            .flat_map(|(balancer, listener)| {
                let ring = match listener.forward.as_slice() {
                    [one] => WishedRing::Group(one.target_group),
                    several => {
                        let shares = several.iter();
                        forwards.push(WishedForward {
                            shares: shares
                                .map(|share| (share.target_group, share.weight))
                                .collect(),
                        });
                        WishedRing::Forward(forwards.len() - 1)
                    }
                };
                wished_listeners(balancer, listener, ring)
            })
            .collect();
        Wish {
            listeners,
            groups: self
                .list
                .iter()
                .map(|group| group.wish(now, &next_hop))
                .collect(),
            forwards,
        }
    }
}

impl Group {
    fn wish(&self, now: Duration, next_hop: &impl Fn(&Way) -> NextHopId) -> WishedGroup {
        let weights = self.weights(&self.selection(), now);
        WishedGroup {
            fingerprint: fingerprint(&self.configured.name),
            mode: match self.configured.mode {
                Mode::Nat => WireMode::NAT,
                Mode::DsrL2 => WireMode::DSR_L2,
            },
            terminates_removed: self.configured.terminates_deregistered,
            targets: self
                .targets
                .iter()
                .zip(weights)
                // Forgotten at the next tick.
                .filter(|((_, target), _)| !target.health.is_gone())
                .map(|((address, target), weight)| WishedTarget {
                    address: address.ip(),
                    port: address.port(),
                    weight,
                    resets_flows: self.ends_flows(target.health.state()),
                    next_hop: next_hop(&target.way),
                })
                .collect(),
            quic: self.quic(),
        }
    }

    /// The numbers of QUIC servers. One that drains and whose number another has by now has none.
    fn quic(&self) -> Option<WishedQuic> {
        let layout = self.configured.quic?;
        let registered: BTreeMap<SocketAddr, Option<u64>> = self
            .configured
            .targets
            .iter()
            .map(|target| {
                let address = SocketAddr::new(target.address, target.port);
                (address, target.quic_server_id)
            })
            .collect();
        let taken: BTreeSet<u64> = registered.values().flatten().copied().collect();
        let server_ids = self
            .targets
            .iter()
            .map(|(address, target)| {
                let id = target.quic_server_id?;
                (registered.contains_key(address) || !taken.contains(&id)).then_some(id)
            })
            .collect();
        Some(WishedQuic { layout, server_ids })
    }
}

/// What packets are addressed to: a key for each address and protocol, and how long such a flow may
/// be silent.
pub(super) fn keys(listener: &Listener) -> Vec<(ListenerKey, Duration)> {
    let tcp = listener
        .protocol
        .has_tcp()
        .then_some((protocol::TCP, listener.tcp_idle_timeout));
    let udp = listener
        .protocol
        .has_udp()
        .then_some((protocol::UDP, listener.udp_idle_timeout));
    let mut keys = Vec::new();
    for address in &listener.addresses {
        for (protocol, idle) in [tcp, udp].into_iter().flatten() {
            let address = Address::from(*address);
            keys.push((
                ListenerKey::new(address, protocol, U16::new(listener.port)),
                idle,
            ));
        }
    }
    keys
}

const fn stranded(action: StrandedAction) -> Stranded {
    match action {
        StrandedAction::Forward => Stranded::FORWARD,
        StrandedAction::Reset => Stranded::RESET,
        StrandedAction::Drop => Stranded::DROP,
    }
}

fn wished_listeners(
    balancer: &LoadBalancer,
    listener: &Listener,
    ring: WishedRing,
) -> Vec<WishedListener> {
    keys(listener)
        .into_iter()
        .map(|(key, idle)| {
            let seconds = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX);
            WishedListener {
                key,
                ring,
                idle_ticks: clock::of_this_kernel().count_of_seconds(seconds),
                stray: stranded(listener.tcp_stray_action),
                expired: stranded(listener.tcp_idle_timeout_action),
                mss_clamp_bytes: listener.tcp_mss_clamp_bytes.unwrap_or(0),
                hash_input: listener.hash_input,
                answers_echo: balancer.icmp_echo,
            }
        })
        .collect()
}
