//! The statuses that pass an HTTP health check (NLB's `Matcher.HttpCode`).

use std::{fmt, ops::RangeInclusive};

use super::error::Problem;

/// Ranges of HTTP statuses within 200 to 599, in order and apart from each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCodes(Vec<RangeInclusive<u16>>);

impl HttpCodes {
    /// Reads a list of statuses and ranges, such as `200,202,300-399`.
    pub(super) fn from_text(text: &str) -> Result<Self, Problem> {
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let part = part.trim();
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Some(first), Some(last)) = (status(first), status(last)) else {
                return Err(Problem::MatcherPart(part.chars().take(20).collect()));
            };
            if let Some(outside) = [first, last].into_iter().find(|s| !(200..=599).contains(s)) {
                return Err(Problem::MatcherStatus(outside));
            }
            if last < first {
                return Err(Problem::MatcherBackwards { first, last });
            }
            ranges.push(first..=last);
        }
        ranges.sort_by_key(|range| *range.start());
        let mut joined: Vec<RangeInclusive<u16>> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(before) if *range.start() <= *before.end() + 1 => {
                    *before = *before.start()..=*before.end().max(range.end());
                }
                _ => joined.push(range),
            }
        }
        Ok(Self(joined))
    }

    /// The statuses that pass, as ranges in order that neither overlap nor touch.
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }

    /// Whether a check answered with this status has passed.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for HttpCodes {
    /// NLB's default, 200 to 399.
    fn default() -> Self {
        Self(vec![200..=399])
    }
}

impl fmt::Display for HttpCodes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if range.start() == range.end() {
                write!(out, "{comma}{}", range.start())?;
            } else {
                write!(out, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

fn status(digits: &str) -> Option<u16> {
    let digits = digits.trim();
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_put_in_order_and_joined() -> Result<(), Problem> {
        let codes = HttpCodes::from_text("404, 200-204,205,203-210")?;
        assert_eq!(codes.to_string(), "200-210,404");
        assert!(codes.contains(200) && codes.contains(210) && codes.contains(404));
        assert!(!codes.contains(211) && !codes.contains(199));
        Ok(())
    }
}
