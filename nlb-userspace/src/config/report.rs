//! Where faults and warnings are gathered, and how places in the file are found again.

use std::ops::Range;

use super::error::{Fault, Position, Problem, Remedy, Suspicion, Warning};

/// How much of a value a message shows, in characters.
const SHOWN: usize = 60;

/// A place in the file and the key that stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    /// Bytes of the value, or of the table that lacks it.
    pub(super) span: Range<usize>,
    /// The key, with names instead of indices.
    pub(super) field: String,
    /// Whether the bytes are a value to be shown.
    pub(super) shown: bool,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    /// The value, or the default.
    pub(super) value: T,
    /// Its place.
    pub(super) spot: Spot,
    /// Whether a person wrote it; false for a default.
    pub(super) written: bool,
}

/// The file being read and everything found in it so far.
#[derive(Debug)]
pub(super) struct Report<'a> {
    name: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Warning>,
}

impl<'a> Report<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            name,
            text,
            line_starts,
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Line and column of a byte.
    pub(super) fn position(&self, at: usize) -> Position {
        let at = at.min(self.text.len());
        let line = self.line_starts.partition_point(|&start| start <= at);
        let start = self
            .line_starts
            .get(line.saturating_sub(1))
            .copied()
            .unwrap_or(0);
        let before = self.text.get(start..at).unwrap_or("");
        Position {
            line,
            column: before.chars().count() + 1,
        }
    }

    /// Line of a spot.
    pub(super) fn line(&self, spot: &Spot) -> usize {
        self.position(spot.span.start).line
    }

    pub(super) fn fault(&mut self, spot: &Spot, problem: Problem, remedy: Remedy) {
        let value = if spot.shown {
            self.shown(&spot.span)
        } else {
            None
        };
        self.faults.push(Fault {
            file: self.name.to_owned(),
            position: Some(self.position(spot.span.start)),
            field: spot.field.clone(),
            value,
            problem,
            remedy,
        });
    }

    pub(super) fn warn(&mut self, spot: &Spot, suspicion: Suspicion) {
        self.warnings.push(Warning {
            file: self.name.to_owned(),
            position: self.position(spot.span.start),
            field: spot.field.clone(),
            suspicion,
        });
    }

    /// The value as written, on one line and not too long.
    fn shown(&self, span: &Range<usize>) -> Option<String> {
        let written = self.text.get(span.clone())?;
        let mut shown: String = written
            .chars()
            .take(SHOWN)
            .map(|c| if c.is_control() || c == '`' { ' ' } else { c })
            .collect();
        if written.chars().nth(SHOWN).is_some() {
            shown.push('…');
        }
        Some(shown)
    }
}
