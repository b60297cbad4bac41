//! What is shown, and what keys do to it. Pure: a status and a key in, what to do out.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use ratatui::crossterm::event::KeyCode;

use super::measure::{Rates, rate};
use crate::status::{Counters, Status};

/// Looks that the history has: four minutes.
const HISTORY: usize = 240;

/// What a key asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Nothing but to be drawn anew.
    Nothing,
    /// To end.
    Quit,
    /// To drain a target.
    Drain {
        /// Its group.
        group: String,
        /// Its address and port.
        target: String,
    },
}

/// What rows are sorted by, the largest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// Packets in a second.
    #[default]
    Packets,
    /// Flows that began in a second.
    NewFlows,
    /// Flows that are remembered.
    Flows,
    /// How long health checks take.
    Latency,
    /// Names, from A to Z.
    Name,
}

impl Sort {
    /// As the last line names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::NewFlows => "new flows",
            Self::Flows => "flows",
            Self::Latency => "check",
            Self::Name => "name",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Packets => Self::NewFlows,
            Self::NewFlows => Self::Flows,
            Self::Flows => Self::Latency,
            Self::Latency => Self::Name,
            Self::Name => Self::Packets,
        }
    }
}

/// A listener, or a target.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The load balancer's or the target group's name.
    pub of: String,
    /// Its own.
    pub name: String,
    /// A target's health.
    pub state: String,
    /// A target's share of new flows.
    pub weight: f64,
    /// What goes by.
    pub rates: Rates,
    /// Flows that are remembered.
    pub flows: u64,
    /// How long a target's last health check took, in seconds.
    pub latency: Option<f64>,
    counters: Counters,
}

/// Everything that is shown.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The daemon, in a line.
    pub title: String,
    /// Warnings of the status.
    pub warnings: usize,
    /// Packets in a second, the newest last.
    pub history: VecDeque<u64>,
    /// Stops that happen, the most frequent first, with how often in a second.
    pub stops: Vec<(String, f64)>,
    /// What is typed to filter by.
    pub filter: String,
    /// Whether keys are typed into it.
    pub is_typing: bool,
    /// What rows are sorted by.
    pub sort: Sort,
    /// The target that `d` was pressed on, and `y` drains.
    pub drains: Option<(String, String)>,
    /// What came of the last key.
    pub notice: String,
    listeners: Vec<Row>,
    targets: Vec<Row>,
    selected: usize,
    counted: BTreeMap<String, u64>,
    at: Duration,
}

impl State {
    /// The first look: totals are known, rates are not.
    pub fn new(status: &Status, at: Duration) -> Self {
        let mut state = Self {
            at,
            ..Self::default()
        };
        state.take(status, at);
        state.history.clear();
        state
    }

    /// One more look.
    pub fn take(&mut self, status: &Status, at: Duration) {
        let elapsed = at.saturating_sub(self.at);
        self.at = at;
        self.title = format!(
            "nlb {}  generation {}  flows {} of {}",
            status.version, status.generation, status.flows.active, status.flows.capacity
        );
        self.warnings = status.warnings.len();
        let listeners = status.load_balancers.iter().flat_map(|balancer| {
            balancer.listeners.iter().map(|listener| Row {
                of: balancer.name.clone(),
                name: listener.name.clone(),
                flows: listener.active_flows,
                counters: listener.counters,
                ..Row::default()
            })
        });
        self.listeners = measured(&self.listeners, listeners, elapsed);
        let targets = status.target_groups.iter().flat_map(|group| {
            group.targets.iter().map(|target| Row {
                of: group.name.clone(),
                name: SocketAddr::new(target.address, target.port).to_string(),
                state: target.state.clone(),
                weight: target.effective_weight,
                flows: target.active_flows,
                latency: target.probe_latency_seconds,
                counters: target.counters,
                ..Row::default()
            })
        });
        self.targets = measured(&self.targets, targets, elapsed);
        let counts = status
            .stops
            .iter()
            .map(|stop| (stop.name.clone(), stop.count));
        let counted: BTreeMap<String, u64> = counts.collect();
        self.stops = (counted.iter())
            .map(|(name, count)| {
                let before = self.counted.get(name).unwrap_or(count);
                (name.clone(), rate(*before, *count, elapsed))
            })
            .filter(|(_, rate)| *rate > 0.0)
            .collect();
        self.stops
            .sort_by(|(_, one), (_, other)| other.total_cmp(one));
        self.counted = counted;
        let packets: f64 = self.listeners.iter().map(|row| row.rates.packets).sum();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rates are positive, and far below 2^64"
        )]
        self.history.push_back(packets as u64);
        while self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    /// Listeners, as they are to be shown.
    pub fn listeners(&self) -> Vec<&Row> {
        self.shown(&self.listeners)
    }

    /// Targets, as they are to be shown.
    pub fn targets(&self) -> Vec<&Row> {
        self.shown(&self.targets)
    }

    /// Which of the targets that are shown is selected.
    pub fn selected(&self) -> usize {
        self.selected.min(self.targets().len().saturating_sub(1))
    }

    fn shown<'r>(&self, rows: &'r [Row]) -> Vec<&'r Row> {
        let mut rows: Vec<&Row> = (rows.iter())
            .filter(|row| {
                let texts = [&row.of, &row.name, &row.state];
                texts.iter().any(|text| text.contains(&self.filter))
            })
            .collect();
        let by = |row: &Row| match self.sort {
            Sort::Packets => row.rates.packets,
            Sort::NewFlows => row.rates.new_flows,
            #[expect(clippy::cast_precision_loss, reason = "only compared")]
            Sort::Flows => row.flows as f64,
            Sort::Latency => row.latency.unwrap_or_default(),
            Sort::Name => 0.0,
        };
        rows.sort_by(|one, other| {
            let names = (&one.of, &one.name).cmp(&(&other.of, &other.name));
            by(other).total_cmp(&by(one)).then(names)
        });
        rows
    }

    /// Says something in the last line.
    pub fn say(&mut self, notice: String) {
        self.notice = notice;
    }

    /// What a key does.
    pub fn key(&mut self, key: KeyCode) -> Asked {
        self.notice.clear();
        if self.is_typing {
            match key {
                KeyCode::Enter => self.is_typing = false,
                KeyCode::Esc => {
                    self.is_typing = false;
                    self.filter.clear();
                }
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(letter) => self.filter.push(letter),
                _ => {}
            }
            return Asked::Nothing;
        }
        if let Some((group, target)) = self.drains.take() {
            if key == KeyCode::Char('y') {
                return Asked::Drain { group, target };
            }
            return Asked::Nothing;
        }
        let last = self.targets().len().saturating_sub(1);
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Asked::Quit,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected().saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected() + 1).min(last),
            KeyCode::Char('d') => {
                let row = self.targets().get(self.selected()).copied();
                self.drains = row.map(|row| (row.of.clone(), row.name.clone()));
            }
            _ => {}
        }
        Asked::Nothing
    }
}

/// The rows with what went by since the look before.
fn measured(before: &[Row], now: impl Iterator<Item = Row>, elapsed: Duration) -> Vec<Row> {
    let known: BTreeMap<(&str, &str), &Row> = before
        .iter()
        .map(|row| ((row.of.as_str(), row.name.as_str()), row))
        .collect();
    now.map(|row| {
        let rates = known
            .get(&(row.of.as_str(), row.name.as_str()))
            .map(|old| Rates::between(&old.counters, &row.counters, elapsed));
        Row {
            rates: rates.unwrap_or_default(),
            ..row
        }
    })
    .collect()
}
