//! A listener that answers HTTP by a script and remembers what it was asked. Only as much
//! of HTTP/1.1 as the program's own client speaks.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: String,
    earlier: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct Answer {
    status: u16,
    kind: &'static str,
    body: String,
}

/// What one run of the program gave.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub struct Scripted {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    over: Arc<Mutex<bool>>,
}

impl Request {
    /// How often this was asked until now.
    pub fn before(&self, method: &str, path: &str) -> usize {
        self.earlier.iter().filter(|(m, p)| m == method && p == path).count()
    }

    pub fn query(&self, name: &str) -> Option<String> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.replace("%3D", "="))
    }
}

impl Answer {
    pub fn json(status: u16, body: &Value) -> Self {
        let kind = if status < 400 { "application/json" } else { "application/problem+json" };
        Self { status, kind, body: body.to_string() }
    }

    pub fn events(events: &[(&str, &Value)]) -> Self {
        let body = events.iter().map(|(name, data)| format!("event: {name}\ndata: {data}\n\n")).collect();
        Self { status: 200, kind: "text/event-stream", body }
    }
}

impl Scripted {
    pub fn start(script: impl Fn(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, over) = (Arc::new(Mutex::new(Vec::<Request>::new())), Arc::new(Mutex::new(false)));
        let (kept, stop) = (Arc::clone(&seen), Arc::clone(&over));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if *stop.lock().unwrap() {
                    return;
                }
                let Some(mut request) = read(&stream) else { continue };
                request.earlier = kept.lock().unwrap().iter().map(|r| (r.method.clone(), r.path.clone())).collect();
                let answer = script(&request);
                kept.lock().unwrap().push(request);
                let Answer { status, kind, body } = answer;
                let head = format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nConnection: close\r\n");
                let _ = write!(&stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
            }
        });
        Self { address, seen, over }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn viworks(&self, args: &[&str]) -> Ran {
        viworks(&self.url(), args)
    }

    fn last(&self, method: &str, path: &str) -> Request {
        let seen = self.seen.lock().unwrap();
        seen.iter().rfind(|r| r.method == method && r.path == path).cloned().unwrap()
    }

    pub fn count(&self, method: &str, path: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|r| r.method == method && r.path == path).count()
    }

    pub fn body_of(&self, method: &str, path: &str) -> Value {
        serde_json::from_str(&self.last(method, path).body).unwrap()
    }

    pub fn header_of(&self, method: &str, path: &str, name: &str) -> Option<String> {
        self.last(method, path).headers.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub fn last_query(&self, name: &str) -> Option<String> {
        self.seen.lock().unwrap().last().and_then(|request| request.query(name))
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        *self.over.lock().unwrap() = true;
        // Wakes the listener, which then closes.
        let _ = TcpStream::connect(self.address);
    }
}

pub fn viworks(url: &str, args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_viworks"))
        .args(args)
        .env("VIWORKS_URL", url)
        .env("VIWORKS_TOKEN", "viw_test")
        .env_remove("VIWORKS_TOKEN_FILE")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut request = Request { method, path: path.to_owned(), query: query.to_owned(), ..Request::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        request.headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = request.headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    let chunked = request.headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    assert!(!chunked, "the client says how long its body is");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}
