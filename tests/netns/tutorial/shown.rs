//! Whether what was printed is what the page shows. `…` stands for any text of a line, and for any
//! number of lines where nothing else is in its line; widths of columns are of no interest.

/// What stands for what is different each time.
const ANYTHING: &str = "…";

/// Whether `printed` is what `shown` says.
pub(super) fn is_shown(shown: &str, printed: &str) -> bool {
    let shown: Vec<String> = shown.lines().map(words).collect();
    let printed: Vec<String> = printed.lines().map(words).collect();
    lines_match(&shown, &printed)
}

/// A line with one space between its words.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn lines_match(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line == ANYTHING => {
            (0..=printed.len()).any(|skipped| lines_match(rest, &printed[skipped..]))
        }
        Some((line, rest)) => printed
            .split_first()
            .is_some_and(|(first, others)| line_matches(line, first) && lines_match(rest, others)),
    }
}

fn line_matches(shown: &str, printed: &str) -> bool {
    let Some((start, rest)) = shown.split_once(ANYTHING) else {
        return shown == printed;
    };
    let Some(printed) = printed.strip_prefix(start) else {
        return false;
    };
    let ends = printed.char_indices().map(|(index, _)| index);
    ends.chain([printed.len()])
        .any(|skipped| line_matches(rest, &printed[skipped..]))
}

#[test]
fn an_ellipsis_is_any_text_of_a_line_or_any_number_of_lines() {
    for (shown, printed) in [
        ("generation … is live\n", "generation 12 is live\n"),
        ("… hello from web1\n", "      9 hello from web1\n"),
        ("STATE    NAME\nup  …\n", "STATE  NAME\nup     a:80\n"),
        ("first\n…\nlast\n", "first\nlast\n"),
        ("first\n…\nlast\n", "first\nsecond\nlast\nlast\n"),
        ("…\n", ""),
    ] {
        assert!(is_shown(shown, printed), "{shown}{printed}");
    }
}

#[test]
fn everything_else_is_taken_at_its_word() {
    for (shown, printed) in [
        ("generation … is live\n", "generation 12 is not live\n"),
        ("hello from web1\n", "hello from web1\nhello from web1\n"),
        ("hello from web1\nhello from web2\n", "hello from web1\n"),
        ("first\n…\nlast\n", "first\nsecond\n"),
        ("no packet was stopped\n", ""),
        ("", "curl: (7) failed\n"),
    ] {
        assert!(!is_shown(shown, printed), "{shown}{printed}");
    }
}
