//! The log of one invocation: what the guest logs, and what it writes to stdout and
//! stderr, line by line. Past the limit it drops and says so; it never fails a guest.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use viworks_protocol::outcome::LogLine;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// What a line costs besides its text, so that empty lines are bounded too.
const LINE_COST: usize = 40;
/// A longer line of stdout or stderr is broken.
const MAX_LINE: usize = 4 * 1024;
/// Of what was last written to stderr, for the message of a trap: a panic's text.
const MAX_TAIL: usize = 1024;
/// What a stream takes at a time.
const PERMIT: usize = 16 * 1024;

/// A bounded log. Clones are the same log.
#[derive(Debug, Clone)]
pub struct LogBook(Arc<Mutex<Book>>);

#[derive(Debug)]
struct Book {
    lines: Vec<LogLine>,
    left: usize,
    truncated: bool,
    stderr: String,
}

impl LogBook {
    #[must_use]
    pub fn new(limit_kib: u32) -> Self {
        let left = limit_kib as usize * 1024;
        Self(Arc::new(Mutex::new(Book { lines: Vec::new(), left, truncated: false, stderr: String::new() })))
    }

    pub(crate) fn write(&self, level: &str, message: &str) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = book.left.saturating_sub(LINE_COST);
        if room == 0 {
            book.left = 0;
            book.truncated = true;
            return;
        }
        let (text, cost) = fitting(message, room);
        book.truncated |= text.len() < message.len();
        book.left = room - cost;
        book.lines.push(LogLine { level: level.to_owned(), message: text.to_owned() });
    }

    fn note_stderr(&self, line: &str) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !book.stderr.is_empty() {
            book.stderr.push('\n');
        }
        book.stderr.push_str(line);
        let cut = book.stderr.len().saturating_sub(MAX_TAIL);
        let cut = book.stderr.ceil_char_boundary(cut);
        book.stderr.drain(..cut);
    }

    /// The end of what was written to stderr.
    pub(crate) fn stderr_tail(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stderr.trim().to_owned()
    }

    /// The lines, and whether some were cut or dropped. Leaves an empty log.
    pub(crate) fn take(&self) -> (Vec<LogLine>, bool) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut book.lines), book.truncated)
    }
}

/// As much of the beginning as fits into `room` bytes of JSON, and how many it takes:
/// a control character takes six, so that bytes alone would bound nothing.
fn fitting(message: &str, room: usize) -> (&str, usize) {
    let mut cost = 0;
    for (at, c) in message.char_indices() {
        let more = match c {
            '"' | '\\' | '\n' | '\r' | '\t' => 2,
            '\0'..='\u{1f}' => 6,
            _ => c.len_utf8(),
        };
        if cost + more > room {
            return (&message[..at], cost);
        }
        cost += more;
    }
    (message, cost)
}

/// Which of the two streams of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

/// One of a guest's output streams. All its handles share the unfinished line.
#[derive(Debug, Clone)]
pub(crate) struct Capture {
    log: LogBook,
    source: Source,
    line: Arc<Mutex<Vec<u8>>>,
}

impl Capture {
    pub(crate) fn new(log: LogBook, source: Source) -> Self {
        Self { log, source, line: Arc::default() }
    }

    fn take(&self, bytes: &[u8]) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            for part in piece.chunks(MAX_LINE) {
                line.extend_from_slice(part);
                if line.last() == Some(&b'\n') || line.len() >= MAX_LINE {
                    self.emit(&mut line);
                }
            }
        }
    }

    fn emit(&self, line: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\n', '\r']);
        match self.source {
            Source::Stdout => self.log.write("info", text),
            Source::Stderr => {
                self.log.write("warn", text);
                self.log.note_stderr(text);
            }
        }
        line.clear();
    }
}

/// A guest may end in the middle of a line.
impl Drop for Capture {
    fn drop(&mut self) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        // Only the last handle knows that nothing follows.
        if Arc::strong_count(&self.line) == 1 && !line.is_empty() {
            let mut rest = std::mem::take(&mut *line);
            self.emit(&mut rest);
        }
    }
}

impl IsTerminal for Capture {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Capture {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 would ask for this one, and 0.3 is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Capture {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Capture {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_limit_are_dropped_and_flagged() {
        let log = LogBook::new(1);
        for _ in 0..100 {
            log.write("info", "sixteen letters.");
        }
        let (lines, truncated) = log.take();
        assert!(truncated);
        let bytes: usize = lines.iter().map(|l| l.message.len() + LINE_COST).sum();
        assert!(bytes <= 1024 && lines.len() >= 18, "{bytes} bytes in {} lines", lines.len());
    }

    #[test]
    fn empty_lines_and_splits_inside_characters_are_bounded_too() {
        let log = LogBook::new(1);
        log.write("info", &"ü".repeat(2_000));
        for _ in 0..10_000 {
            log.write("info", "");
        }
        let (lines, truncated) = log.take();
        assert!(truncated && lines.len() <= 2);
    }

    #[test]
    fn the_log_as_json_is_within_the_limit_whatever_is_written() {
        for text in ["\0\u{1}\u{1f}", "\"\\\n\t", "ü€\u{1f600}", "plain"] {
            let log = LogBook::new(4);
            for _ in 0..1_000 {
                log.write("info", &text.repeat(7));
            }
            let (lines, truncated) = log.take();
            let json = serde_json::to_string(&lines).map(|json| json.len()).unwrap_or(usize::MAX);
            assert!(truncated && json <= 4 * 1024 + 2, "{json} bytes of {text:?}");
        }
    }

    #[test]
    fn streams_become_lines_and_the_unfinished_one_is_kept() {
        let log = LogBook::new(64);
        let capture = Capture::new(log.clone(), Source::Stderr);
        let mut stream = capture.p2_stream();
        for part in ["pan", "ic: x\nat", " y"] {
            assert!(stream.write(Bytes::from_static(part.as_bytes())).is_ok());
        }
        drop((stream, capture));
        let (lines, truncated) = log.take();
        assert_eq!(lines.iter().map(|l| l.message.as_str()).collect::<Vec<_>>(), ["panic: x", "at y"]);
        assert!(!truncated && log.stderr_tail().contains("panic: x"));
        let endless = Capture::new(log, Source::Stdout);
        endless.take(&[b'x'; 100_000]);
        let held = endless.line.lock().map(|l| l.len()).unwrap_or(usize::MAX);
        assert!(held <= MAX_LINE);
    }
}
