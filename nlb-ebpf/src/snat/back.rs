//! The stage of what may answer a flow whose source is translated.

use nlb_common::{
    answer::Notice,
    flow::Choice,
    fragment::Way,
    stop::Stop,
    wire::{protocol, tcp::SYN},
};

use super::{disguise, owner::owner};
use crate::{
    Exit, Verdict,
    classify::forgotten,
    emit::{emit, fits, has_a_hop_left},
    flows,
    frame::Frame,
    parse::parse,
    rewrite::{Endpoint, translate_ends},
    segment_size,
    tables::{Passage, PassageKind, Tables},
    to_client::{advance, ended, in_time, refused, way},
};

/// Sends an answer to the flow's client, from the VIP; [`Stop::NotOurs`] if no flow has the source
/// that it is addressed to. In all else it does what [`crate::to_client::to_client`] does.
#[inline(always)]
pub fn back<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    frame.forget_ends();
    let target = Endpoint {
        address: packet.source,
        port: packet.source_port,
    };
    let source = Endpoint {
        address: packet.destination,
        port: packet.destination_port,
    };
    let owner = owner(tables, target, source, packet.protocol);
    let entry = owner.found.entry.ok_or(Stop::NotOurs)?;
    let word = owner.found.word;
    let choice = Choice::of_word(word);
    if packet.protocol == protocol::TCP && owner.is_reset {
        return Err(ended::<true, T>(
            &packet,
            tables,
            choice.listener,
            Stop::Terminated,
            true,
        ));
    }
    let listener = tables
        .listener(choice.listener)
        .ok_or(Stop::UnwrittenListener)?;
    let key = listener.key().ok_or(Stop::UnwrittenListener)?;
    let (progress, client) = (owner.progress, owner.client);
    let now = tables.now();
    in_time::<true, T>(&packet, tables, choice.listener, listener, progress, now)?;
    has_a_hop_left(&packet).map_err(|stop| {
        refused::<true, T>(tables, stop, choice.listener, Notice::TIME_EXCEEDED, 0)
    })?;
    let (next_hop, epoch) = way::<true, F, T>(
        frame,
        &packet,
        tables,
        entry,
        word,
        &progress,
        client.address,
    )?;
    fits(&packet, 0, &next_hop).map_err(|stop| {
        let mtu_bytes = next_hop.mtu_bytes;
        refused::<true, T>(tables, stop, choice.listener, Notice::TOO_BIG, mtu_bytes)
    })?;
    let state = advance(progress.state, &packet);
    let new = progress.after(state, now, epoch);
    flows::note(tables, entry, progress, new);
    let vip = Endpoint {
        address: key.address,
        port: key.port,
    };
    let client = Endpoint {
        address: client.address,
        port: client.port,
    };
    translate_ends(frame, &packet, Some(vip), Some(client))?;
    let ids = (choice.listener, choice.target);
    disguise(
        frame,
        &packet,
        tables,
        ids,
        Way::ToClient,
        (vip.address, client.address),
    )?;
    if packet.tcp_flags & SYN != 0 {
        segment_size::clamp(frame, packet.transport, choice.listener, tables);
    }
    tables.count(&Passage {
        listener: choice.listener,
        target: choice.target,
        length_bytes: packet.length_bytes,
        kind: PassageKind::Return,
    });
    Ok(emit(frame, packet.network, &next_hop)?)
}
