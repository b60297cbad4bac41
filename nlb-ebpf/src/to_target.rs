//! From the client to the target.

use nlb_common::{
    answer::{Answer, Notice},
    flow::{Choice, Client, FlowState, Progress},
    fragment::Way,
    listener::{ListenerId, ListenerKey, ListenerPolicy, Stranded},
    next_hop::{NextHop, NextHopId},
    stop::Stop,
    target::{Mode, TargetId},
    tick::Tick,
    wire::{
        protocol,
        tcp::{ACK, FIN, RST, SYN},
    },
};

use crate::{
    Exit, Stage, Verdict,
    answer::tell,
    emit::{emit, fits, has_a_hop_left, route},
    flows::{self, Found, Place},
    fragment,
    frame::Frame,
    parse::{Kind, Packet},
    rewrite::{End, translate},
    segment_size,
    select::{Chosen, select},
    tables::{Passage, PassageKind, Tables},
};

/// What a packet towards a target turned out to be, and what is to be remembered of it.
struct Decision<'t> {
    listener: ListenerId,
    target: Chosen<'t>,
    /// The entry that holds the flow, or that held it until it ended.
    entry: Found<'t>,
    /// What `entry` said.
    progress: Progress,
    /// How far the flow has come with this packet.
    state: FlowState,
    /// Whether a flow begins.
    begins: bool,
}

/// Sends a packet that may be addressed to a listener on to its target; [`Stop::NotOurs`] if there
/// is no such listener.
///
/// Where `ALL` is false only a remembered flow is forwarded, and only if its target's next hop is
/// known; everything else goes on to [`Stage::Begin`].
#[inline(always)]
pub fn to_target<const ALL: bool, F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
) -> Result<Verdict, Exit> {
    to_target_or::<ALL, false, F, T>(frame, packet, tables, UNNAMED)
}

/// No target's id.
pub const UNNAMED: TargetId = TargetId(0);

/// The same. Where `QUIC` is true, `named` is what the packet's connection ID says, or
/// [`UNNAMED`]; where it is not, packets for QUIC listeners go on to [`Stage::Quic`].
#[inline(always)]
pub fn to_target_or<const ALL: bool, const QUIC: bool, F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
    named: TargetId,
) -> Result<Verdict, Exit> {
    let client = Client {
        address: packet.source,
        port: packet.source_port,
        protocol: packet.protocol,
    };
    let place = Place::of(tables, &client);
    let now = tables.now();
    let decision = decide::<ALL, QUIC, F, T>(frame, packet, tables, place, &client, now, named)?;
    let next_hop = way::<ALL, F, T>(frame, packet, tables, &decision.target)?;
    let is_translated = decision.target.control.mode == Mode::NAT;
    if is_translated {
        has_a_hop_left(packet)
            .map_err(|stop| refused::<ALL, T>(tables, stop, &decision, Notice::TIME_EXCEEDED, 0))?;
    }
    fits(packet, &next_hop).map_err(|stop| {
        let mtu_bytes = next_hop.mtu_bytes;
        refused::<ALL, T>(tables, stop, &decision, Notice::TOO_BIG, mtu_bytes)
    })?;
    let kind = if decision.begins {
        remember(packet, tables, place, &client, now, &decision)?
    } else {
        if let Some(entry) = decision.entry.entry {
            let old = decision.progress;
            flows::note(
                tables,
                entry,
                old,
                old.after(decision.state, now, old.epoch),
            );
        }
        PassageKind::Known
    };
    if ALL && packet.kind == Kind::FirstFragment {
        let (listener, target) = (decision.listener, decision.target.id);
        fragment::remember(packet, tables, listener, target, Way::ToTarget);
    }
    if is_translated {
        let record = decision.target.record;
        translate(
            frame,
            packet,
            End::Destination,
            record.address(),
            record.port(),
        )?;
    }
    if ALL && opens(packet) {
        segment_size::clamp(frame, packet, decision.listener, tables);
    }
    tables.count(&Passage {
        listener: decision.listener,
        target: decision.target.id,
        length_bytes: packet.length_bytes,
        kind,
    });
    Ok(emit(frame, packet.network, &next_hop)?)
}

