//! What was measured, as a table and as JSON.

use std::fmt;

use serde_json::{Value, json};

use super::harness::Cost;

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    name: String,
    cost: Cost,
    goal_ns: Option<f64>,
    strays: u64,
    packets: u64,
}

impl Row {
    /// `strays` of `packets` counted packets took another path than the row's.
    pub const fn new(
        name: String,
        cost: Cost,
        goal_ns: Option<f64>,
        strays: u64,
        packets: u64,
    ) -> Self {
        Self {
            name,
            cost,
            goal_ns,
            strays,
            packets,
        }
    }

    /// The row for machines.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
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

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max();
        let width = width.unwrap_or_default().max(self.title.len());
        writeln!(
            f,
            "{:width$}  {:>7}  {:>7}  {:>6}",
            self.title, "min", "median", "goal"
        )?;
        for row in self.rows {
            let Cost {
                min_ns, median_ns, ..
            } = row.cost;
            // A floor may come out a shade below zero, which is zero.
            let (min_ns, median_ns) = (tenths(min_ns).max(0.0), tenths(median_ns).max(0.0));
            write!(f, "{:width$}  {min_ns:>7.1}  {median_ns:>7.1}", row.name)?;
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
