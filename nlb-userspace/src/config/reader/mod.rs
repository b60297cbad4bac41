//! A typed reader over a TOML tree that records what is wrong and reads on.
//!
//! Deserialising with serde would stop at the first wrong shape and hide the rest of the file's
//! faults, so tables are walked by hand. What a key may hold is not said here but in `schema`.

mod tags;
mod values;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    error::{Problem, Remedy, Shape},
    report::{At, Report, Spot},
    schema::{self, Absent, Key, Kind},
};

/// What was found behind a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum Field<T> {
    /// Nothing, and there is no constant default.
    Absent,
    /// Something wrong, which has been recorded.
    Wrong,
    /// A value of the right shape and range, or the default.
    Value(At<T>),
}

impl<T> Field<T> {
    pub(in crate::config) fn value(&self) -> Option<&At<T>> {
        match self {
            Self::Value(at) => Some(at),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// The value alone.
    pub(in crate::config) fn copied(&self) -> Option<T>
    where
        T: Copy,
    {
        self.value().map(|at| at.value)
    }

    /// The same field with its value as something else.
    pub(in crate::config) fn map<U>(self, to: impl FnOnce(T) -> U) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Wrong => Field::Wrong,
            Self::Value(At {
                value,
                spot,
                written,
            }) => Field::Value(At {
                value: to(value),
                spot,
                written,
            }),
        }
    }
}

/// `traffic-port` or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum PortChoice {
    TrafficPort,
    Number(u64),
}

/// A number, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum WholeOrOff {
    Off,
    Number(u64),
}

impl WholeOrOff {
    pub(in crate::config) const fn number(self) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::Number(number) => Some(number),
        }
    }
}

/// A table being read.
#[derive(Debug, Clone)]
pub(in crate::config) struct Table<'t> {
    pub(in crate::config) entries: &'t DeTable<'t>,
    /// Its dotted name in the schema; empty at the top.
    pub(in crate::config) schema: &'static str,
    /// Where it stands; its `field` is the prefix of all fields in it.
    pub(in crate::config) spot: Spot,
}

struct Found<'t> {
    key: &'static Key,
    spot: Spot,
    value: Option<&'t Spanned<DeValue<'t>>>,
}

/// Reads tables and records into a report.
#[derive(Debug)]
pub(in crate::config) struct Reader<'r, 'a> {
    pub(in crate::config) report: &'r mut Report<'a>,
}

impl Reader<'_, '_> {
    /// The top of the file; refuses unknown keys in every plain table below it.
    pub(in crate::config) fn top<'t>(&mut self, file: &'t Spanned<DeTable<'t>>) -> Table<'t> {
        let spot = Spot {
            span: 0..0,
            field: String::new(),
            shown: false,
        };
        self.refuse_unknown(file.get_ref(), "", "");
        Table {
            entries: file.get_ref(),
            schema: "",
            spot,
        }
    }

