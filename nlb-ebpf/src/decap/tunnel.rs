//! What stands between the outer IP header and the packet inside.

use nlb_common::{
    decap::{DecapStop, Encapsulation},
    wire::{ethernet, geneve::Geneve, gue::Gue, protocol, udp::Udp},
};
use zerocopy::big_endian::U16;

use super::{DecapTables, Found, Part};
use crate::frame::Frame;

/// Reads as far as the inner packet.
#[inline(always)]
pub fn read<F: Frame, T: DecapTables>(
    frame: &F,
    tables: &T,
    found: &mut Found,
) -> Result<(), DecapStop> {
    if found.protocol != protocol::UDP {
        if found.part != Part::Whole {
            return Err(DecapStop::Fragment);
        }
        found.is_v4 = found.protocol == protocol::IPV4;
        found.encapsulation = Encapsulation::Ipip;
        return Ok(());
    }
    if found.part == Part::Later || found.left < 8 {
        return Err(DecapStop::NotOurs);
    }
    let udp = frame.get::<Udp>(found.at).ok_or(DecapStop::NotOurs)?;
    let port = udp.destination_port;
    let length = udp.length.get();
    // Port 0 is nobody's, and means "none" in our settings.
    let is_gue = port == tables.gue_port();
    if port == U16::ZERO || !(is_gue || port == tables.geneve_port()) {
        return Err(DecapStop::NotOurs);
    }
    if found.part != Part::Whole {
        return Err(DecapStop::Fragment);
    }
    if length < 8 || length > found.left {
        return Err(DecapStop::Malformed);
    }
    found.left = length;
    step(found, 8)?;
    if is_gue {
        gue(frame, found)
    } else {
        geneve(frame, found)
    }
}

/// Goes on by so many bytes.
#[inline(always)]
fn step(found: &mut Found, bytes: u16) -> Result<(), DecapStop> {
    if bytes > found.left {
        return Err(DecapStop::Malformed);
    }
    found.left -= bytes;
    found.at = found.at.plus(bytes).ok_or(DecapStop::TooDeep)?;
    Ok(())
}

#[inline(always)]
fn gue<F: Frame>(frame: &F, found: &mut Found) -> Result<(), DecapStop> {
    found.encapsulation = Encapsulation::Gue;
    if found.left < 4 {
        return Err(DecapStop::Malformed);
    }
    let header = frame.get::<Gue>(found.at).ok_or(DecapStop::Malformed)?;
    if header.variant() == 1 {
        // No header at all: this is the IP version.
        match header.variant_and_length >> 4 {
            4 => found.is_v4 = true,
            6 => found.is_v4 = false,
            _ => return Err(DecapStop::Malformed),
        }
        return Ok(());
    }
    if header.variant() != 0 {
        return Err(DecapStop::Malformed);
    }
    if header.is_control() {
        return Err(DecapStop::Control);
    }
    match header.protocol {
        protocol::IPV4 => found.is_v4 = true,
        protocol::IPV6 => found.is_v4 = false,
        _ => return Err(DecapStop::NotIp),
    }
    // What follows without a flag is private to the sender, and may be stepped over.
    found.has_unknown_options = header.flags != U16::ZERO;
    step(found, 4 + u16::from(header.extension_bytes()))
}

#[inline(always)]
fn geneve<F: Frame>(frame: &F, found: &mut Found) -> Result<(), DecapStop> {
    found.encapsulation = Encapsulation::Geneve;
    if found.left < 8 {
        return Err(DecapStop::Malformed);
    }
    let header = frame.get::<Geneve>(found.at).ok_or(DecapStop::Malformed)?;
    if header.version() != 0 {
        return Err(DecapStop::Malformed);
    }
    if header.is_control() {
        return Err(DecapStop::Control);
    }
    if header.protocol == ethernet::IPV4 {
        found.is_v4 = true;
    } else if header.protocol == ethernet::IPV6 {
        found.is_v4 = false;
    } else {
        return Err(DecapStop::NotIp);
    }
    found.has_unknown_options = header.has_critical_options();
    step(found, 8 + u16::from(header.option_bytes()))
}