/// A packet that cannot go on is stopped, and its sender is told.
#[inline(always)]
fn refused<const ALL: bool, T: Tables>(
    tables: &T,
    stop: Stop,
    decision: &Decision<'_>,
    notice: Notice,
    mtu_bytes: u16,
) -> Exit {
    if !ALL {
        return Exit::Go(Stage::Begin);
    }
    let answer = Answer {
        notice,
        mtu_bytes,
        listener: decision.listener,
    };
    tell(tables, stop, answer)
}

/// Which flow is it, and where does it go?
#[inline(always)]
fn decide<'t, const ALL: bool, const QUIC: bool, F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &'t T,
    place: Place,
    client: &Client,
    now: Tick,
    named: TargetId,
) -> Result<Decision<'t>, Exit> {
    let mut policy = ListenerPolicy::default();
    let found = flows::find(tables, place, client, |choice| {
        match tables.listener(choice.listener) {
            Some(listener) => {
                policy = listener.policy();
                listener.is(packet.destination, packet.protocol, packet.destination_port)
            }
            None => false,
        }
    });
    let mut progress = Progress::NONE;
    if let Some(entry) = found.entry {
        if !QUIC && policy.flags.is_quic() {
            return Err(Exit::Go(Stage::Quic));
        }
        progress = entry.progress();
        let state = progress.state;
        if now.since(progress.last_seen) <= state.idle_ticks(policy.idle_ticks)
            && goes_to(named, Choice::of_word(found.word).target)
        {
            let choice = Choice::of_word(found.word);
            let target = Chosen::of(tables, choice.target)?;
            let is_opening = opens(packet);
            let is_reset = target.control.resets_flows;
            // A client that opens its flow anew gets another target if its old one takes no new
            // flows: in DSR modes nobody sees a dead target's refusal. A SYN always goes on to
            // `Stage::Begin`, which may clamp it.
            let goes_on = if is_opening {
                ALL && !state.is_over() && target.control.takes_new_flows
            } else {
                !is_reset
            };
            if goes_on {
                return Ok(Decision {
                    listener: choice.listener,
                    target,
                    entry: found,
                    progress,
                    state: advance(state, packet, target.control.mode),
                    begins: false,
                });
            }
            // What is not TCP has no connection to end, and just begins anew.
            if ALL && !is_opening && packet.protocol == protocol::TCP {
                let end = Stranded::RESET;
                stranded(packet, tables, choice.listener, end, Stop::Terminated)?;
            }
        }
    }
    if !ALL {
        return Err(Exit::Go(Stage::Begin));
    }
    let listener = listener_of(packet, tables)?;
    if !QUIC && is_quic(tables, listener) {
        return Err(Exit::Go(Stage::Quic));
    }
    if packet.protocol == protocol::TCP && !opens(packet) {
        let record = tables.listener(listener).ok_or(Stop::UnwrittenListener)?;
        let policy = record.policy();
        if found.entry.is_some() {
            stranded(packet, tables, listener, policy.expired, Stop::IdleExpired)?;
        } else {
            stranded(packet, tables, listener, policy.stray, Stop::Stray)?;
        }
    }
    let target = if named == UNNAMED {
        select(frame, tables, packet, listener)?
    } else {
        // Even if it takes no new flows: only the flow is new, the connection is not.
        Chosen::of(tables, named)?
    };
    Ok(Decision {
        listener,
        target,
        entry: found,
        progress,
        state: FlowState::NEW,
        begins: true,
    })
}

/// Whether a packet whose connection ID names a target, or none, may go where its flow goes.
#[inline(always)]
fn goes_to(named: TargetId, target: TargetId) -> bool {
    named == UNNAMED || named == target
}

