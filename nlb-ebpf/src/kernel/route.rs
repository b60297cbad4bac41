//! The kernel's routes and neighbours, asked where no next hop is remembered.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
    },
    helpers::generated::bpf_fib_lookup,
    programs::XdpContext,
};
use nlb_common::{
    address::Address,
    event::Event,
    next_hop::{MacPair, NextHop, VlanId, VlanLink},
    stop::Stop,
};
use nlb_ebpf::tables::{Route, RouteQuery};

/// `struct bpf_fib_lookup` of `linux/bpf.h` as the 16 words that it is.
///
/// VERIFIER: with fields of its own sizes, LLVM joins neighbouring stores into words that straddle
/// ("misaligned stack access off -94 size 4"; Linux 6.18, rustc 1.96).
type Parameters = [u32; 16];

/// Where the fields stand in [`Parameters`], in words.
mod word {
    /// Address family (8 bits), IP protocol (8), source port (16).
    pub(super) const FAMILY: usize = 0;
    /// Destination port (16 bits); in: length to check, 0 for none; out: the route's MTU (16).
    pub(super) const MTU: usize = 1;
    /// In: where the packet came in; out: where it leaves.
    pub(super) const INTERFACE: usize = 2;
    /// IPv4: TOS (8 bits); IPv6: flow information in network order.
    pub(super) const FLOW: usize = 3;
    /// Four words, an IPv4 address in the first.
    pub(super) const SOURCE: usize = 4;
    /// Four words; out: the gateway, if there is one.
    pub(super) const DESTINATION: usize = 8;
    /// Three words: source MAC (6 bytes), destination MAC (6).
    pub(super) const MACS: usize = 13;
}

/// `AF_INET` and `AF_INET6` of Linux.
const FAMILY_V4: u32 = 2;
const FAMILY_V6: u32 = 10;

/// The way to a destination. An unknown neighbour is told to the daemon, which has it resolved.
#[inline(always)]
pub(crate) fn look_up(
    context: &XdpContext,
    query: &RouteQuery,
    vlan_link: impl FnOnce(u32) -> Option<VlanLink>,
    tell: impl FnOnce(&Event),
) -> Result<Route, Stop> {
    let is_v4 = query.destination.is_v4();
    let class = query.traffic_class;
    let mut parameters: Parameters = [0; 16];
    parameters[word::FAMILY] =
        if is_v4 { FAMILY_V4 } else { FAMILY_V6 } | u32::from(query.protocol) << 8;
    parameters[word::INTERFACE] = query.interface;
    parameters[word::FLOW] = if is_v4 {
        u32::from(class)
    } else {
        u32::from_ne_bytes([class >> 4, class << 4, 0, 0])
    };
    let [a, b, c, d] = words(query.source, is_v4);
    parameters[word::SOURCE] = a;
    parameters[word::SOURCE + 1] = b;
    parameters[word::SOURCE + 2] = c;
    parameters[word::SOURCE + 3] = d;
    let [a, b, c, d] = words(query.destination, is_v4);
    parameters[word::DESTINATION] = a;
    parameters[word::DESTINATION + 1] = b;
    parameters[word::DESTINATION + 2] = c;
    parameters[word::DESTINATION + 3] = d;
    // SAFETY: the context is this call's, the structure is the kernel's and its size is given.
    let answer = unsafe { bpf_fib_lookup(context.as_ptr(), (&raw mut parameters).cast(), 64, 0) };
    let [a, b, c, d] = [
        parameters[word::DESTINATION],
        parameters[word::DESTINATION + 1],
        parameters[word::DESTINATION + 2],
        parameters[word::DESTINATION + 3],
    ];
    let neighbour = if is_v4 {
        Address::from_v4_bytes(a.to_ne_bytes())
    } else {
        let word = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        Address {
            words: [word(a, b), word(c, d)],
        }
    };
    match u32::try_from(answer) {
        Ok(BPF_FIB_LKUP_RET_SUCCESS) => {
            // The source's six bytes, then the destination's: in a frame it is the other way
            // round.
            let source = parameters[word::MACS];
            let middle = parameters[word::MACS + 1];
            let destination = parameters[word::MACS + 2];
            let source_end = middle & 0xffff;
            let head = u64::from(middle >> 16)
                | u64::from(destination) << 16
                | u64::from(source & 0xffff) << 48;
            let tail = source >> 16 | source_end << 16;
            let interface = parameters[word::INTERFACE];
            let link = vlan_link(interface).unwrap_or(VlanLink {
                carrier: interface,
                vlan: VlanId::NONE,
            });
            if link.carrier == 0 {
                return Err(Stop::NoRoute);
            }
            Ok(Route {
                next_hop: NextHop {
                    macs: MacPair { head, tail },
                    interface: link.carrier,
                    vlan: link.vlan,
                    mtu_bytes: (parameters[word::MTU] >> 16) as u16,
                },
                neighbour,
                interface,
            })
        }
        Ok(BPF_FIB_LKUP_RET_NO_NEIGH) => {
            tell(&Event {
                kind: Event::NEIGHBOUR_WANTED,
                interface: parameters[word::INTERFACE],
                address: neighbour,
            });
            Err(Stop::NeighbourUnknown)
        }
        Ok(BPF_FIB_LKUP_RET_FWD_DISABLED) => Err(Stop::ForwardingOff),
        _ => Err(Stop::NoRoute),
    }
}

/// An address as the kernel's four words; an IPv4 address stands in the first.
#[inline(always)]
fn words(address: Address, is_v4: bool) -> [u32; 4] {
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    let halves = |word: u64| (word as u32, (word >> 32) as u32);
    let (a, b) = halves(address.words[0]);
    let (c, d) = halves(address.words[1]);
    if is_v4 { [d, 0, 0, 0] } else { [a, b, c, d] }
}
