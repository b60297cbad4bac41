//! What a packet costs: the benchmark behind `cargo xtask bench`.
//!
//! * [`harness`]: runs a program a million times on fresh packets, and reads the clock.
//! * [`kind`]: kinds of listeners, and what the daemon would be asked for to have them.
//! * [`frames`]: the packets.
//! * [`subject`]: the load balancer's own program, over maps filled as the daemon fills them.
//! * [`path`]: the rows of the packet path.
//! * [`admission`]: listeners with rules and limits, whose rows stand beside those without.
//! * [`designs`]: flow tables of several designs, looked up on equal terms.
//! * [`feature`]: what a listener need not have.
//! * [`scene`]: the same kinds and packets in memory, where instructions are counted.
//! * [`flows`]: flows that are there before.
//! * [`report`]: the table, and JSON; [`document`]: the parts of the documentation that are written from it.
//!
//! Nothing is pinned and no interface is touched: every next hop is known and leads back through
//! the loopback interface of the caller's namespace, whose index the kernel gives to test packets.

pub mod admission;
pub mod change;
pub mod designs;
pub mod disruption;
pub mod document;
pub mod feature;
pub mod flows;
pub mod forwarding;
pub mod frames;
pub mod harness;
pub mod kind;
pub mod markdown;
pub mod path;
pub mod plot;
pub mod publish;
pub mod report;
pub mod scale;
pub mod scene;
pub mod subject;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds of each row; subject and baseline take turns.
    pub rounds: usize,
    /// Packets of a round.
    pub packets: u32,
    /// Numbers of live flows.
    pub flows: &'static [u32],
    /// Whether UDP is measured in every mode, and not in `nat` alone.
    pub all_udp: bool,
    /// SYNs of the flood that live flows are measured under.
    pub flood: u32,
}

impl Effort {
    /// Every row.
    pub const FULL: Self = Self {
        rounds: 15,
        packets: 200_000,
        flows: &[1, 10_000, 100_000, 1_000_000],
        all_udp: true,
        flood: 10_000_000,
    };
    /// Fewer rows and rounds: to see whether something has become slower.
    pub const QUICK: Self = Self {
        rounds: 7,
        packets: 100_000,
        flows: &[1, 100_000],
        all_udp: false,
        flood: 10_000_000,
    };
}

/// 1,000,000 as `1M`.
pub fn short(number: u32) -> String {
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => format!("{}k", number / 1_000),
        _ => format!("{}M", number / 1_000_000),
    }
}
