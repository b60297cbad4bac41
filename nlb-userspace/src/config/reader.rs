//! A typed reader over a TOML tree that records what is wrong and reads on.
//!
//! Deserialising with serde would stop at the first wrong shape and hide the rest of the file's
//! faults, so tables are walked by hand. What a key may hold is not said here but in `schema`.

use std::time::Duration;

use toml::{
    Spanned,
    de::{DeInteger, DeTable, DeValue},
};

use super::{
    error::{Problem, Remedy, Shape},
    near_miss,
    report::{At, Report, Spot},
    schema::{self, Absent, Key, Kind},
};

/// What was found behind a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field<T> {
    /// Nothing, and there is no constant default.
    Absent,
    /// Something wrong, which has been recorded.
    Wrong,
    /// A value of the right shape and range, or the default.
    Value(At<T>),
}

impl<T> Field<T> {
    pub(super) fn value(&self) -> Option<&At<T>> {
        match self {
            Self::Value(at) => Some(at),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// The value alone.
    pub(super) fn copied(&self) -> Option<T>
    where
        T: Copy,
    {
        self.value().map(|at| at.value)
    }

    pub(super) const fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong)
    }
}

/// `traffic-port` or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortChoice {
    TrafficPort,
    Number(u64),
}

/// A table being read.
#[derive(Debug, Clone)]
pub(super) struct Table<'t> {
    pub(super) entries: &'t DeTable<'t>,
    /// Its dotted name in the schema; empty at the top.
    pub(super) schema: &'static str,
    /// Where it stands; its `field` is the prefix of all fields in it.
    pub(super) spot: Spot,
}

struct Found<'t> {
    key: &'static Key,
    spot: Spot,
    value: Option<&'t Spanned<DeValue<'t>>>,
}

/// Reads tables and records into a report.
#[derive(Debug)]
pub(super) struct Reader<'r, 'a> {
    pub(super) report: &'r mut Report<'a>,
}

