//! SYN cookies, which the kernel makes and checks: as for its own sockets, with a secret that nobody
//! else knows (`net/ipv4/syncookies.c`), if it is built with `CONFIG_SYN_COOKIES`.

use aya_ebpf::helpers::generated::{
    bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6,
    bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6,
};
use nlb_common::wire::{
    ipv4::Ipv4,
    ipv6::Ipv6,
    tcp::{OPTION_SEGMENT_SIZE, Tcp, TcpOpening, TcpOption},
};
use nlb_ebpf::tables::{Cookie, Handshake};
use zerocopy::{
    FromZeros as _,
    big_endian::{U16, U32},
};

/// The headers that the kernel takes the facts from, as far as it looks at them.
///
/// VERIFIER: made here, because it wants to know that the packet's own are there as a whole, options
/// included, whose length it does not know.
#[repr(align(8))]
struct Placed<H>(H);

/// How large [`TcpOpening`] is, which its header says as well.
const OPENING_BYTES: u32 = size_of::<TcpOpening>() as u32;
const _: () = assert!(OPENING_BYTES == 24, "six words");

#[inline(always)]
fn header(handshake: &Handshake, sequence: u32, acknowledgement: u32, words: u8) -> Tcp {
    Tcp {
        source_port: handshake.client.port,
        destination_port: handshake.vip.port,
        sequence: U32::new(sequence),
        acknowledgement: U32::new(acknowledgement),
        data_offset: words << 4,
        flags: 0,
        window: U16::ZERO,
        checksum: U16::ZERO,
        urgent: U16::ZERO,
    }
}

#[inline(always)]
fn v4(handshake: &Handshake) -> Placed<Ipv4> {
    let mut header = Ipv4::new_zeroed();
    header.source = handshake.client.address.v4_bytes();
    header.destination = handshake.vip.address.v4_bytes();
    Placed(header)
}

#[inline(always)]
fn v6(handshake: &Handshake) -> Placed<Ipv6> {
    let mut header = Ipv6::new_zeroed();
    header.source = handshake.client.address.v6_bytes();
    header.destination = handshake.vip.address.v6_bytes();
    Placed(header)
}

/// [`nlb_ebpf::tables::Tables::make_cookie`].
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "takes the answer apart")]
pub(crate) fn make(handshake: &Handshake, segment_bytes: u16) -> Option<Cookie> {
    let mut tcp = Placed(TcpOpening {
        header: header(handshake, handshake.sequence, 0, 6),
        segment_size: TcpOption {
            kind: OPTION_SEGMENT_SIZE,
            length: 4,
            value: U16::new(segment_bytes),
        },
    });
    let segment = (&raw mut tcp).cast();
    let made = if handshake.client.address.is_v4() {
        let mut ip = v4(handshake);
        // SAFETY: both point to headers of the kind that the helper reads, of the length that it is
        // told, and it writes nothing.
        unsafe { bpf_tcp_raw_gen_syncookie_ipv4((&raw mut ip).cast(), segment, OPENING_BYTES) }
    } else {
        let mut ip = v6(handshake);
        // SAFETY: as above.
        unsafe { bpf_tcp_raw_gen_syncookie_ipv6((&raw mut ip).cast(), segment, OPENING_BYTES) }
    };
    // The number in the lower half, the size above it; below zero, an error.
    (made >= 0).then_some(Cookie {
        number: made as u32,
        segment_bytes: (made >> 32) as u16,
    })
}

/// [`nlb_ebpf::tables::Tables::is_cookie`].
#[inline(always)]
pub(crate) fn is_one(handshake: &Handshake, number: u32) -> bool {
    // The kernel takes the client's acknowledgement, whose numbers are one further.
    let (sequence, due) = (handshake.sequence.wrapping_add(1), number.wrapping_add(1));
    let mut tcp = Placed(header(handshake, sequence, due, 5));
    let segment = (&raw mut tcp).cast();
    let refused = if handshake.client.address.is_v4() {
        let mut ip = v4(handshake);
        // SAFETY: both point to headers of the kind that the helper reads, and it writes nothing.
        unsafe { bpf_tcp_raw_check_syncookie_ipv4((&raw mut ip).cast(), segment) }
    } else {
        let mut ip = v6(handshake);
        // SAFETY: as above.
        unsafe { bpf_tcp_raw_check_syncookie_ipv6((&raw mut ip).cast(), segment) }
    };
    refused == 0
}
