//! From the client to the target: which flow is it, and on with what is remembered. What begins, or
//! needs more, goes by the stages [`crate::begin`] and [`crate::depart`].

use nlb_common::{
    address::Address,
    answer::{Answer, Notice},
    flow::{Choice, Client, FlowState, Progress},
    listener::{ListenerId, ListenerKey, ListenerPolicy, Stranded},
    next_hop::NextHop,
    stop::Stop,
    target::{Mode, TargetId},
    tick::Tick,
    wire::{
        protocol,
        tcp::{ACK, FIN, RST, SYN},
    },
};

use crate::{
    Exit, Stage, Verdict, admission,
    answer::tell,
    cookie::check,
    emit::{UNTAGGED, emit, fits, has_a_hop_left},
    flows::{self, Found, Place},
    frame::Frame,
    parse::Packet,
    rewrite::{End, translate},
    select::{Chosen, select},
    settled,
    tables::{Passage, PassageKind, RouteQuery, Tables},
    tunnel::{self, overhead_bytes, wrap},
};

/// From whom a packet comes, and when.
pub(crate) struct Arrival {
    pub(crate) client: Client,
    pub(crate) place: Place,
    pub(crate) now: Tick,
}

impl Arrival {
    #[inline(always)]
    pub(crate) fn of<T: Tables>(packet: &Packet, tables: &T) -> Self {
        let client = Client {
            address: packet.source,
            port: packet.source_port,
            protocol: packet.protocol,
        };
        Self {
            place: Place::of(tables, &client),
            now: tables.now(),
            client,
        }
    }
}

/// What a packet towards a target turned out to be, and what is to be remembered of it.
pub(crate) struct Decision<'t> {
    pub(crate) listener: ListenerId,
    pub(crate) target: Chosen<'t>,
    /// The entry that holds the flow, or that held it until it ended.
    pub(crate) entry: Found<'t>,
    /// What `entry` said.
    pub(crate) progress: Progress,
    /// How far the flow has come with this packet.
    pub(crate) state: FlowState,
    /// Whether that may differ from what `progress` says, or be out of the ordinary.
    pub(crate) has_news: bool,
    /// Whether a flow begins.
    pub(crate) begins: bool,
    /// Whether a flow that begins is to be remembered, as far as its listener goes.
    pub(crate) is_pinned: bool,
}

/// No target's id.
pub const UNNAMED: TargetId = TargetId(0);

/// Forwards a packet of a remembered flow whose target's next hop is known to that target;
/// everything else that may be addressed to a listener goes on to [`Stage::Begin`] or [`Stage::First`].
#[inline(always)]
pub fn to_target<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
) -> Result<Verdict, Exit> {
    if tables.pins_on_change()
        && let Some(way) = settled::find(frame, packet, tables)
    {
        return settled::forward(frame, packet, tables, &way);
    }
    let arrival = Arrival::of(packet, tables);
    let decision = decide::<false, false, false, F, T>(frame, packet, tables, &arrival, UNNAMED)?;
    if decision.has_news {
        if tables.translates_sources() && decision.state.has(FlowState::SOURCE_TRANSLATED) {
            return Err(Exit::Go(Stage::SnatKnown));
        }
        if decision.state.has(FlowState::SEQUENCE_TRANSLATED) {
            return Err(Exit::Go(Stage::SequenceKnown));
        }
    }
    let begin = |_| Exit::Go(Stage::Begin);
    let next_hop = known_way(tables, &decision.target).ok_or(Exit::Go(Stage::Begin))?;
    let mode = decision.target.control.mode;
    if mode.is_translated() {
        has_a_hop_left(packet).map_err(begin)?;
    }
    fits(packet, overhead_bytes(&decision.target), &next_hop).map_err(begin)?;
    let mut network = packet.network;
    if mode.is_tunnel() {
        wrap(
            frame,
            packet,
            tables,
            &decision.target,
            arrival.place.entropy(),
        )?;
        network = UNTAGGED;
    }
    note(packet, tables, &arrival, &decision);
    if mode == Mode::NAT {
        let record = decision.target.record;
        let (address, port) = (record.address(), record.port());
        translate(frame, packet, End::Destination, address, port)?;
    }
    Ok(emit(frame, network, &next_hop)?)
}

/// A packet that cannot go on is stopped, and its sender is told.
#[inline(always)]
pub(crate) fn refused<T: Tables>(
    tables: &T,
    stop: Stop,
    decision: &Decision<'_>,
    notice: Notice,
    mtu_bytes: u16,
) -> Exit {
    let answer = Answer {
        notice,
        mtu_bytes,
        listener: decision.listener,
    };
    tell(tables, stop, answer)
}

