//! The stage of ICMP errors about what the target of a flow that began with a cookie has sent.
//!
//! A TCP believes only an error about bytes that are under way (RFC 5927 §4.1), so the quoted number
//! is shifted back. Errors about what the client has sent quote a number that both ends know; that of
//! the acknowledgement, which nobody looks at, stays the target's.

use nlb_common::{sequence::Numbering, stop::Stop};

use super::known::decided;
use crate::{
    Exit, Verdict,
    classify::forgotten,
    emit::{emit, fits, has_a_hop_left},
    frame::Frame,
    parse::parse,
    quote::Quote,
    rewrite::End,
    tables::{Passage, PassageKind, Tables},
    to_target::{Arrival, way},
};

/// Translates an error to a VIP, and what it quotes, for the target that it concerns.
#[inline(always)]
pub fn icmp<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    frame.forget_ends();
    let mut quote = Quote::UNREAD;
    quote.read(frame, &packet).ok_or(Stop::IcmpUnreadable)?;
    let forth = quote.forth(&packet);
    let arrival = Arrival::of(&forth, tables);
    let (decision, numbering, _) = decided(&forth, tables, &arrival)?;
    let Numbering::Shifted(shift) = numbering else {
        return Err(Exit::Stop(Stop::IcmpUnknownFlow));
    };
    let next_hop = way(frame, &packet, packet.source, tables, &decision.target)?;
    fits(&packet, 0, &next_hop)?;
    has_a_hop_left(&packet)?;
    // VERIFIER: anew before and after, or LLVM drops bounds checks that one before says as well.
    frame.forget_ends();
    quote.shift_sequence(frame, &packet, shift.wrapping_neg())?;
    frame.forget_ends();
    let record = decision.target.record;
    let (address, port) = (record.address(), record.port());
    quote.translate(frame, &packet, End::Source, address, port)?;
    tables.count(&Passage {
        listener: decision.listener,
        target: decision.target.id,
        length_bytes: packet.length_bytes,
        kind: PassageKind::Known,
    });
    Ok(emit(frame, packet.network, &next_hop)?)
}