    /// A table that stands once, by its name at the top; a required one that is absent is a fault.
    pub(in crate::config) fn table<'t>(
        &mut self,
        top: &Table<'t>,
        name: &'static str,
    ) -> Option<Table<'t>> {
        let Some(value) = top.entries.get(name) else {
            if top.has_mistyped(name) {
                return None;
            }
            let spot = Spot {
                span: 0..0,
                field: name.to_owned(),
                shown: false,
            };
            let example = format!("[{name}]");
            self.report
                .fault(&spot, Problem::Missing, Remedy::Write(example));
            return None;
        };
        let spot = Spot {
            span: value.span(),
            field: name.to_owned(),
            shown: false,
        };
        // Another shape has been recorded by `top`.
        let entries = value.get_ref().as_table()?;
        Some(Table {
            entries,
            schema: name,
            spot,
        })
    }

    /// Every `[[name]]` of a table, each with the name that `label` finds in it or its number.
    pub(in crate::config) fn tables<'t>(
        &mut self,
        table: &Table<'t>,
        name: &str,
        label: fn(&DeTable<'_>) -> Option<String>,
    ) -> Vec<Table<'t>> {
        let path = schema::join(table.schema, name);
        let Some(key) = schema::find(&path) else {
            return Vec::new();
        };
        let field = schema::join(&table.spot.field, name);
        let Some(value) = table.entries.get(name) else {
            return Vec::new();
        };
        let spot = Spot {
            span: value.span(),
            field: field.clone(),
            shown: false,
        };
        let mut found = Vec::new();
        match value.get_ref() {
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let mut spot = Spot {
                        span: item.span(),
                        ..spot.clone()
                    };
                    let Some(entries) = item.get_ref().as_table() else {
                        spot.shown = true;
                        self.wrong_shape(&spot, item.get_ref(), Shape::Table, {
                            Remedy::WriteTables(key.path.to_owned())
                        });
                        continue;
                    };
                    spot.field = match label(entries) {
                        Some(label) => format!("{field} \"{label}\""),
                        None => format!("{field} #{}", index + 1),
                    };
                    self.refuse_unknown(entries, key.path, &spot.field);
                    found.push(Table {
                        entries,
                        schema: key.path,
                        spot,
                    });
                }
            }
            DeValue::Table(entries) => {
                let remedy = Remedy::WriteTables(key.path.to_owned());
                self.report.fault(&spot, Problem::SingleTable, remedy);
                self.refuse_unknown(entries, key.path, &field);
                found.push(Table {
                    entries,
                    schema: key.path,
                    spot,
                });
            }
            other => {
                let spot = Spot {
                    shown: true,
                    ..spot
                };
                let remedy = Remedy::WriteTables(key.path.to_owned());
                self.wrong_shape(&spot, other, Shape::Table, remedy);
            }
        }
        found
    }

    /// Goes down a dotted name. `Err` is the answer if there is nothing to read.
    fn find<'t, T>(&mut self, table: &Table<'t>, name: &str) -> Result<Found<'t>, Field<T>> {
        let path = schema::join(table.schema, name);
        let Some(key) = schema::find(&path) else {
            return Err(Field::Wrong);
        };
        let field = schema::join(&table.spot.field, name);
        let mut entries = table.entries;
        let mut span = table.spot.span.clone();
        let mut parts = name.split('.').peekable();
        while let Some(part) = parts.next() {
            let Some(value) = entries.get(part) else {
                break;
            };
            if parts.peek().is_none() {
                let spot = Spot {
                    span: value.span(),
                    field,
                    shown: true,
                };
                return Ok(Found {
                    key,
                    spot,
                    value: Some(value),
                });
            }
            // Another shape has been recorded by `refuse_unknown`.
            entries = value.get_ref().as_table().ok_or(Field::Wrong)?;
            span = value.span();
        }
        let spot = Spot {
            span,
            field,
            shown: false,
        };
        if key.absent == Absent::Required {
            // A mistyped name has been recorded by `refuse_unknown`, with this key for a remedy.
            if table.has_mistyped(name) {
                return Err(Field::Wrong);
            }
            let example = format!("{name} = {}", example(key));
            self.report
                .fault(&spot, Problem::Missing, Remedy::Write(example));
            return Err(Field::Wrong);
        }
        Ok(Found {
            key,
            spot,
            value: None,
        })
    }

    fn wrong<T>(
        &mut self,
        spot: &Spot,
        found: &DeValue<'_>,
        wanted: Shape,
        remedy: Remedy,
    ) -> Field<T> {
        self.wrong_shape(spot, found, wanted, remedy);
        Field::Wrong
    }

    pub(in crate::config) fn wrong_shape(
        &mut self,
        spot: &Spot,
        found: &DeValue<'_>,
        wanted: Shape,
        remedy: Remedy,
    ) {
        let found = match found {
            DeValue::String(_) => Shape::Text,
            DeValue::Integer(_) => Shape::Whole,
            DeValue::Float(_) => Shape::Number,
            DeValue::Boolean(_) => Shape::Switch,
            DeValue::Datetime(_) => Shape::Date,
            DeValue::Array(_) => Shape::List,
            DeValue::Table(_) => Shape::Table,
        };
        // The bytes of a table are its header, which is no value.
        let spot = Spot {
            shown: spot.shown && found != Shape::Table,
            ..spot.clone()
        };
        self.report
            .fault(&spot, Problem::WrongShape { found, wanted }, remedy);
    }
}

/// A line to copy when a required key is missing.
fn example(key: &Key) -> &'static str {
    match key.path {
        "node.interfaces" => "[\"eth0\"]",
        "access_role.role" => "\"operator\"",
        "access_statement.actions" => "[\"targets:*\"]",
        "access_statement.effect" | "load_balancer.rule.action" => "\"allow\"",
        "load_balancer.rule.sources" => "[\"10.0.0.0/8\"]",
        "load_balancer.addresses" => "[\"192.0.2.10\"]",
        "target_group.target.address" => "\"10.0.0.11\"",
        _ => match key.kind {
            Kind::Word { .. } => "\"TCP\"",
            Kind::Whole { .. } => "80",
            _ => "\"web\"",
        },
    }
}
