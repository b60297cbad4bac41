//! The packet inside, and whether it may come out.
//!
//! Whether it is for a VIP comes first: what is not, another tunnel on this host may be waiting for.

use nlb_common::{
    address::Address,
    decap::DecapStop,
    wire::{ipv4::Ipv4, ipv6::Ipv6},
};

use super::{DecapTables, Found, ecn};
use crate::frame::Frame;

/// Reads the inner header and decides.
#[inline(always)]
pub fn read<F: Frame, T: DecapTables>(
    frame: &F,
    tables: &T,
    found: &mut Found,
) -> Result<(), DecapStop> {
    let (destination, length, shortest) = if found.is_v4 {
        let header = frame.get::<Ipv4>(found.at).ok_or(DecapStop::Malformed)?;
        if found.left < 20 || !header.is_version_4() {
            return Err(DecapStop::Malformed);
        }
        found.inner_ecn = header.traffic_class & ecn::MASK;
        let header_length = u16::from(header.header_length_bytes());
        let shortest = if header_length < 20 {
            u16::MAX
        } else {
            header_length
        };
        (
            Address::from_v4_bytes(header.destination),
            header.total_length.get(),
            shortest,
        )
    } else {
        let header = frame.get::<Ipv6>(found.at).ok_or(DecapStop::Malformed)?;
        if found.left < 40 || !header.is_version_6() {
            return Err(DecapStop::Malformed);
        }
        found.inner_ecn = header.traffic_class() & ecn::MASK;
        let destination = Address::from_v6_bytes(header.destination);
        if destination.is_v4() {
            return Err(DecapStop::NotOurs);
        }
        (
            destination,
            header.payload_length.get().saturating_add(40),
            40,
        )
    };
    if !tables.is_vip(&destination) {
        return Err(DecapStop::NotOurs);
    }
    if !tables.is_trusted(&found.source) {
        return Err(DecapStop::ForeignSource);
    }
    if found.has_unknown_options {
        return Err(DecapStop::UnknownOption);
    }
    if length < shortest || length > found.left {
        return Err(DecapStop::InnerLength);
    }
    found.length_bytes = length;
    found.combined_ecn =
        ecn::combine(found.outer_ecn, found.inner_ecn).ok_or(DecapStop::Congestion)?;
    Ok(())
}