impl Reader<'_, '_> {
    /// The top of the file; refuses unknown keys in every plain table below it.
    pub(super) fn top<'t>(&mut self, file: &'t Spanned<DeTable<'t>>) -> Table<'t> {
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
    pub(super) fn table<'t>(&mut self, top: &Table<'t>, name: &'static str) -> Option<Table<'t>> {
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
    pub(super) fn tables<'t>(
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

    pub(super) fn text(&mut self, table: &Table<'_>, name: &str) -> Field<String> {
        let found = match self.find(table, name) {
            Ok(found) => found,
            Err(field) => return field,
        };
        match found.value.map(Spanned::get_ref) {
            Some(DeValue::String(text)) => written(text.to_string(), found.spot),
            Some(other) => {
                let remedy = match other {
                    DeValue::Integer(number) => Remedy::Write(format!("\"{number}\"")),
                    _ => Remedy::WriteText,
                };
                self.wrong(&found.spot, other, Shape::Text, remedy)
            }
            None => match found.key.absent {
                Absent::Text(text) => default(text.to_owned(), found.spot),
                _ => Field::Absent,
            },
        }
    }

    /// A text that must not be shown again, not even when it is wrong.
    pub(super) fn secret(&mut self, table: &Table<'_>, name: &str) -> Field<String> {
        let found = match self.find(table, name) {
            Ok(found) => found,
            Err(field) => return field,
        };
        let spot = Spot {
            shown: false,
            ..found.spot
        };
        match found.value.map(Spanned::get_ref) {
            Some(DeValue::String(text)) => written(text.to_string(), spot),
            Some(other) => self.wrong(&spot, other, Shape::Text, Remedy::WriteText),
            None => Field::Absent,
        }
    }

    /// A list of strings; entries of another shape are recorded and left out.
    pub(super) fn texts(&mut self, table: &Table<'_>, name: &str) -> Field<Vec<At<String>>> {
        let found = match self.find(table, name) {
            Ok(found) => found,
            Err(field) => return field,
        };
        let example = if name == "interfaces" {
            "[\"eth0\", \"eth1\"]"
        } else {
            "[\"192.0.2.10\"]"
        };
        let Some(value) = found.value else {
            return Field::Absent;
        };
        let DeValue::Array(items) = value.get_ref() else {
            let remedy = Remedy::WriteTexts(example);
            return self.wrong(&found.spot, value.get_ref(), Shape::List, remedy);
        };
        if items.is_empty() {
            self.report
                .fault(&found.spot, Problem::Empty, Remedy::WriteTexts(example));
            return Field::Wrong;
        }
        let mut texts = Vec::new();
        for item in items {
            let spot = Spot {
                span: item.span(),
                field: found.spot.field.clone(),
                shown: true,
            };
            match item.get_ref() {
                DeValue::String(text) => {
                    texts.push(At {
                        value: text.to_string(),
                        spot,
                        written: true,
                    });
                }
                other => self.wrong_shape(&spot, other, Shape::Text, Remedy::WriteTexts(example)),
            }
        }
        written(texts, found.spot)
    }

    /// One of the words of the schema.
    pub(super) fn word(&mut self, table: &Table<'_>, name: &str) -> Field<String> {
        let found = match self.find(table, name) {
            Ok(found) => found,
            Err(field) => return field,
        };
        let Kind::Word { takes, later } = found.key.kind else {
            return Field::Wrong;
        };
        let text = match found.value.map(Spanned::get_ref) {
            Some(DeValue::String(text)) => text,
            Some(other) => {
                let remedy = Remedy::WriteWord(takes.to_vec());
                return self.wrong(&found.spot, other, Shape::Text, remedy);
            }
            None => {
                return match found.key.absent {
                    Absent::Text(text) => default(text.to_owned(), found.spot),
                    _ => Field::Absent,
                };
            }
        };
        if takes.contains(&text.as_ref()) {
            return written(text.to_string(), found.spot);
        }
        let (problem, remedy) = if later.contains(&text.as_ref()) {
            (Problem::NotYet, Remedy::WriteWord(takes.to_vec()))
        } else {
            let near = near_miss::nearest(text, takes);
            let words = near.map_or_else(|| takes.to_vec(), |near| vec![near]);
            (Problem::UnknownWord, Remedy::WriteWord(words))
        };
        self.report.fault(&found.spot, problem, remedy);
        Field::Wrong
    }

    pub(super) fn whole(&mut self, table: &Table<'_>, name: &str) -> Field<u64> {
        let found = match self.find(table, name) {
            Ok(found) => found,
            Err(field) => return field,
        };
        let Kind::Whole { min, max } = found.key.kind else {
            return Field::Wrong;
        };
        let remedy = Remedy::WriteWhole { min, max };
        match found.value.map(Spanned::get_ref) {
            Some(DeValue::Integer(number)) => match integer(number) {
                Some(number) if (min..=max).contains(&number) => written(number, found.spot),
                _ => {
                    self.report.fault(&found.spot, Problem::OutOfRange, remedy);
                    Field::Wrong
                }
            },
            Some(other) => {
                let remedy = unquoted(other).map_or(remedy, Remedy::Write);
                self.wrong(&found.spot, other, Shape::Whole, remedy)
            }
            None => match found.key.absent {
                Absent::Whole(number) => default(number, found.spot),
                _ => Field::Absent,
            },
        }
    }

    pub(super) fn seconds(&mut self, table: &Table<'_>, name: &str) -> Field<Duration> {
        let found = match self.find(table, name) {
            Ok(found) => found,
            Err(field) => return field,
        };
        let Kind::Seconds {
            min_millis,
            max_millis,
        } = found.key.kind
        else {
            return Field::Wrong;
        };
        let remedy = Remedy::WriteSeconds {
            min_millis,
            max_millis,
        };
        let time = match found.value.map(Spanned::get_ref) {
            Some(DeValue::Integer(number)) => integer(number).map(Duration::from_secs),
            Some(DeValue::Float(number)) => number
                .as_str()
                .parse()
                .ok()
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            Some(other) => {
                let remedy = unquoted(other).map_or(remedy, Remedy::Write);
                return self.wrong(&found.spot, other, Shape::Number, remedy);
            }
            None => {
                return match found.key.absent {
                    Absent::Millis(millis) => default(Duration::from_millis(millis), found.spot),
                    _ => Field::Absent,
                };
            }
        };
        let range = Duration::from_millis(min_millis)..=Duration::from_millis(max_millis);
        if let Some(time) = time.filter(|time| range.contains(time)) {
            return written(time, found.spot);
        }
        self.report.fault(&found.spot, Problem::OutOfRange, remedy);
        Field::Wrong
    }

    pub(super) fn switch(&mut self, table: &Table<'_>, name: &str) -> Field<bool> {
        let found = match self.find(table, name) {
            Ok(found) => found,
            Err(field) => return field,
        };
        match found.value.map(Spanned::get_ref) {
            Some(&DeValue::Boolean(on)) => written(on, found.spot),
            Some(other) => self.wrong(&found.spot, other, Shape::Switch, Remedy::WriteSwitch),
            None => match found.key.absent {
                Absent::Switch(on) => default(on, found.spot),
                _ => Field::Absent,
            },
        }
    }

    pub(super) fn port_choice(&mut self, table: &Table<'_>, name: &str) -> Field<PortChoice> {
        let found = match self.find(table, name) {
            Ok(found) => found,
            Err(field) => return field,
        };
        let problem = match found.value.map(Spanned::get_ref) {
            None => return default(PortChoice::TrafficPort, found.spot),
            Some(DeValue::String(text)) if text == "traffic-port" => {
                return written(PortChoice::TrafficPort, found.spot);
            }
            Some(value @ DeValue::String(_)) => match unquoted(value) {
                Some(number) => {
                    return self.wrong(&found.spot, value, Shape::Whole, Remedy::Write(number));
                }
                None => Problem::UnknownWord,
            },
            Some(DeValue::Integer(number)) => match integer(number) {
                Some(number @ 1..=65_535) => {
                    return written(PortChoice::Number(number), found.spot);
                }
                _ => Problem::OutOfRange,
            },
            Some(other) => {
                return self.wrong(&found.spot, other, Shape::Whole, Remedy::WritePort);
            }
        };
        self.report.fault(&found.spot, problem, Remedy::WritePort);
        Field::Wrong
    }

    /// A key of NLB that is refused for now, whatever its value.
    pub(super) fn not_yet(&mut self, table: &Table<'_>, name: &str) {
        if let Ok(Found {
            spot,
            value: Some(_),
            ..
        }) = self.find::<()>(table, name)
        {
            self.report.fault(&spot, Problem::NotYet, Remedy::Remove);
        }
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

    pub(super) fn wrong_shape(
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

fn written<T>(value: T, spot: Spot) -> Field<T> {
    Field::Value(At {
        value,
        spot,
        written: true,
    })
}

fn default<T>(value: T, spot: Spot) -> Field<T> {
    Field::Value(At {
        value,
        spot,
        written: false,
    })
}

/// The number if it is not negative and fits.
fn integer(number: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str().trim_start_matches('+'), number.radix()).ok()
}

/// The number inside a string that is nothing else.
fn unquoted(value: &DeValue<'_>) -> Option<String> {
    let text = value.as_str()?;
    let digits = !text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.to_owned())
}

/// A line to copy when a required key is missing.
fn example(key: &Key) -> &'static str {
    match key.path {
        "node.interfaces" => "[\"eth0\"]",
        "load_balancer.addresses" => "[\"192.0.2.10\"]",
        "target_group.target.address" => "\"10.0.0.11\"",
        _ => match key.kind {
            Kind::Word { .. } => "\"TCP\"",
            Kind::Whole { .. } => "80",
            _ => "\"web\"",
        },
    }
}
