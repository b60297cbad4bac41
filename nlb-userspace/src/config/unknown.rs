//! Keys that mean nothing where they stand, and what was probably meant.

use toml::de::{DeTable, DeValue};

use super::{
    error::{Problem, Remedy, Shape},
    near_miss,
    reader::{Reader, Table},
    report::Spot,
    schema,
};

impl Reader<'_, '_> {
    /// Records keys that mean nothing in a table and in the plain tables under it.
    pub(super) fn refuse_unknown(&mut self, entries: &DeTable<'_>, schema: &str, field: &str) {
        for (name, value) in entries {
            let path = schema::join(schema, name.get_ref());
            let field = schema::join(field, &shown_key(name.get_ref()));
            if !schema::is_known(&path) {
                let spot = Spot {
                    span: name.span(),
                    field,
                    shown: false,
                };
                let remedy = instead_of(name.get_ref(), schema);
                self.report.fault(&spot, Problem::UnknownKey, remedy);
            } else if schema::find(&path).is_none() {
                if let DeValue::Table(entries) = value.get_ref() {
                    self.refuse_unknown(entries, &path, &field);
                } else {
                    let spot = Spot {
                        span: value.span(),
                        field,
                        shown: true,
                    };
                    let remedy = Remedy::WriteTable(path);
                    self.wrong_shape(&spot, value.get_ref(), Shape::Table, remedy);
                }
            }
        }
    }
}

impl Table<'_> {
    /// Whether an unknown key here is taken for a mistyped `name`.
    pub(super) fn has_mistyped(&self, name: &str) -> bool {
        self.entries.keys().any(|other| {
            let other = other.get_ref();
            !schema::is_known(&schema::join(self.schema, other))
                && instead_of(other, self.schema) == Remedy::DidYouMean(name.to_owned())
        })
    }
}

/// A key as it would be written, shortened.
fn shown_key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.len() <= 60 && name.chars().all(bare) {
        return name.to_owned();
    }
    let short: String = name.chars().take(60).collect();
    format!("{short:?}")
}

/// What to do about an unknown key: the near miss in its table, the same name in another table, or
/// the list of what is known.
fn instead_of(name: &str, table: &str) -> Remedy {
    if let Some(near) = near_miss::by_nlb_name(name, table) {
        return Remedy::DidYouMean(near.to_owned());
    }
    let known = schema::names_in(table);
    if let Some(near) = near_miss::nearest(name, &known) {
        return Remedy::DidYouMean(near.to_owned());
    }
    let elsewhere = schema::KEYS
        .iter()
        .filter_map(|key| key.path.rsplit_once('.'))
        .find(|&(_, last)| last == name)
        .map(|(table, _)| table);
    match elsewhere {
        Some(table) => Remedy::BelongsIn(table.to_owned()),
        None => Remedy::KnownHere(known),
    }
}
