//! Words with wildcards: `*` is any run of characters, also an empty one, `?` is any one character.
//!
//! Neither knows of separators, as in identity-based policies: `target-group/web*` is also
//! `target-group/web/target/10.0.0.11:80`.

/// A word with wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// This one; every text is a pattern.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether a word is like it.
    pub fn matches(&self, word: &str) -> bool {
        matches(&self.0, word)
    }
}

/// Whether a word is like a pattern. Takes at most as many steps as both lengths multiplied, whatever
/// the pattern: only the last `*` is ever tried anew, for those before it have matched as soon as they
/// could, and that leaves the most for the rest.
pub(super) fn matches(pattern: &str, word: &str) -> bool {
    let (mut pattern, mut word) = (pattern.chars(), word.chars());
    // After the last `*`, and the word from where that one's run may end.
    let mut again: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let mut rest = pattern.clone();
        match (rest.next(), word.clone().next()) {
            (Some('*'), _) => {
                again = Some((rest.clone(), word.clone()));
                pattern = rest;
                continue;
            }
            (Some(expected), Some(found)) if expected == '?' || expected == found => {
                pattern = rest;
                word.next();
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        let Some((after, from)) = &mut again else {
            return false;
        };
        // The run takes one more.
        if from.next().is_none() {
            return false;
        }
        (pattern, word) = (after.clone(), from.clone());
    }
}
