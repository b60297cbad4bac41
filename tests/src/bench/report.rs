//! What was measured, as a table and as JSON.

use std::fmt;

use serde_json::{Value, json};

use super::{harness::Cost, markdown::Markdown, path::ENCAPSULATION_FLOOR as FLOOR, short};

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title {
    /// The path.
    pub what: String,
    /// How many flows take it; 0 where that does not matter.
    pub flows: u32,
}

impl From<String> for Title {
    fn from(what: String) -> Self {
        Self { what, flows: 0 }
    }
}

impl fmt::Display for Title {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match self.flows {
            0 => Ok(()),
            1 => f.write_str(", 1 flow"),
            flows => write!(f, ", {} flows", short(flows)),
        }
    }
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    title: Title,
    cost: Cost,
    goal_ns: Option<f64>,
    strays: u64,
    packets: u64,
}

impl Row {
    /// `strays` of `packets` counted packets took another path than the row's.
    pub fn new(
        title: impl Into<Title>,
        cost: Cost,
        goal_ns: Option<f64>,
        strays: u64,
        packets: u64,
    ) -> Self {
        Self {
            title: title.into(),
            cost,
            goal_ns,
            strays,
            packets,
        }
    }

    /// What it is about.
    pub const fn title(&self) -> &Title {
        &self.title
    }

    /// What it costs.
    pub const fn cost(&self) -> Cost {
        self.cost
    }

    /// What we want to reach.
    pub const fn goal_ns(&self) -> Option<f64> {
        self.goal_ns
    }

    /// The row for machines.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.title.to_string(),
            "min_ns": tenths(self.cost.min_ns),
            "median_ns": tenths(self.cost.median_ns),
            "baseline_ns": tenths(self.cost.baseline_ns),
            "goal_ns": self.goal_ns,
            "packets": self.packets,
            "strays": self.strays,
        })
    }
}

fn tenths(ns: f64) -> f64 {
    (ns * 10.0).round() / 10.0
}

/// Rows under a title.
pub struct Table<'t> {
    /// What the rows have in common.
    pub title: &'t str,
    /// The rows.
    pub rows: &'t [Row],
}

impl Table<'_> {
    /// The median of the row that others are multiples of, if there is one and it is above zero.
    fn floor_ns(&self) -> Option<f64> {
        let floor = self.rows.iter().find(|row| row.title.what == FLOOR)?;
        Some(floor.cost.median_ns).filter(|ns| *ns > 0.0)
    }

    /// The table as it stands in the report.
    pub fn to_markdown(&self) -> String {
        let mut table = Markdown::new([
            self.title,
            "least, ns",
            "median, ns",
            "times the floor",
            "goal",
        ]);
        let floor_ns = self.floor_ns();
        for row in self.rows {
            let Cost {
                min_ns, median_ns, ..
            } = row.cost;
            let shown = |ns: f64| format!("{:.1}", tenths(ns).max(0.0));
            let times = floor_ns.map(|floor| format!("{:.1}", median_ns / floor));
            let goal = row.goal_ns.map(|goal| {
                let met = if median_ns <= goal { ", met" } else { "" };
                format!("≤ {goal}{met}")
            });
            table.row([
                row.title.to_string(),
                shown(min_ns),
                shown(median_ns),
                times.unwrap_or_default(),
                goal.unwrap_or_default(),
            ]);
        }
        table.finish()
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.title.to_string().len());
        let width = width.max();
        let width = width.unwrap_or_default().max(self.title.len());
        writeln!(
            f,
            "{:width$}  {:>7}  {:>7}  {:>7}  {:>6}",
            self.title, "min", "median", "floors", "goal"
        )?;
        let floor_ns = self.floor_ns();
        for row in self.rows {
            let Cost {
                min_ns, median_ns, ..
            } = row.cost;
            // A floor may come out a shade below zero, which is zero.
            let (min_ns, median_ns) = (tenths(min_ns).max(0.0), tenths(median_ns).max(0.0));
            let name = row.title.to_string();
            write!(f, "{name:width$}  {min_ns:>7.1}  {median_ns:>7.1}")?;
            match floor_ns {
                Some(floor) => write!(f, "  {:>7.1}", median_ns / floor)?,
                None => write!(f, "  {:>7}", "")?,
            }
            match row.goal_ns {
                Some(goal) if min_ns <= goal => write!(f, "  {goal:>6}  met")?,
                Some(goal) => write!(f, "  {goal:>6}  {:.1} times", min_ns / goal)?,
                None => {}
            }
            if row.strays > 0 {
                write!(f, "  ({} of {} strayed)", row.strays, row.packets)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
