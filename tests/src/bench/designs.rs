//! Flow tables of several designs, looked up on equal terms: the same parser, the same clients in
//! the same pseudo-random order, and a hash of the same cost.

use anyhow::{Result, ensure};
use nlb_common::{bench::Order, target::Mode, wire::protocol::TCP};

use super::{
    Effort,
    harness::{ClientEnd, Harness, Stream, TRANSMIT, Tables},
    kind::{Kind, LISTENER_PORT},
    report::Row,
    short,
};
use crate::packet::eth;

/// Equal capacity: 4M entries each.
const EQUAL_CAPACITY: Tables = Tables {
    exact: 4 << 20,
    tags: 4 << 20,
    lru: 4 << 20,
};
/// As much memory as 4M exact entries take, 128 MiB; the kernel's table takes 120 bytes per entry.
const EQUAL_MEMORY: Tables = Tables {
    exact: 4 << 20,
    tags: 8 << 20,
    lru: 1 << 20,
};
/// No more than is needed to load the programs.
pub const NO_TABLES: Tables = Tables {
    exact: 4,
    tags: 4,
    lru: 64,
};

const DESIGNS: [(&str, &str, &str); 3] = [
    ("exact", "EXACT", "exact, 32 bytes"),
    ("tag", "TAGS", "tag, 16 bytes"),
    ("lru", "LRU", "kernel LRU_HASH"),
];

fn stream(is_v6: bool, flows: u32) -> Result<Stream> {
    let client = if is_v6 { "2001:db8:c::" } else { "10.0.0.0" };
    let vip = kind(is_v6).vip();
    Ok(Stream {
        frame: eth()
            .ip(client.parse()?, vip.parse()?)
            .tcp(40_000, LISTENER_PORT)
            .payload(&[0x2a; 64])
            .build(),
        is_v6,
        client: ClientEnd::Source,
        order: if flows == 1 {
            Order::Fixed
        } else {
            Order::Random
        },
        flows,
    })
}

const fn kind(is_v6: bool) -> Kind {
    Kind {
        mode: Mode::NAT,
        is_v6,
        protocol: TCP,
    }
}

/// Measures every design at every number of flows, at equal capacity and at equal memory.
pub fn measure(effort: Effort) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for is_v6 in [false, true] {
        for (tables, terms) in [(EQUAL_CAPACITY, "4M entries"), (EQUAL_MEMORY, "128 MiB")] {
            // The tables' flows all name listener 1.
            let mut harness = Harness::load(tables, &[kind(is_v6).key()?])?;
            if terms == "4M entries" {
                floor(&mut harness, is_v6, effort, &mut rows)?;
            }
            for (design, map, title) in DESIGNS {
                if terms != "4M entries" && design == "exact" {
                    continue;
                }
                let entries = match design {
                    "exact" => tables.exact,
                    "tag" => tables.tags,
                    _ => tables.lru,
                };
                let mebibytes = harness.memory_bytes(map)? >> 20;
                let mut loaded = 0;
                for flows in effort.flows.iter().copied() {
                    // Well below its capacity the kernel's table may already forget live flows.
                    if design == "lru" && flows > entries / 2 {
                        continue;
                    }
                    insert(&mut harness, design, is_v6, loaded, flows)?;
                    loaded = flows;
                    let name = format!(
                        "{title}, {} entries in {mebibytes} MiB, {}, {} flows",
                        short(entries),
                        if is_v6 { "v6" } else { "v4" },
                        short(flows)
                    );
                    rows.push(look_up(&mut harness, design, is_v6, flows, effort, name)?);
                }
            }
        }
    }
    Ok(rows)
}

fn floor(harness: &mut Harness, is_v6: bool, effort: Effort, rows: &mut Vec<Row>) -> Result<()> {
    let version = if is_v6 { "v6" } else { "v4" };
    let flows = effort.flows.iter().copied().max().unwrap_or(1);
    let name = format!("parser and hash only, {version}, {} flows", short(flows));
    rows.push(look_up(harness, "nothing", is_v6, flows, effort, name)?);
    Ok(())
}

fn insert(harness: &mut Harness, design: &str, is_v6: bool, from: u32, to: u32) -> Result<()> {
    let program = harness.program(&format!("insert_{design}"))?;
    let stream = stream(is_v6, to)?.sequential();
    // One packet at least is what the harness sends besides the counted ones.
    let packets = (to - from).max(2) - 1;
    harness.run(&program, &stream, from.into(), packets)?;
    harness.take_found()?;
    Ok(())
}

fn look_up(
    harness: &mut Harness,
    design: &str,
    is_v6: bool,
    flows: u32,
    effort: Effort,
    name: String,
) -> Result<Row> {
    let program = harness.program(&format!("lookup_{design}"))?;
    let stream = stream(is_v6, flows)?;
    let (mut strays, mut total) = (0, 0);
    let cost = harness.measure(&program, &stream, 0, effort, |harness, said, packets| {
        let missing = u64::from(packets) - harness.take_found()?;
        ensure!(
            missing * 1_000 <= u64::from(packets),
            "`{name}`: {missing} of {packets} packets found no flow"
        );
        ensure!(
            missing > 0 || said == TRANSMIT,
            "`{name}`: the program said {said}"
        );
        strays += missing;
        total += u64::from(packets);
        Ok(())
    })?;
    Ok(Row::new(name, cost, None, strays, total))
}
