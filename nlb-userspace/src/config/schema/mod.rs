//! The table of every key a configuration may hold: its shape, range, default and meaning.
//!
//! One table serves three readers, so that they cannot disagree: `reader` takes shapes, ranges and
//! defaults from it, the near-miss search takes the known names, and the tables of
//! `docs/configuration.md` are printed from it and compared by a test. Rules that need more than
//! one key (references, compatible protocols) are not here but in `resolve`.

mod keys;

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    sync::LazyLock,
};

pub use self::keys::KEYS;

/// What may stand behind a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `[[key]]`, any number of times.
    Tables,
    /// A string, whose form the meaning describes.
    Text,
    /// A list of strings.
    Texts,
    /// One of a few words.
    Word {
        /// The words taken today.
        takes: &'static [&'static str],
        /// Words of NLB or of ours that are planned; each is refused with that explanation.
        later: &'static [&'static str],
    },
    /// An integer.
    Whole {
        /// Smallest value taken.
        min: u64,
        /// Largest value taken.
        max: u64,
    },
    /// An integer, or the word `off`.
    WholeOrOff {
        /// Smallest value taken.
        min: u64,
        /// Largest value taken.
        max: u64,
    },
    /// Seconds, as an integer or a float.
    Seconds {
        /// Shortest time taken, in milliseconds.
        min_millis: u64,
        /// Longest time taken, in milliseconds.
        max_millis: u64,
    },
    /// `true` or `false`.
    Switch,
    /// A table of strings under names of the operator's own.
    Tags,
    /// The word `traffic-port`, or a port number.
    Port,
}

/// What holds when a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Absence is a fault.
    Required,
    /// A string.
    Text(&'static str),
    /// An integer.
    Whole(u64),
    /// A time in milliseconds.
    Millis(u64),
    /// A boolean.
    Switch(bool),
    /// It depends on other keys, in these words.
    Depends(&'static str),
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Full dotted name, for example `target_group.health_check.interval_seconds`.
    pub path: &'static str,
    /// What may stand behind it.
    pub kind: Kind,
    /// What holds without it.
    pub absent: Absent,
    /// NLB's attribute or API name; empty where NLB has none.
    pub nlb: &'static str,
    /// One or two sentences for the reference.
    pub meaning: &'static str,
}

/// The key with this full dotted name.
pub fn find(path: &str) -> Option<&'static Key> {
    static BY_PATH: LazyLock<HashMap<&str, &Key>> =
        LazyLock::new(|| KEYS.iter().map(|key| (key.path, key)).collect());
    BY_PATH.get(path).copied()
}

/// `table.name`, or `name` at the top of the file.
pub fn join(table: &str, name: &str) -> String {
    if table.is_empty() {
        name.to_owned()
    } else {
        format!("{table}.{name}")
    }
}

/// Whether a key or a table of that full dotted name exists.
pub(in crate::config) fn is_known(path: &str) -> bool {
    // A large file asks a million times.
    static KNOWN: LazyLock<HashSet<&str>> = LazyLock::new(|| {
        let tables = |path: &'static str| path.match_indices('.').map(|(end, _)| &path[..end]);
        let keys = KEYS.iter().map(|key| key.path);
        keys.clone().chain(keys.flat_map(tables)).collect()
    });
    KNOWN.contains(path)
}

/// Names that may stand directly in the table of that full dotted name, each once.
pub fn names_in(table: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for key in KEYS {
        let rest = if table.is_empty() {
            Some(key.path)
        } else {
            key.path
                .strip_prefix(table)
                .and_then(|rest| rest.strip_prefix('.'))
        };
        if let Some(name) = rest.and_then(|rest| rest.split('.').next())
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

/// Milliseconds as a person writes seconds: `30`, `0.1`.
pub(in crate::config) fn seconds(millis: u64) -> String {
    let (whole, part) = (millis / 1_000, millis % 1_000);
    if part == 0 {
        whole.to_string()
    } else {
        format!("{whole}.{part:03}")
            .trim_end_matches('0')
            .to_owned()
    }
}

impl Key {
    fn shape(&self) -> &'static str {
        match self.kind {
            Kind::Tables => "tables",
            Kind::Text | Kind::Word { .. } => "string",
            Kind::Texts => "list of strings",
            Kind::Whole { .. } => "integer",
            Kind::Seconds { .. } => "integer or float",
            Kind::Switch => "boolean",
            Kind::Tags => "table of strings",
            Kind::Port | Kind::WholeOrOff { .. } => "string or integer",
        }
    }

    fn range(&self) -> String {
        match self.kind {
            Kind::Tables | Kind::Text | Kind::Texts | Kind::Tags => "see meaning".to_owned(),
            Kind::Switch => "`true`, `false`".to_owned(),
            Kind::Port => "`\"traffic-port\"`, 1 to 65535".to_owned(),
            Kind::Whole { min, max } => format!("{min} to {max}"),
            Kind::WholeOrOff { min, max } => format!("`\"off\"`, {min} to {max}"),
            Kind::Seconds {
                min_millis,
                max_millis,
            } => {
                format!("{} to {}", seconds(min_millis), seconds(max_millis))
            }
            Kind::Word { takes, later } => {
                let list = takes
                    .iter()
                    .map(|word| format!("`\"{word}\"`"))
                    .collect::<Vec<_>>()
                    .join(", ");
                if later.is_empty() {
                    return list;
                }
                let later = later
                    .iter()
                    .map(|word| format!("`{word}`"))
                    .collect::<Vec<_>>()
                    .join(", ");
                format!("{list} (not yet: {later})")
            }
        }
    }

    fn default_words(&self) -> String {
        match self.absent {
            Absent::Required => "required".to_owned(),
            Absent::Text(text) => format!("`\"{text}\"`"),
            Absent::Whole(number) => format!("`{number}`"),
            Absent::Millis(millis) => format!("`{}`", seconds(millis)),
            Absent::Switch(on) => format!("`{on}`"),
            Absent::Depends(words) => words.to_owned(),
        }
    }
}

/// The table of the reference for one section (`node`, `load_balancer` or `target_group`), as
/// Markdown: one row for each key whose name begins with it.
pub fn reference(section: &str) -> String {
    let mut text = String::from(
        "| Key | Type | Default | Range | NLB's name | Meaning |\n|---|---|---|---|---|---|\n",
    );
    for key in KEYS
        .iter()
        .filter(|key| key.path.split('.').next() == Some(section))
    {
        let nlb = if key.nlb.is_empty() {
            String::new()
        } else {
            format!("`{}`", key.nlb)
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {nlb} | {} |",
            key.path,
            key.shape(),
            key.default_words(),
            key.range(),
            key.meaning,
        );
    }
    text
}
