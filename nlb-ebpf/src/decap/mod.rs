//! The story of a packet at the far end of a tunnel, on a target.
//!
//! ```text
//!  frame ─► outer: for one of our addresses, by a tunnel's protocol? ──no──► pass, untouched
//!                         │yes
//!           tunnel: IP in IP, GUE, Geneve ─► inner: for a VIP? ──no──► pass, untouched
//!                                                     │yes
//!                       sender, options, lengths, congestion mark ──refused──► drop, counted
//!                                                     │
//!                          outer headers off ─► pass, to the stack that owns the VIP
//! ```
//!
//! 1. [`outer`]: the Ethernet and IP headers in front.
//! 2. [`tunnel`]: what stands between them and the packet inside.
//! 3. [`inner`]: the packet inside, and whether it may come out.
//! 4. [`ecn`]: what the tunnel's path says about congestion (RFC 6040).
//!
//! A program of its own: it needs nothing of the load balancer's tables, and a target no daemon.

pub mod ecn;
pub mod inner;
#[cfg(feature = "memory")]
pub mod memory;
pub mod outer;
pub mod tunnel;

use nlb_common::{
    address::Address,
    decap::{DecapStop, Encapsulation},
    stop::StopVerdict,
    wire::{ethernet, ipv4::Ipv4, ipv6::Ipv6},
};
use zerocopy::big_endian::U16;

use crate::{
    Verdict,
    checksum::Change,
    frame::{Frame, Offset},
};

/// What a packet may ask and tell.
pub trait DecapTables {
    /// The UDP port of GUE; zero if there is none.
    fn gue_port(&self) -> U16;

    /// The UDP port of Geneve; zero if there is none.
    fn geneve_port(&self) -> U16;

    /// Whether IP in IP is taken off.
    fn takes_ipip(&self) -> bool;

    /// Whether this address is one of the host's own.
    fn is_own(&self, address: &Address) -> bool;

    /// Whether this address is a VIP.
    fn is_vip(&self, address: &Address) -> bool;

    /// Whether this address may send through tunnels.
    fn is_trusted(&self, source: &Address) -> bool;

    /// Counts a packet that came out; `bytes` are those of the inner packet.
    fn count(&self, encapsulation: Encapsulation, bytes: u16);

    /// Counts a packet that was stopped.
    fn count_stop(&self, stop: DecapStop);
}

/// How much of the outer packet there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment, which has ports.
    First,
    /// Another fragment.
    Later,
}

/// What is known of a packet. Filled in place, field by field, as `parse` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the outer IP header stands: behind Ethernet and its tags.
    pub network: Offset,
    /// Where the present header stands; in the end, the inner IP header.
    pub at: Offset,
    /// Bytes that the outer packet has from there on.
    pub left: u16,
    /// The IP protocol of the present header.
    pub protocol: u8,
    /// The outer ECN field.
    pub outer_ecn: u8,
    /// Whether the outer packet is whole.
    pub part: Part,
    /// Whether the tunnel header has options that change what it means.
    pub has_unknown_options: bool,
    /// Whether the inner packet is IPv4.
    pub is_v4: bool,
    /// Who sent the outer packet.
    pub source: Address,
    /// How it is wrapped.
    pub encapsulation: Encapsulation,
    /// Bytes of the inner packet.
    pub length_bytes: u16,
    /// The inner ECN field, as it is.
    pub inner_ecn: u8,
    /// The inner ECN field, as it will be.
    pub combined_ecn: u8,
}

impl Found {
    /// Nothing known yet.
    const NOTHING: Self = Self {
        network: Offset(0),
        at: Offset(0),
        left: 0,
        protocol: 0,
        outer_ecn: 0,
        part: Part::Whole,
        has_unknown_options: false,
        is_v4: false,
        source: Address::UNSPECIFIED,
        encapsulation: Encapsulation::Ipip,
        length_bytes: 0,
        inner_ecn: 0,
        combined_ecn: 0,
    };
}

/// The story of a packet at the far end of a tunnel.
#[inline(always)]
pub fn decapsulate<F: Frame, T: DecapTables>(frame: &mut F, tables: &T) -> Verdict {
    match come_out(frame, tables) {
        Ok(()) | Err(DecapStop::NotOurs) => Verdict::Pass,
        Err(stop) => {
            tables.count_stop(stop);
            match stop.verdict() {
                StopVerdict::Pass => Verdict::Pass,
                StopVerdict::Drop => Verdict::Drop,
            }
        }
    }
}

#[inline(always)]
fn come_out<F: Frame, T: DecapTables>(frame: &mut F, tables: &T) -> Result<(), DecapStop> {
    let mut found = Found::NOTHING;
    outer::read(frame, tables, &mut found)?;
    tunnel::read(frame, tables, &mut found)?;
    inner::read(frame, tables, &mut found)?;
    take_off(frame, &found)?;
    tables.count(found.encapsulation, found.length_bytes);
    Ok(())
}

/// Moves the link's headers to the inner packet and marks that as congested if it must be.
#[inline(always)]
fn take_off<F: Frame>(frame: &mut F, found: &Found) -> Result<(), DecapStop> {
    let link = found.network;
    match link.0 {
        14 => carry::<F, 14>(frame, found)?,
        18 => carry::<F, 18>(frame, found)?,
        _ => carry::<F, 22>(frame, found)?,
    }
    if found.combined_ecn == found.inner_ecn {
        return Ok(());
    }
    if found.is_v4 {
        let header = frame.get_mut::<Ipv4>(link).ok_or(DecapStop::Malformed)?;
        let class = header.traffic_class & !ecn::MASK | found.combined_ecn;
        let first = header.version_and_length;
        header.checksum = Change::default()
            .word(
                U16::from_bytes([first, header.traffic_class]),
                U16::from_bytes([first, class]),
            )
            .apply(header.checksum);
        header.traffic_class = class;
    } else {
        let header = frame.get_mut::<Ipv6>(link).ok_or(DecapStop::Malformed)?;
        // The traffic class straddles the first two bytes.
        let [_, second, ..] = &mut header.version_class_label;
        *second = *second & !(ecn::MASK << 4) | found.combined_ecn << 4;
    }
    Ok(())
}

/// Takes everything between the link's headers, which are `LINK` bytes, and the inner packet out.
///
/// The frame is shortened before the first byte is written: that may be refused.
#[inline(always)]
fn carry<F: Frame, const LINK: usize>(frame: &mut F, found: &Found) -> Result<(), DecapStop> {
    let mut link = *frame
        .get::<[u8; LINK]>(Offset(0))
        .ok_or(DecapStop::Malformed)?;
    let ether_type = if found.is_v4 {
        ethernet::IPV4
    } else {
        ethernet::IPV6
    };
    if let [.., a, b] = &mut link[..] {
        [*a, *b] = ether_type.to_bytes();
    }
    let network = i16::from(found.network.0);
    frame
        .move_start(network - i16::from(found.at.0))
        .map_err(|_| DecapStop::NoRoom)?;
    *frame
        .get_mut::<[u8; LINK]>(Offset(0))
        .ok_or(DecapStop::Malformed)? = link;
    Ok(())
}
