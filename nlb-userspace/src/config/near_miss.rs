//! The known word nearest to a mistyped one.

use super::schema::KEYS;

/// The candidate that was probably meant: equal but for case and separators, begun the same, or a
/// slip or two away.
pub(super) fn nearest<'c>(written: &str, candidates: &[&'c str]) -> Option<&'c str> {
    // Longer words are no slip, and the distance costs their product.
    if written.is_empty() || written.len() > 64 {
        return None;
    }
    let plain = fold(written);
    let best = candidates
        .iter()
        .map(|&candidate| {
            let folded = fold(candidate);
            let begun = plain.len() >= 4 && folded.starts_with(plain.as_slice());
            (
                if begun { 1 } else { distance(&plain, &folded) },
                folded.len(),
                candidate,
            )
        })
        .min_by_key(|&(slips, _, _)| slips);
    best.filter(|&(slips, length, _)| slips <= 2 && slips * 3 <= length.max(3))
        .map(|(_, _, candidate)| candidate)
}

/// The key under a table that carries this name in NLB's API, such as `HealthCheckPath`, as it is
/// written in that table.
pub(super) fn by_nlb_name(written: &str, table: &str) -> Option<&'static str> {
    KEYS.iter()
        .filter(|key| !key.nlb.is_empty() && key.nlb.eq_ignore_ascii_case(written))
        .find_map(|key| {
            if table.is_empty() {
                Some(key.path)
            } else {
                key.path.strip_prefix(table)?.strip_prefix('.')
            }
        })
}

fn fold(word: &str) -> Vec<char> {
    word.chars()
        .filter(|c| !matches!(c, '_' | '-' | '.' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let mut least = (above[j] + usize::from(x != y))
                .min(above[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = above;
        above = row;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_case_and_beginnings_are_near() {
        let keys = [
            "interval_seconds",
            "timeout_seconds",
            "protocol",
            "port",
            "enabled",
        ];
        assert_eq!(nearest("interval", &keys), Some("interval_seconds"));
        assert_eq!(nearest("protcol", &keys), Some("protocol"));
        assert_eq!(nearest("prot", &keys), Some("protocol"));
        assert_eq!(nearest("Timeout-Seconds", &keys), Some("timeout_seconds"));
        assert_eq!(nearest("enalbed", &keys), Some("enabled"));
    }

    #[test]
    fn other_words_are_not_near() {
        let keys = ["interval_seconds", "port"];
        assert_eq!(nearest("colour", &keys), None);
        assert_eq!(nearest("", &keys), None);
        assert_eq!(nearest("x", &keys), None);
    }
}
