//! One method for each shape that a value can have.

use std::time::Duration;

use toml::{
    Spanned,
    de::{DeInteger, DeValue},
};

use super::{
    super::{
        error::{Problem, Remedy, Shape},
        near_miss,
        report::{At, Spot},
        schema::{Absent, Kind},
    },
    Field, PortChoice, Reader, Table, WholeOrOff,
};

impl Reader<'_, '_> {
    pub(in crate::config) fn text(&mut self, table: &Table<'_>, name: &str) -> Field<String> {
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
    pub(in crate::config) fn secret(&mut self, table: &Table<'_>, name: &str) -> Field<String> {
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

    /// A list of at least one string; entries of another shape are recorded and left out.
    pub(in crate::config) fn texts(
        &mut self,
        table: &Table<'_>,
        name: &str,
    ) -> Field<Vec<At<String>>> {
        self.list_of_texts(table, name, false)
    }

    /// The same, where an empty list says something that leaving the key out does not.
    pub(in crate::config) fn texts_or_none(
        &mut self,
        table: &Table<'_>,
        name: &str,
    ) -> Field<Vec<At<String>>> {
        self.list_of_texts(table, name, true)
    }

    fn list_of_texts(
        &mut self,
        table: &Table<'_>,
        name: &str,
        may_be_empty: bool,
    ) -> Field<Vec<At<String>>> {
        let found = match self.find(table, name) {
            Ok(found) => found,
            Err(field) => return field,
        };
        let example = match name {
            "interfaces" => "[\"eth0\", \"eth1\"]",
            "sources" => "[\"10.0.0.0/8\"]",
            "health_check.command" => "[\"/usr/local/bin/check\", \"--fast\"]",
            _ => "[\"192.0.2.10\"]",
        };
        let Some(value) = found.value else {
            return Field::Absent;
        };
        let DeValue::Array(items) = value.get_ref() else {
            let remedy = Remedy::WriteTexts(example);
            return self.wrong(&found.spot, value.get_ref(), Shape::List, remedy);
        };
        if items.is_empty() && !may_be_empty {
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
    pub(in crate::config) fn word(&mut self, table: &Table<'_>, name: &str) -> Field<String> {
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

    pub(in crate::config) fn whole(&mut self, table: &Table<'_>, name: &str) -> Field<u64> {
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

    pub(in crate::config) fn seconds(&mut self, table: &Table<'_>, name: &str) -> Field<Duration> {
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

    pub(in crate::config) fn switch(&mut self, table: &Table<'_>, name: &str) -> Field<bool> {
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

    pub(in crate::config) fn port_choice(
        &mut self,
        table: &Table<'_>,
        name: &str,
    ) -> Field<PortChoice> {
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

    pub(in crate::config) fn whole_or_off(
        &mut self,
        table: &Table<'_>,
        name: &str,
    ) -> Field<WholeOrOff> {
        let found = match self.find(table, name) {
            Ok(found) => found,
            Err(field) => return field,
        };
        let Kind::WholeOrOff { min, max } = found.key.kind else {
            return Field::Wrong;
        };
        let remedy = Remedy::WriteWholeOrOff { min, max };
        let problem = match found.value.map(Spanned::get_ref) {
            None => return Field::Absent,
            Some(DeValue::String(text)) if text == "off" => {
                return written(WholeOrOff::Off, found.spot);
            }
            Some(value @ DeValue::String(_)) => match unquoted(value) {
                Some(number) => {
                    return self.wrong(&found.spot, value, Shape::Whole, Remedy::Write(number));
                }
                None => Problem::UnknownWord,
            },
            Some(DeValue::Integer(number)) => match integer(number) {
                Some(number) if (min..=max).contains(&number) => {
                    return written(WholeOrOff::Number(number), found.spot);
                }
                _ => Problem::OutOfRange,
            },
            Some(other) => return self.wrong(&found.spot, other, Shape::Whole, remedy),
        };
        self.report.fault(&found.spot, problem, remedy);
        Field::Wrong
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