/// What is remembered of the packet's flow; shows `note` its listener's policy.
#[inline(always)]
pub(crate) fn find<'t, T: Tables>(
    packet: &Packet,
    tables: &'t T,
    arrival: &Arrival,
    mut note: impl FnMut(ListenerPolicy),
) -> Found<'t> {
    flows::find(
        tables,
        arrival.place,
        &arrival.client,
        |choice, _| match tables.listener(choice.listener) {
            Some(listener) => {
                note(listener.policy());
                listener.is(packet.destination, packet.protocol, packet.destination_port)
            }
            None => false,
        },
    )
}

/// Which flow is it, and where does it go?
///
/// Where `ALL` is false only remembered flows are known. Where `QUIC` is true, `named` is what the
/// packet's connection ID says; where it is not, packets for QUIC listeners go on to
/// [`Stage::Quic`]. Where `SEARCHED` is true, the packet's flow was searched for in vain.
#[inline(always)]
pub(crate) fn decide<
    't,
    const ALL: bool,
    const QUIC: bool,
    const SEARCHED: bool,
    F: Frame,
    T: Tables,
>(
    frame: &F,
    packet: &Packet,
    tables: &'t T,
    arrival: &Arrival,
    named: TargetId,
) -> Result<Decision<'t>, Exit> {
    let mut policy = ListenerPolicy::default();
    let found = if SEARCHED {
        Found::NOTHING
    } else {
        find(packet, tables, arrival, |of_listener| {
            policy = of_listener;
        })
    };
    let mut progress = Progress::NONE;
    if let Some(entry) = found.entry {
        if !QUIC && policy.flags.is_quic() {
            return Err(Exit::Go(Stage::Quic));
        }
        progress = entry.progress();
        let state = progress.state;
        let choice = Choice::of_word(found.word);
        // Nearly all packets, which are spared the questions that such a flow has answered.
        if !ALL && !QUIC && progress.goes_on(arrival.now) && !opens_or_ends(packet) {
            return without_news(tables, found, progress);
        }
        if arrival.now.since(progress.last_seen) <= state.idle_ticks(policy.idle_ticks)
            && (!QUIC || goes_to(named, choice.target))
        {
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
                    has_news: true,
                    begins: false,
                    is_pinned: true,
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
        return Err(Exit::Go(if found.entry.is_some() {
            Stage::Begin
        } else {
            Stage::First
        }));
    }
    let listener = listener_of(packet, tables)?;
    if !QUIC && is_quic(tables, listener) {
        return Err(Exit::Go(Stage::Quic));
    }
    admission::admit(packet, tables, listener)?;
    let record = tables.listener(listener).ok_or(Stop::UnwrittenListener)?;
    let policy = record.policy();
    let on_change = tables.pins_on_change() && policy.flags.pins_on_change();
    let is_opening = opens(packet);
    if packet.protocol == protocol::TCP && !is_opening && !on_change {
        if found.entry.is_some() {
            stranded(packet, tables, listener, policy.expired, Stop::IdleExpired)?;
        } else {
            check::divert(packet, tables, listener, policy)?;
            stranded(packet, tables, listener, policy.stray, Stop::Stray)?;
        }
    }
    let (target, is_pinned) = if named == UNNAMED {
        select(frame, tables, packet, listener, is_opening)?
    } else {
        // Even if it takes no new flows: only the flow is new, the connection is not.
        (Chosen::of(tables, named)?, true)
    };
    // Only what a slot had before its change can be such a target.
    if on_change && target.control.resets_flows && packet.protocol == protocol::TCP && !is_opening {
        stranded(packet, tables, listener, Stranded::RESET, Stop::Terminated)?;
    }
    Ok(Decision {
        listener,
        target,
        entry: found,
        progress,
        state: if on_change && !is_opening {
            FlowState::RESUMED
        } else {
            FlowState::NEW
        },
        has_news: true,
        begins: true,
        // What is left of an older flow must not be taken for this one.
        is_pinned: is_pinned || found.entry.is_some(),
    })
}

