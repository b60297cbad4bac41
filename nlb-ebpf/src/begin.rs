//! From the client to a listener, for packets whose flow is not simply forwarded: the first of a
//! flow, above all. What is decided here is done in [`crate::depart`].

use nlb_common::{
    flow::FlowState,
    stop::Stop,
    target::{Mode, TargetId},
    tick::Tick,
};

use crate::{
    Exit, Stage, Verdict,
    classify::{forgotten, may_be_an_answer},
    cookie::{answer, pressure},
    depart::{Begins, Decided},
    frame::Frame,
    parse::{Packet, parse},
    snat,
    tables::Tables,
    to_target::{Arrival, Decision, UNNAMED, decide, opens},
};

/// The stage of packets that may be for a listener and need more than forwarding.
#[inline(always)]
pub fn begin<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    any::<false, F, T>(frame, tables)
}

/// The same for packets whose flow was searched for in vain: that is not done again.
#[inline(always)]
pub fn first<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    any::<true, F, T>(frame, tables)
}

#[inline(always)]
fn any<const SEARCHED: bool, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
) -> Result<Verdict, Exit> {
    let packet = parse(frame)?;
    frame.forget_ends();
    match begin_at::<false, SEARCHED, F, T>(frame, &forgotten(packet, tables), tables, UNNAMED) {
        Exit::Stop(Stop::NotOurs) if may_be_an_answer(&packet, tables) => {
            Err(Exit::Go(Stage::Back))
        }
        exit => Err(exit),
    }
}

/// Decides where a packet goes. Where `QUIC` is true, `named` is what the packet's connection ID
/// says, or [`UNNAMED`]; where it is not, packets for QUIC listeners go on to [`Stage::Quic`]. Where
/// `SEARCHED` is true, the packet's flow was searched for in vain.
#[inline(always)]
pub(crate) fn begin_at<const QUIC: bool, const SEARCHED: bool, F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &T,
    named: TargetId,
) -> Exit {
    match decided::<QUIC, SEARCHED, F, T>(frame, packet, tables, named) {
        Ok(decided) => decided.go(tables),
        Err(exit) => exit,
    }
}

#[inline(always)]
fn decided<const QUIC: bool, const SEARCHED: bool, F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &T,
    named: TargetId,
) -> Result<Decided, Exit> {
    let arrival = Arrival::of(packet, tables);
    let decision = decide::<true, QUIC, SEARCHED, F, T>(frame, packet, tables, &arrival, named)?;
    if tables.translates_sources() && decision.state.has(FlowState::SOURCE_TRANSLATED) {
        return Err(Exit::Go(Stage::SnatKnown));
    }
    if decision.state.has(FlowState::SEQUENCE_TRANSLATED) {
        return Err(Exit::Go(Stage::SequenceKnown));
    }
    let needs_source = decision.begins && snat::needs_source(packet, tables, &arrival, &decision)?;
    // What needs a source of ours begins without: the stages of either know nothing of the other's.
    if !needs_source
        && decision.begins
        && opens(packet)
        && has_cookies(tables, &decision, arrival.now)
    {
        return Err(answer::go(tables, decision.listener, decision.target.id));
    }
    Ok(Decided {
        listener: decision.listener,
        target: decision.target.id,
        begins: Begins::of(&decision),
        is_unseen: SEARCHED,
        needs_source,
    })
}

/// Whether a flow to this target begins with a SYN cookie; asked once for each SYN, because it may be
/// counted.
#[inline(always)]
fn has_cookies<T: Tables>(tables: &T, decision: &Decision<'_>, now: Tick) -> bool {
    tables.makes_cookies()
        && decision.target.control.mode == Mode::NAT
        && match tables.listener(decision.listener) {
            Some(listener) => listener.policy().flags.has_syn_cookies(),
            None => false,
        }
        && pressure::is_high(tables, decision.listener, now)
}