#[inline(always)]
fn is_quic<T: Tables>(tables: &T, listener: ListenerId) -> bool {
    match tables.listener(listener) {
        Some(listener) => listener.policy().flags.is_quic(),
        None => false,
    }
}

/// A TCP segment that opens nothing and has no live flow: whether it may begin one all the same.
#[inline(always)]
fn stranded<T: Tables>(
    packet: &Packet,
    tables: &T,
    listener: ListenerId,
    policy: Stranded,
    stop: Stop,
) -> Result<(), Exit> {
    if policy == Stranded::FORWARD {
        return Ok(());
    }
    // Nobody resets a reset (RFC 9293 §3.10.7.1).
    if policy != Stranded::RESET || packet.tcp_flags & RST != 0 {
        return Err(Exit::Stop(stop));
    }
    let answer = Answer {
        notice: Notice::RESET,
        mtu_bytes: 0,
        listener,
    };
    Err(tell(tables, stop, answer))
}

/// Remembers a flow that begins, in its old entry if it had one.
#[inline(always)]
fn remember<T: Tables>(
    packet: &Packet,
    tables: &T,
    place: Place,
    client: &Client,
    now: Tick,
    decision: &Decision<'_>,
) -> Result<PassageKind, Stop> {
    // A stray RST begins nothing: it goes where its flow would go, and is forgotten.
    if packet.tcp_flags & RST != 0 {
        return Ok(PassageKind::Unpinned);
    }
    let choice = Choice {
        target: decision.target.id,
        listener: decision.listener,
        next_hop: NextHopId::NONE,
    };
    let is_pinned = match decision.entry.entry {
        Some(entry) => {
            let word = decision.entry.word;
            flows::refill(tables, entry, word, client, choice, decision.state, now)
        }
        None => flows::pin(tables, place, client, choice, decision.state, now),
    };
    if is_pinned {
        Ok(PassageKind::New)
    } else if decision.target.control.mode == Mode::NAT {
        Err(Stop::FlowTableFull)
    } else {
        Ok(PassageKind::Unpinned)
    }
}

/// The listener that a packet is addressed to.
#[inline(always)]
pub(crate) fn listener_of<T: Tables>(packet: &Packet, tables: &T) -> Result<ListenerId, Stop> {
    let key = ListenerKey::new(packet.destination, packet.protocol, packet.destination_port);
    tables.listener_id(&key).ok_or(Stop::NotOurs)
}

/// Whether the packet asks for a new connection.
#[inline(always)]
const fn opens(packet: &Packet) -> bool {
    packet.protocol == protocol::TCP && packet.tcp_flags & (SYN | ACK) == SYN
}

/// How far a flow has come with one more packet of the client.
#[inline(always)]
fn advance(state: FlowState, packet: &Packet, mode: Mode) -> FlowState {
    let mut state = state;
    // In DSR modes no answer is seen; that the client goes on shows that there was one.
    if !opens(packet) && (state.has(FlowState::ANSWERED) || mode != Mode::NAT) {
        state = state.with(FlowState::ESTABLISHED);
    }
    if packet.tcp_flags & FIN != 0 {
        state = state.with(FlowState::CLIENT_CLOSED);
    }
    if packet.tcp_flags & RST != 0 {
        state = state.with(FlowState::RESET);
    }
    state
}

/// The way to a target.
#[inline(always)]
pub(crate) fn way<const ALL: bool, F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &T,
    target: &Chosen<'_>,
) -> Result<NextHop, Exit> {
    if let Some(slot) = tables.next_hop(target.control.next_hop)
        && let Some((next_hop, _)) = slot.read()
    {
        return Ok(next_hop);
    }
    if !ALL {
        return Err(Exit::Go(Stage::Begin));
    }
    let address = target.record.address();
    let found = route(frame, tables, packet, packet.source, address)?;
    if target.control.mode == Mode::DSR_L2 && found.neighbour != address {
        return Err(Exit::Stop(Stop::NotOnLink));
    }
    Ok(found.next_hop)
}
