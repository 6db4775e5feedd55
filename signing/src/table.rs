//! Reading one TOML table key by key while faults add up. Refuses nothing by itself:
//! what is missing or wrong becomes a fault, and reading goes on.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::fault::{Faults, choices};

/// A table under `path`, and the place where its faults go.
pub(crate) struct Table<'a> {
    path: String,
    table: &'a toml::Table,
    faults: &'a mut Faults,
}

/// A key that may be absent: `None` without a fault then.
pub(crate) struct Optional<'t, 'a> {
    table: &'t mut Table<'a>,
    there: bool,
}

impl<'a> Table<'a> {
    pub(crate) fn new(path: &str, table: &'a toml::Table, faults: &'a mut Faults) -> Self {
        Self { path: path.to_owned(), table, faults }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A fault of the table itself.
    pub(crate) fn fault(&mut self, value: &str, wanted: &str) {
        self.faults.add(self.path.clone(), value, wanted);
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(crate) fn optional(&mut self, key: &str) -> Optional<'_, 'a> {
        let there = self.has(key);
        Optional { table: self, there }
    }

    /// Every other key is a fault.
    pub(crate) fn known(&mut self, keys: &[&str]) {
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

    pub(crate) fn text(&mut self, key: &str, wanted: &str, valid: impl Fn(&str) -> bool) -> Option<String> {
        self.get(key, wanted, |value| value.as_str().filter(|text| valid(text)).map(str::to_owned))
    }

    pub(crate) fn number(&mut self, key: &str, min: u32, max: u32) -> Option<u32> {
        self.get(key, &format!("a whole number from {min} to {max}"), |value| {
            value.as_integer().and_then(|n| u32::try_from(n).ok()).filter(|n| (min..=max).contains(n))
        })
    }

    pub(crate) fn table<T>(&mut self, key: &str, read: impl FnOnce(&mut Table<'_>) -> T) -> Option<T> {
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
    pub(crate) fn each(&mut self, key: &str, wanted: &str, mut read: impl FnMut(&str, &mut Table<'_>)) {
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

    /// The whole table as a type whose fields all have defaults and that refuses unknown
    /// keys itself. Each key is tried alone, so that every one has its own fault.
    pub(crate) fn typed<T: DeserializeOwned>(&mut self) -> Option<T> {
        let before = self.faults.0.len();
        for (key, value) in self.table {
            let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
            if let Err(error) = alone.try_into::<T>() {
                let path = self.key(key);
                // serde says what it found first; that is told beside it already.
                let wanted = error.message().rsplit(", expected ").next().unwrap_or_default().to_owned();
                let unknown = error.message().starts_with("unknown field");
                self.faults.add(path, if unknown { "an unknown key".to_owned() } else { shown(value) }, wanted);
            }
        }
        if self.faults.0.len() > before {
            return None;
        }
        match self.table.clone().try_into() {
            Ok(read) => Some(read),
            Err(error) => {
                self.faults.add(self.path.clone(), shown(&toml::Value::Table(self.table.clone())), error.message());
                None
            }
        }
    }

    /// A list of texts, each of them valid; absent is an empty list.
    pub(crate) fn texts(&mut self, key: &str, wanted: &str, valid: impl Fn(&str) -> bool) -> Vec<String> {
        let path = self.key(key);
        let items = match self.table.get(key) {
            None => return Vec::new(),
            Some(toml::Value::Array(items)) => items,
            Some(other) => {
                self.faults.add(path, shown(other), format!("a list, each item {wanted}"));
                return Vec::new();
            }
        };
        let mut texts = Vec::new();
        for (i, item) in items.iter().enumerate() {
            match item.as_str().filter(|text| valid(text)) {
                Some(text) => texts.push(text.to_owned()),
                None => self.faults.add(format!("{path}[{i}]"), shown(item), wanted),
            }
        }
        texts
    }

    /// A fault of the key `key`.
    pub(crate) fn fault_at(&mut self, key: &str, value: impl Into<String>, wanted: impl Into<String>) {
        let path = self.key(key);
        self.faults.add(path, value, wanted);
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a String> + use<'a> {
        self.table.keys()
    }

    /// The whole table as JSON.
    pub(crate) fn json(&mut self) -> Map<String, Value> {
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
    pub(crate) fn text(self, key: &str, wanted: &str, valid: impl Fn(&str) -> bool) -> Option<String> {
        if self.there { self.table.text(key, wanted, valid) } else { None }
    }

    pub(crate) fn number(self, key: &str, min: u32, max: u32) -> Option<u32> {
        if self.there { self.table.number(key, min, max) } else { None }
    }

    pub(crate) fn table<T>(self, key: &str, read: impl FnOnce(&mut Table<'_>) -> T) -> Option<T> {
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
