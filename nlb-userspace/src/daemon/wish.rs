//! From groups and the configuration to the wish: what should be in the maps.

use std::time::Duration;

use nlb_common::{
    address::Address, listener::ListenerKey, next_hop::NextHopId, target::Mode as WireMode,
    wire::protocol,
};
use zerocopy::big_endian::U16;

use super::groups::{Group, Groups, Way};
use crate::{
    clock,
    config::{Desired, Listener, Mode},
    plan::{
        Wish, WishedForward, WishedGroup, WishedListener, WishedRing, WishedTarget, fingerprint,
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
            .flat_map(|balancer| &balancer.listeners)
            .flat_map(|listener| {
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
                wished_listeners(listener, ring)
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
            sources: desired.node.snat_addresses.clone(),
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
                Mode::FullNat => WireMode::FULL_NAT,
            },
            targets: self
                .targets
                .iter()
                .zip(weights)
                .map(|((address, target), weight)| WishedTarget {
                    address: address.ip(),
                    port: address.port(),
                    weight,
                    next_hop: next_hop(&target.way),
                })
                .collect(),
        }
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

fn wished_listeners(listener: &Listener, ring: WishedRing) -> Vec<WishedListener> {
    keys(listener)
        .into_iter()
        .map(|(key, idle)| {
            let seconds = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX);
            WishedListener {
                key,
                ring,
                idle_ticks: clock::of_this_kernel().count_of_seconds(seconds),
                hash_input: listener.hash_input,
            }
        })
        .collect()
}
