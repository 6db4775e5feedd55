//! Server-sent events, as the HTML standard's "event stream interpretation" reads them:
//! fields, comments, blank lines. Refuses lines without end.

use std::io::{BufRead, Read as _};

/// One event with its data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    pub name: String,
    /// The stream's last id so far.
    pub id: Option<String>,
    pub data: String,
}

/// Bytes of one line and of one event's data.
const MAX: usize = 16 << 20;

#[derive(Debug)]
pub struct Events<R> {
    reader: R,
    last_id: Option<String>,
}

impl<R: BufRead> Events<R> {
    pub fn new(reader: R) -> Self {
        Self { reader, last_id: None }
    }

    /// A line without its end; `None` at the end of the stream or past the bound.
    fn line(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        let read = self.reader.by_ref().take(MAX as u64).read_until(b'\n', &mut bytes).ok()?;
        if read == 0 || bytes.pop() != Some(b'\n') {
            return None;
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        String::from_utf8(bytes).ok()
    }
}

impl<R: BufRead> Iterator for Events<R> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        let mut data: Vec<String> = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                if data.is_empty() {
                    event = Event::default();
                    continue;
                }
                event.id.clone_from(&self.last_id);
                event.data = data.join("\n");
                return Some(event);
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "id" => self.last_id = Some(value.to_owned()),
                "data" => {
                    data.push(value.to_owned());
                    if data.iter().map(String::len).sum::<usize>() > MAX {
                        return None;
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_names_ids_and_data_over_lines() {
        let text = ": hello\n\nevent: invocation\nid: 7\ndata: {\"a\":\ndata: 1}\r\n\r\nevent: progress\ndata:x\n\nevent: cut\ndata: y\n";
        let events: Vec<Event> = Events::new(text.as_bytes()).collect();
        let first = Event { name: "invocation".into(), id: Some("7".into()), data: "{\"a\":\n1}".into() };
        let second = Event { name: "progress".into(), id: Some("7".into()), data: "x".into() };
        assert_eq!(events, [first, second]);
    }
}
