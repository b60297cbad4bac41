//! What each optional feature costs: where no listener has it, where another one has it, and where the
//! packet's own one has.

use std::sync::LazyLock;

use anyhow::Result;
use nlb_tests::bench::{
    feature::Feature,
    frames,
    kind::LISTENER_PORT,
    markdown::Markdown,
    scene::{Path, Scene, Who},
};

/// Instructions of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Costs {
    pub(crate) nobody: u64,
    pub(crate) other: u64,
    pub(crate) own: u64,
}

/// A feature's costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) feature: Feature,
    /// Of a packet of an established flow.
    pub(crate) known: Costs,
    /// Of a flow's first packet.
    pub(crate) new: Costs,
}

/// How many instructions a feature of another listener may cost.
pub(crate) const fn granted(feature: Feature) -> u64 {
    match feature {
        // A packet whose listener is among those has no entry: so this is asked before.
        Feature::PinningOnChange => 30,
        // Where there is a pool, a new flow of `nat` may need a source of it, which is asked.
        Feature::Pool => 5,
        _ => 1,
    }
}

/// Every feature, counted once for all tests.
pub(crate) fn counted() -> &'static [Row] {
    static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
        let rows = Feature::ALL.into_iter().map(row);
        rows.collect::<Result<_>>()
            .expect("flows begin with every feature")
    });
    &ROWS
}

fn row(feature: Feature) -> Result<Row> {
    let count = |who| -> Result<(u64, u64)> {
        let kind = feature.kind();
        let mut scene = Scene::with(kind, feature, who)?;
        let later = frames::to_port(kind, LISTENER_PORT, false)?;
        let new = scene.count(&frames::to_port(kind, LISTENER_PORT, true)?, Path::New)?;
        if !(feature == Feature::PinningOnChange && who == Who::Own) {
            scene.establish()?;
        }
        let known = scene.count(&later, Path::Known)?;
        Ok((known.instructions, new.instructions))
    };
    let (nobody, other, own) = (count(Who::Nobody)?, count(Who::Other)?, count(Who::Own)?);
    let costs = |of: fn((u64, u64)) -> u64| Costs {
        nobody: of(nobody),
        other: of(other),
        own: of(own),
    };
    Ok(Row {
        feature,
        known: costs(|(known, _)| known),
        new: costs(|(_, new)| new),
    })
}

/// The rows as they stand in the documentation.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = Markdown::new([
        "feature",
        "established: nobody",
        "another",
        "own",
        "new: nobody",
        "another",
        "own",
    ]);
    for row in rows {
        let [nobody, other, own] = cells(&row.known);
        let [new_nobody, new_other, new_own] = cells(&row.new);
        let name = row.feature.name().into();
        table.row([name, nobody, other, own, new_nobody, new_other, new_own]);
    }
    table.finish()
}

/// What it is where nobody has the feature, and how much more otherwise.
fn cells(costs: &Costs) -> [String; 3] {
    let Costs { nobody, other, own } = *costs;
    let more = |count: u64| format!("{:+}", count.cast_signed() - nobody.cast_signed());
    [nobody.to_string(), more(other), more(own)]
}
