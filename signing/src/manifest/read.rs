//! Reading one TOML table key by key while faults add up. Refuses nothing by itself:
//! what is missing or wrong becomes a fault, and reading goes on.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::fault::{Faults, choices};

/// A table under `path`, and the place where its faults go.
pub(super) struct Table<'a> {
    path: String,
    table: &'a toml::Table,
    faults: &'a mut Faults,
}

/// A key that may be absent: `None` without a fault then.
pub(super) struct Optional<'t, 'a> {
    table: &'t mut Table<'a>,
    there: bool,
}

impl<'a> Table<'a> {
    pub(super) fn new(path: &str, table: &'a toml::Table, faults: &'a mut Faults) -> Self {
        Self { path: path.to_owned(), table, faults }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A fault of the table itself.
    pub(super) fn fault(&mut self, value: &str, wanted: &str) {
        self.faults.add(self.path.clone(), value, wanted);
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(super) fn optional(&mut self, key: &str) -> Optional<'_, 'a> {
        let there = self.has(key);
        Optional { table: self, there }
    }

    /// Every other key is a fault.
    pub(super) fn known(&mut self, keys: &[&str]) {
        for key in self.table.keys().filter(|key| !keys.contains(&key.as_str())) {
            let path = self.key(key);
            self.faults.add(path, "an unknown key", choices(keys));
        }
    }

    fn get<T>(&mut self, key: &str, wanted: &str, read: impl Fn(&toml::Value) -> Option<T>) -> Option<T> {
        let value = self.table.get(key);
        let read = value.and_then(read);
        if read.is_none() {
            let found = value.map_or_else(|| "nothing".to_owned(), shown);
            let path = self.key(key);
            self.faults.add(path, found, wanted);
        }
        read
    }

    pub(super) fn text(&mut self, key: &str, wanted: &str, valid: impl Fn(&str) -> bool) -> Option<String> {
        self.get(key, wanted, |value| value.as_str().filter(|text| valid(text)).map(str::to_owned))
    }

    pub(super) fn number(&mut self, key: &str, min: u32, max: u32) -> Option<u32> {
        self.get(key, &format!("a whole number from {min} to {max}"), |value| {
            value.as_integer().and_then(|n| u32::try_from(n).ok()).filter(|n| (min..=max).contains(n))
        })
    }

    pub(super) fn table<T>(&mut self, key: &str, read: impl FnOnce(&mut Table<'_>) -> T) -> Option<T> {
        match self.table.get(key) {
            Some(toml::Value::Table(table)) => {
                Some(read(&mut Table { path: self.key(key), table, faults: self.faults }))
            }
            other => {
                let found = other.map_or_else(|| "nothing".to_owned(), shown);
                let path = self.key(key);
                self.faults.add(path, found, "a table");
                None
            }
        }
    }

    /// Each entry of the table `key`, which must be tables themselves.
    pub(super) fn each(&mut self, key: &str, wanted: &str, mut read: impl FnMut(&str, &mut Table<'_>)) {
        let Some(toml::Value::Table(entries)) = self.table.get(key) else {
            let found = self.table.get(key).map_or_else(|| "nothing".to_owned(), shown);
            let path = self.key(key);
            self.faults.add(path, found, wanted);
            return;
        };
        for (name, entry) in entries {
            let path = format!("{}.{name}", self.key(key));
            match entry {
                toml::Value::Table(table) => read(name, &mut Table { path, table, faults: self.faults }),
                other => self.faults.add(path, shown(other), "a table"),
            }
        }
    }

    /// The whole table as a type that refuses unknown keys itself.
    pub(super) fn typed<T: DeserializeOwned>(&mut self) -> Option<T> {
        match self.table.clone().try_into() {
            Ok(read) => Some(read),
            Err(error) => {
                self.faults.add(self.path.clone(), shown(&toml::Value::Table(self.table.clone())), error.message());
                None
            }
        }
    }

    /// The whole table as JSON.
    pub(super) fn json(&mut self) -> Map<String, Value> {
        let mut object = Map::new();
        for (key, value) in self.table {
            let path = self.key(key);
            if let Some(value) = json(&path, value, self.faults) {
                object.insert(key.clone(), value);
            }
        }
        object
    }
}

impl Optional<'_, '_> {
    pub(super) fn text(self, key: &str, wanted: &str, valid: impl Fn(&str) -> bool) -> Option<String> {
        if self.there { self.table.text(key, wanted, valid) } else { None }
    }

    pub(super) fn number(self, key: &str, min: u32, max: u32) -> Option<u32> {
        if self.there { self.table.number(key, min, max) } else { None }
    }

    pub(super) fn table<T>(self, key: &str, read: impl FnOnce(&mut Table<'_>) -> T) -> Option<T> {
        if self.there { self.table.table(key, read) } else { None }
    }
}

fn json(path: &str, value: &toml::Value, faults: &mut Faults) -> Option<Value> {
    match value {
        toml::Value::String(text) => Some(text.clone().into()),
        toml::Value::Integer(number) => Some((*number).into()),
        toml::Value::Boolean(truth) => Some((*truth).into()),
        toml::Value::Array(items) => {
            let item = |(i, item)| json(&format!("{path}[{i}]"), item, faults);
            Some(items.iter().enumerate().filter_map(item).collect::<Vec<_>>().into())
        }
        toml::Value::Table(table) => {
            let entry =
                |(key, value): (&String, _)| Some((key.clone(), json(&format!("{path}.{key}"), value, faults)?));
            Some(Value::Object(table.iter().filter_map(entry).collect()))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) => {
            faults.add(path, shown(value), "text, a whole number, true or false (signed statements hold no fractions)");
            None
        }
    }
}

/// A value as it would stand in TOML, shortened.
fn shown(value: &toml::Value) -> String {
    let mut text = value.to_string().replace('\n', " ");
    if text.len() > 80 {
        let cut = (0..=80).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}
