//! The paths: one row for each kind of packet, of listeners without any optional feature.

use std::sync::LazyLock;

use anyhow::Result;
use nlb_common::{stop::Stop, target::Mode, wire::protocol::TCP};
use nlb_tests::{
    bench::{
        feature::Feature,
        frames,
        kind::{Kind, LISTENER_PORT},
        markdown::Markdown,
        scene::{Path, Scene, Who},
    },
    machine::Work,
};

/// A row: what the packet is, and what it took.
pub(crate) type Row = (String, Work);

const NAT_V4: Kind = Kind {
    mode: Mode::NAT,
    is_v6: false,
    protocol: TCP,
};

/// Every path, counted once for all tests.
pub(crate) fn counted() -> &'static [Row] {
    static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| count().expect("every path is what it is"));
    &ROWS
}

fn count() -> Result<Vec<Row>> {
    let mut rows = not_ours()?;
    // Of UDP one mode: the others differ from TCP by as little.
    for kind in Kind::all().filter(|kind| kind.protocol == TCP || kind.mode == Mode::NAT) {
        rows.extend(flow(kind)?);
    }
    for kind in Kind::all().filter(|kind| kind.protocol == TCP) {
        if kind.may_settle() {
            rows.push(by_the_ring(kind)?);
        }
        rows.push(error(kind)?);
    }
    for kind in Kind::all().filter(|kind| kind.mode == Mode::NAT) {
        if kind.protocol == TCP {
            rows.extend([blocked(kind)?, table_full(kind)?, echo(kind)?]);
        } else {
            rows.extend(fragments(kind)?);
        }
    }
    Ok(rows)
}

fn not_ours() -> Result<Vec<Row>> {
    let mut scene = Scene::plain(NAT_V4)?;
    let mut rows = vec![(
        "not ours, arp".into(),
        scene.count(&frames::arp(), Path::NotOurs)?,
    )];
    for (version, is_v6) in [("v4", false), ("v6", true)] {
        let work = scene.count(&frames::to_nobody(is_v6)?, Path::NotOurs)?;
        rows.push((format!("not ours, {version} tcp"), work));
    }
    Ok(rows)
}

/// A flow's first packet, a later one, and an answer where it comes this way.
fn flow(kind: Kind) -> Result<Vec<Row>> {
    let mut scene = Scene::plain(kind)?;
    let opening = frames::to_port(kind, LISTENER_PORT, true)?;
    let later = frames::to_port(kind, LISTENER_PORT, false)?;
    let new = scene.count(&opening, Path::New)?;
    scene.establish()?;
    let mut rows = vec![(kind.title("new"), new)];
    rows.push((kind.title("hit"), scene.count(&later, Path::Known)?));
    if kind.mode.is_translated() {
        let reached = scene.pass(&later);
        let back = scene.count(&frames::answer_to(kind, &reached)?, Path::Return)?;
        rows.push((kind.title("return"), back));
    }
    Ok(rows)
}

/// A listener that pins on change, whose ring has settled.
fn by_the_ring(kind: Kind) -> Result<Row> {
    let mut scene = Scene::with(kind, Feature::PinningOnChange, Who::Own)?;
    let packet = frames::to_port(kind, LISTENER_PORT, false)?;
    Ok((
        kind.title("by the ring"),
        scene.count(&packet, Path::Known)?,
    ))
}

/// A first packet that a rule forbids.
fn blocked(kind: Kind) -> Result<Row> {
    let mut scene = Scene::with(kind, Feature::Refusal, Who::Own)?;
    let opening = frames::to_port(kind, LISTENER_PORT, true)?;
    let work = scene.count(&opening, Path::Stopped(Stop::BlockedTcp))?;
    Ok((kind.title("blocked by a rule"), work))
}

/// A first packet where all entries hold live flows.
fn table_full(kind: Kind) -> Result<Row> {
    let mut scene = Scene::plain(kind)?;
    scene.fill_up()?;
    let opening = frames::to_port(kind, LISTENER_PORT, true)?;
    let work = scene.count(&opening, Path::Stopped(Stop::FlowTableFull))?;
    Ok((kind.title("table full"), work))
}

/// An ICMP error about an established flow.
fn error(kind: Kind) -> Result<Row> {
    let mut scene = Scene::plain(kind)?;
    scene.pass(&frames::to_port(kind, LISTENER_PORT, true)?);
    scene.establish()?;
    let work = scene.count(&frames::error_about(kind)?, Path::Known)?;
    Ok((kind.title("icmp error"), work))
}

fn echo(kind: Kind) -> Result<Row> {
    let mut scene = Scene::plain(kind)?;
    let work = scene.count(&frames::echo(kind)?, Path::Stopped(Stop::IcmpEcho))?;
    Ok((format!("echo answered, {}", kind.version()), work))
}

fn fragments(kind: Kind) -> Result<[Row; 2]> {
    let mut scene = Scene::plain(kind)?;
    scene.pass(&frames::to_port(kind, LISTENER_PORT, true)?);
    scene.establish()?;
    let [first, later] = frames::fragments(kind)?;
    let row = |what, work| (format!("{what} fragment, {}", kind.version()), work);
    let first = row("first", scene.count(&first, Path::Known)?);
    Ok([first, row("later", scene.count(&later, Path::Known)?)])
}

/// The rows as they stand in the documentation.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = Markdown::new(["packet", "instructions", "helpers", "programs"]);
    for (name, work) in rows {
        table.row([
            name.clone(),
            work.instructions.to_string(),
            work.helper_calls.to_string(),
            (work.tail_calls + 1).to_string(),
        ]);
    }
    table.finish()
}
