//! A small HTTP endpoint of the tests' own that keeps what it is sent: the other end of
//! webhooks, trace exports and bulk requests. It says so by its name: no product's API is
//! implemented here but the few answers that a sender waits for.

use std::io::{BufRead as _, BufReader, Error, Read as _, Result, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// One request, whole.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
}

/// Gives the answer's JSON to a request.
pub type Answer = fn(&Request) -> String;

/// The endpoint; it stops when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Listen on a port of the system's choice, or on this one again.
    ///
    /// # Errors
    /// When it can't.
    pub fn start(port: Option<u16>, answer: Answer) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(0)))?;
        let address = listener.local_addr()?;
        let (requests, stop) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::new(AtomicBool::new(false)));
        let (kept, stopped) = (requests.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let (kept, stopped) = (kept.clone(), stopped.clone());
                if let Ok(stream) = stream {
                    // A connection that breaks off is the sender's to try again.
                    std::thread::spawn(move || drop(serve(stream, answer, &kept, &stopped)));
                }
            }
        });
        Ok(Self { address, requests, stop, thread: Some(thread) })
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What came so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.requests).clone()
    }

    /// The bodies of all requests to this path, as JSON.
    #[must_use]
    pub fn json(&self, path: &str) -> Vec<serde_json::Value> {
        let all = self.requests();
        let of = all.iter().filter(|request| request.path == path);
        of.filter_map(|request| serde_json::from_slice(&request.body).ok()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the listener, so that its port is free when this returns.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, answer: Answer, kept: &Mutex<Vec<Request>>, stop: &AtomicBool) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || stop.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (mut length, mut waits) = (0, false);
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 {
                return Ok(());
            }
            let header = header.trim().to_ascii_lowercase();
            match header.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = value.trim().parse().map_err(Error::other)?,
                Some(("expect", _)) => waits = true,
                Some(_) => {}
            }
        }
        if waits {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        // One that has stopped takes nothing any more, on old connections neither.
        if stop.load(Ordering::Acquire) {
            return Ok(());
        }
        let request = Request { method, path, body };
        let text = answer(&request);
        lock(kept).push(request);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length:";
        writer.write_all(format!("{head} {}\r\n\r\n{text}", text.len()).as_bytes())?;
    }
}
