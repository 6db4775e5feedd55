//! A thousand random single-byte changes of each kind of file: all refused, none crashing.
//! The seed is printed with a failure, so that it can be had again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;
use viworks_signing::tuf::State;

use super::release::Bundle;
use super::repository::{Site, update};
use super::{ACCEPTED, Answer, Row};

pub(super) const ROWS: &[Row] = &[
    Row::new("mutated-bundle-x1000", "E_ANY", || statements(COUNT)),
    Row::new("mutated-component-x1000", "E_DIGEST", || component(COUNT)),
    Row::new("mutated-metadata-x1000", "E_ANY", || metadata(COUNT)),
];

pub(super) const COUNT: usize = 1_000;
/// What is refused with one of several codes.
const ANY: &str = "E_ANY";

/// Xorshift: the same changes for the same seed.
pub(super) struct Changes(u64);

impl Changes {
    pub(super) fn new() -> Self {
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        Self(u64::try_from(nanos % u128::from(u64::MAX)).unwrap_or(1) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Another byte at one place.
    pub(super) fn change(&mut self, bytes: &mut [u8]) -> (usize, u8) {
        let at = usize::try_from(self.next() % bytes.len() as u64).unwrap_or_default();
        let by = u8::try_from(self.next() % 255 + 1).unwrap_or(1);
        bytes[at] ^= by;
        (at, by)
    }
}

/// `try_it` says the refusal's code, or [`ACCEPTED`]; a crash is an error.
fn each(count: usize, good: &[u8], code: &str, mut try_it: impl FnMut(Vec<u8>) -> Answer) -> Answer {
    let mut changes = Changes::new();
    let seed = changes.0;
    for round in 0..count {
        let mut bytes = good.to_vec();
        let (at, by) = changes.change(&mut bytes);
        let tried = catch_unwind(AssertUnwindSafe(|| try_it(bytes)));
        let what = format!("round {round} of seed {seed}: byte {at} xor {by}");
        match tried {
            Err(_) => return Err(format!("crashed in {what}").into()),
            Ok(Err(error)) => return Err(format!("{what}: {error}").into()),
            Ok(Ok(answer)) if answer == ACCEPTED => return Ok(ACCEPTED.to_owned()),
            Ok(Ok(answer)) if code != ANY && answer != code => return Err(format!("{what}: {answer}").into()),
            Ok(Ok(_)) => {}
        }
    }
    Ok(code.to_owned())
}

/// The statements: text that stays text, or no text any more, which nobody reads.
fn statements(count: usize) -> Answer {
    let bundle = Bundle::controlled()?;
    let good = bundle.statements()?;
    each(count, good.as_bytes(), ANY, |bytes| match String::from_utf8(bytes) {
        // The key's hint decides nothing: another hint is the same statement.
        Ok(text) if same(&text, &good) => Ok(ANY.to_owned()),
        Ok(text) => bundle.answer(&bundle.component, &text),
        Err(_) => Ok("E_FORMAT".to_owned()),
    })
}

/// Whether two texts differ in hints and blanks alone.
fn same(a: &str, b: &str) -> bool {
    let read = |text: &str| {
        let lines = text.lines().map(|line| {
            let mut value: serde_json::Value = serde_json::from_str(line).ok()?;
            for signature in value["signatures"].as_array_mut()? {
                signature["keyid"] = serde_json::Value::Null;
            }
            Some(value)
        });
        lines.collect::<Option<Vec<_>>>()
    };
    read(a).is_some_and(|a| Some(a) == read(b))
}

fn component(count: usize) -> Answer {
    let bundle = Bundle::controlled()?;
    let statements = bundle.statements()?;
    each(count, &bundle.component.clone(), "E_DIGEST", |bytes| bundle.answer(&bytes, &statements))
}

/// Every file in turn, for a client that knows nothing yet.
fn metadata(count: usize) -> Answer {
    let (site, _) = Site::controlled()?;
    let files = site.files();
    let newest = [
        "timestamp.json",
        ".snapshot.json",
        ".targets.json",
        ".releases.json",
        ".revocation.json",
        ".revocations.json",
    ];
    let (root, now) = (site.root(), SystemTime::now());
    for name in newest {
        let name = current(&files, &root, now, name)?;
        let good = &files[&name];
        let answer = each(count / newest.len() + 1, good, ANY, |bytes| {
            // The timestamp has no digest above it: other blanks say the same.
            let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
            if name == "timestamp.json" && value(&bytes).is_some_and(|value_of| Some(value_of) == value(good)) {
                return Ok(ANY.to_owned());
            }
            let mut changed = files.clone();
            changed.insert(name.clone(), bytes);
            let taken = update(&root, &changed, State::default(), now);
            Ok(taken.map_or_else(|error| error.code().to_owned(), |_| ACCEPTED.to_owned()))
        })?;
        if answer == ACCEPTED {
            return Ok(answer);
        }
    }
    each(count / newest.len() + 1, &root, ANY, |bytes| {
        let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
        if value(&bytes).is_some_and(|value_of| Some(value_of) == value(&root)) {
            return Ok(ANY.to_owned());
        }
        let taken = update(&bytes, &files, State::default(), now);
        Ok(taken.map_or_else(|error| error.code().to_owned(), |_| ACCEPTED.to_owned()))
    })
}

/// The file of this kind that a client asks for.
fn current(
    files: &std::collections::BTreeMap<String, Vec<u8>>,
    root: &[u8],
    now: SystemTime,
    kind: &str,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut client = viworks_signing::tuf::Client::new(root, State::default(), now)?;
    while let viworks_signing::tuf::Step::Fetch { name, .. } = client.next() {
        if name.ends_with(kind) {
            return Ok(name);
        }
        client.supply(files.get(&name).map(Vec::as_slice))?;
    }
    Err(format!("no client asks for a file {kind}").into())
}
