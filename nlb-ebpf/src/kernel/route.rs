//! The kernel's routes and neighbours, asked where no next hop is remembered.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
    },
    helpers::r#gen::bpf_fib_lookup,
    programs::XdpContext,
};
use nlb_common::{
    address::Address, event::Event, next_hop::NextHop, stop::Stop, wire::ethernet::MacAddress,
};
use nlb_ebpf::tables::{Route, RouteQuery};
use zerocopy::big_endian::U16;

/// `struct bpf_fib_lookup` of `linux/bpf.h` without its unions: the fields that we fill and read.
#[repr(C)]
struct Parameters {
    family: u8,
    l4_protocol: u8,
    ports: [u16; 2],
    /// In: 0, no length to check. Out: the route's MTU.
    mtu: u16,
    interface: u32,
    /// TOS in the first byte for IPv4, flow information for IPv6.
    flow: [u8; 4],
    source: [u32; 4],
    destination: [u32; 4],
    vlan_protocol: U16,
    vlan_control: U16,
    source_mac: [u8; 6],
    destination_mac: [u8; 6],
}

const _: () = assert!(size_of::<Parameters>() == 64);

/// `AF_INET` and `AF_INET6` of Linux.
const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;

/// The way to a destination. An unknown neighbour is told to the daemon, which has it resolved.
#[inline(always)]
pub fn look_up(
    context: &XdpContext,
    query: &RouteQuery,
    tell: impl FnOnce(&Event),
) -> Result<Route, Stop> {
    let is_v4 = query.destination.is_v4();
    let mut parameters = Parameters {
        family: if is_v4 { FAMILY_V4 } else { FAMILY_V6 },
        l4_protocol: query.protocol,
        ports: [0; 2],
        mtu: 0,
        interface: query.interface,
        flow: if is_v4 {
            [query.traffic_class, 0, 0, 0]
        } else {
            [query.traffic_class >> 4, query.traffic_class << 4, 0, 0]
        },
        source: words(query.source, is_v4),
        destination: words(query.destination, is_v4),
        vlan_protocol: U16::ZERO,
        vlan_control: U16::ZERO,
        source_mac: [0; 6],
        destination_mac: [0; 6],
    };
    // SAFETY: the context is this call's, the structure is the kernel's and its size is given.
    let answer = unsafe {
        bpf_fib_lookup(context.as_ptr(), (&raw mut parameters).cast(), 64, 0)
    };
    let neighbour = if is_v4 {
        Address::from_v4_bytes(parameters.destination[0].to_ne_bytes())
    } else {
        let [a, b, c, d] = parameters.destination;
        let word = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        Address { words: [word(a, b), word(c, d)] }
    };
    match u32::try_from(answer) {
        Ok(BPF_FIB_LKUP_RET_SUCCESS) => Ok(Route {
            next_hop: NextHop {
                destination_mac: MacAddress(parameters.destination_mac),
                source_mac: MacAddress(parameters.source_mac),
                interface: parameters.interface,
                mtu_bytes: parameters.mtu,
            },
            neighbour,
        }),
        Ok(BPF_FIB_LKUP_RET_NO_NEIGH) => {
            tell(&Event {
                kind: Event::NEIGHBOUR_WANTED,
                interface: parameters.interface,
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
