//! That no text whatever makes the reader of configurations panic.

use std::fs;

use nlb_userspace::config;
use proptest::prelude::*;

const FULL: &str = include_str!("full.toml");

/// Pieces that mutated files are made of, besides slices of the file itself.
const PIECES: &[&str] = &[
    "",
    "0",
    "-1",
    "99999999999999999999",
    "nan",
    "1e400",
    "true",
    "\"\"",
    "\"é\u{0}\"",
    "[]",
    "{}",
    "[[",
    "]]",
    "=",
    ".",
    "\n",
    "[node]",
    "[load_balancer]",
    "[[target_group.target]]",
    "\"TCP_UDP\"",
    "\"::1\"",
    "2026-01-01",
    "'''",
    "# ",
    "🦀",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        drop(config::parse("nlb.toml", &text));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nlb.toml");
        fs::write(&path, bytes).unwrap();
        drop(config::load(&path));
    }

    #[test]
    fn a_mutated_file_is_judged_without_panic_and_always_alike(
        cuts in proptest::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..12, prop::sample::select(PIECES)),
            1..6,
        ),
    ) {
        let mut text: Vec<char> = FULL.chars().collect();
        for (at, length, piece) in cuts {
            let at = at.index(text.len() + 1);
            let end = (at + length).min(text.len());
            text.splice(at..end, piece.chars());
        }
        let text: String = text.into_iter().collect();
        let first = config::parse("nlb.toml", &text);
        prop_assert_eq!(&first, &config::parse("nlb.toml", &text));
        if let Err(faults) = first {
            prop_assert!(faults.len() > 0);
            for fault in &faults {
                let place = fault.position.unwrap();
                prop_assert!(place.line <= text.matches('\n').count() + 1);
                prop_assert!(!fault.to_string().contains('\n'));
            }
        }
    }

    #[test]
    fn values_of_any_shape_anywhere_are_judged_without_panic(
        line in any::<prop::sample::Index>(),
        piece in prop::sample::select(PIECES),
    ) {
        let lines: Vec<&str> = FULL.lines().collect();
        let chosen = line.index(lines.len());
        let text: String = lines
            .iter()
            .enumerate()
            .map(|(index, line)| match line.split_once('=') {
                Some((key, _)) if index == chosen => format!("{key}= {piece}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        drop(config::parse("nlb.toml", &text));
    }
}
