//! Tags: the one table whose keys are the operator's own.

use toml::{Spanned, de::DeValue};

use super::{
    super::{
        error::{Problem, Remedy, Shape},
        report::Spot,
        schema,
    },
    Reader, Table,
};

/// NLB's limits, of characters and of tags.
const KEY: usize = 128;
const VALUE: usize = 256;
const TAGS: usize = 50;

impl Reader<'_, '_> {
    /// Looks tags over. The packet path has no use for them: whoever wants them reads the document.
    pub(in crate::config) fn tags(&mut self, table: &Table<'_>, name: &str) {
        let field = schema::join(&table.spot.field, name);
        let Some(tags) = table.entries.get(name) else {
            return;
        };
        let spot = |value: &Spanned<DeValue<'_>>, field| Spot {
            span: value.span(),
            field,
            shown: true,
        };
        let DeValue::Table(entries) = tags.get_ref() else {
            let remedy = Remedy::WriteTable(schema::join(table.schema, name));
            self.wrong_shape(&spot(tags, field), tags.get_ref(), Shape::Table, remedy);
            return;
        };
        if entries.len() > TAGS {
            let spot = Spot {
                shown: false,
                ..spot(tags, field.clone())
            };
            let problem = Problem::TooManyTags(entries.len());
            self.report.fault(&spot, problem, Remedy::RemoveSome);
        }
        for (key, value) in entries {
            let field = format!("{field}.{:?}", key.get_ref());
            if key.get_ref().is_empty() || !is_tag(key.get_ref(), KEY) {
                let spot = Spot {
                    span: key.span(),
                    field: field.clone(),
                    shown: false,
                };
                self.report
                    .fault(&spot, Problem::TagKey, Remedy::WriteTagKey);
            }
            let spot = spot(value, field);
            match value.get_ref() {
                DeValue::String(text) if is_tag(text, VALUE) => {}
                DeValue::String(_) => {
                    self.report
                        .fault(&spot, Problem::TagValue, Remedy::WriteTagValue);
                }
                other => self.wrong_shape(&spot, other, Shape::Text, Remedy::WriteText),
            }
        }
    }
}

fn is_tag(text: &str, most: usize) -> bool {
    let is_taken = |c: char| {
        c.is_alphanumeric()
            || c == ' '
            || matches!(c, '_' | '.' | ':' | '/' | '=' | '+' | '-' | '@')
    };
    text.chars().count() <= most && text.chars().all(is_taken)
}