/// The decision about a packet that has no news of its flow.
#[inline(always)]
fn without_news<'t, T: Tables>(
    tables: &'t T,
    entry: Found<'t>,
    progress: Progress,
) -> Result<Decision<'t>, Exit> {
    let choice = Choice::of_word(entry.word);
    let target = Chosen::of(tables, choice.target)?;
    if target.control.resets_flows {
        return Err(Exit::Go(Stage::Begin));
    }
    Ok(Decision {
        listener: choice.listener,
        target,
        entry,
        progress,
        state: progress.state,
        has_news: false,
        begins: false,
        is_pinned: true,
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
    if !policy.resets() || packet.tcp_flags & RST != 0 {
        return Err(Exit::Stop(stop));
    }
    let answer = Answer {
        notice: Notice::RESET,
        mtu_bytes: 0,
        listener,
    };
    Err(tell(tables, stop, answer))
}

/// Notes what a packet says of its flow, which is remembered already, and counts it.
#[inline(always)]
pub(crate) fn note<T: Tables>(
    packet: &Packet,
    tables: &T,
    arrival: &Arrival,
    decision: &Decision<'_>,
) {
    if decision.has_news
        && let Some(entry) = decision.entry.entry
    {
        let old = decision.progress;
        let new = old.after(decision.state, arrival.now, old.epoch);
        flows::note(tables, entry, old, new);
    }
    count(packet, tables, decision, PassageKind::Known);
}

/// Counts a packet that goes to its target.
#[inline(always)]
pub(crate) fn count<T: Tables>(
    packet: &Packet,
    tables: &T,
    decision: &Decision<'_>,
    kind: PassageKind,
) {
    tables.count(&Passage {
        listener: decision.listener,
        target: decision.target.id,
        length_bytes: packet.length_bytes,
        kind,
    });
}

/// The listener that a packet is addressed to.
#[inline(always)]
pub(crate) fn listener_of<T: Tables>(packet: &Packet, tables: &T) -> Result<ListenerId, Stop> {
    let key = ListenerKey::new(packet.destination, packet.protocol, packet.destination_port);
    tables.listener_id(&key).ok_or(Stop::NotOurs)
}

/// Whether the packet ends a connection at once.
#[inline(always)]
pub(crate) const fn resets(packet: &Packet) -> bool {
    packet.tcp_flags & RST != 0
}

/// Whether the packet asks for a new connection.
#[inline(always)]
pub(crate) const fn opens(packet: &Packet) -> bool {
    packet.protocol == protocol::TCP && packet.tcp_flags & (SYN | ACK) == SYN
}

/// Whether the packet opens or ends a connection, or one direction of it.
#[inline(always)]
pub(crate) const fn opens_or_ends(packet: &Packet) -> bool {
    packet.tcp_flags & (SYN | FIN | RST) != 0
}

/// How far a flow has come with one more packet of the client.
#[inline(always)]
pub(crate) fn advance(state: FlowState, packet: &Packet, mode: Mode) -> FlowState {
    let mut state = state;
    // In DSR modes no answer is seen; that the client goes on shows that there was one.
    if !opens(packet) && (state.has(FlowState::ANSWERED) || !mode.is_translated()) {
        state = state.with(FlowState::ESTABLISHED);
    }
    if packet.tcp_flags & FIN != 0 {
        state = state.with(FlowState::CLIENT_CLOSED);
    }
    if resets(packet) {
        state = state.with(FlowState::RESET);
    }
    state
}

/// The way to a target, if its next hop is known.
#[inline(always)]
pub(crate) fn known_way<T: Tables>(tables: &T, target: &Chosen<'_>) -> Option<NextHop> {
    let (next_hop, _) = tables.next_hop(target.control.next_hop)?.read()?;
    Some(next_hop)
}

/// The way to a target. Where its next hop is not known the routes are asked for the packet that
/// leaves, whose source is `source` if no tunnel gives it another.
#[inline(always)]
pub(crate) fn way<F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    source: Address,
    tables: &T,
    target: &Chosen<'_>,
) -> Result<NextHop, Exit> {
    if let Some(next_hop) = known_way(tables, target) {
        return Ok(next_hop);
    }
    let address = target.record.address();
    let mode = target.control.mode;
    let (source, protocol) = if mode.is_tunnel() {
        let source = tunnel::end(tables, target)?.source;
        (source, tunnel::outer_protocol(mode, packet))
    } else {
        (source, packet.protocol)
    };
    let found = tables.route(&RouteQuery {
        destination: address,
        source,
        interface: frame.interface(),
        traffic_class: packet.traffic_class,
        protocol,
    })?;
    if mode == Mode::DSR_L2 && found.neighbour != address {
        return Err(Exit::Stop(Stop::NotOnLink));
    }
    Ok(found.next_hop)
}
