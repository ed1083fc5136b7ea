//! [`FakeHub`]: as much of the hub as `fetch` asks for, on a port of this machine. It answers as the real one does: large
//! files are elsewhere ("localhost", where the token must not go), small ones behind a redirect within the hub.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub const REPO: &str = "komt/tiny";
/// The commits of `main` and of `v2`.
pub const MAIN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub const V2: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// One request, as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Lower-case names.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    /// Of a body, from where the large files are.
    pub fn is_weights(&self) -> bool {
        self.method == "GET" && self.path.starts_with("/cdn/")
    }
}

/// How the hub behaves: the default is well.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Who has no such token gets 401.
    pub token: Option<&'static str>,
    /// This status for every request.
    pub status: Option<u16>,
    /// So many bodies of large files end in the middle.
    pub n_broken: usize,
    /// So many requests for parts of files find the server busy.
    pub n_busy: usize,
    /// `Range` is not looked at.
    pub no_ranges: bool,
    /// The size is told with the body alone.
    pub no_size: bool,
    /// An ETag for large files.
    pub etag: Option<&'static str>,
}

type Files = BTreeMap<String, Vec<u8>>;

struct State {
    main: Files,
    v2: Files,
    behaviour: Mutex<Behaviour>,
    requests: Mutex<Vec<Request>>,
    down: AtomicBool,
}

pub struct FakeHub {
    port: u16,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl FakeHub {
    /// With these files at `main`, and the same with another config.json at `v2`.
    pub fn start(files: Files, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut v2 = files.clone();
        v2.insert("config.json".into(), b"{\"v\": 2}".to_vec());
        let (behaviour, requests) = (Mutex::new(behaviour), Mutex::default());
        let state = Arc::new(State { main: files, v2, behaviour, requests, down: AtomicBool::new(false) });
        let shared = state.clone();
        let serve = move || {
            for stream in listener.incoming() {
                if shared.down.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || shared.answer(stream.unwrap(), port));
            }
        };
        Self { port, state, thread: Some(std::thread::spawn(serve)) }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.state.requests.lock().unwrap())
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.state.down.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port)); // wakes the thread up
        self.thread.take().unwrap().join().unwrap();
    }
}

impl State {
    fn answer(&self, stream: TcpStream, port: u16) {
        let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
        let Some(first) = lines.next() else { return };
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let headers = lines.take_while(|line| !line.is_empty());
        let headers = headers.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_lowercase(), value.trim().to_owned()))
        });
        let request = Request { method, path, headers: headers.collect() };
        self.requests.lock().unwrap().push(request.clone());
        let (head, body) = self.response(&request, port);
        let body = if request.method == "HEAD" { &[] } else { &body[..] };
        let mut stream = &stream;
        let _ = stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes());
        let _ = stream.write_all(body);
    }

    /// Status and headers, and the body.
    fn response(&self, request: &Request, port: u16) -> (String, Vec<u8>) {
        let behaviour = self.behaviour.lock().unwrap().clone();
        let nothing = |head: String| (format!("{head}\r\nContent-Length: 0"), vec![]);
        if let Some(status) = behaviour.status {
            return nothing(format!("{status} As Told"));
        }
        let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        if let ["cdn", commit, file] = parts[..] {
            return self.large(request, &self.files(commit)[file]);
        }
        let bearer = behaviour.token.map(|token| format!("Bearer {token}"));
        if bearer.is_some() && request.headers.get("authorization") != bearer.as_ref() {
            return nothing("401 Unauthorized\r\nX-Error-Code: RepoNotFound".into());
        }
        match parts[..] {
            ["api", "models", "komt", "tiny", "revision", revision] => match revision {
                "main" | MAIN => list(MAIN, &self.main),
                "v2" | V2 => list(V2, &self.v2),
                _ => nothing("404 Not Found\r\nX-Error-Code: RevisionNotFound".into()),
            },
            ["komt", "tiny", "resolve", commit, file] => match self.files(commit).get(file) {
                None => nothing("404 Not Found\r\nX-Error-Code: EntryNotFound".into()),
                Some(bytes) if file.ends_with(".safetensors") => {
                    let etag = behaviour.etag.map_or(format!("{:064x}", sum(bytes)), str::to_owned);
                    let location = format!("http://localhost:{port}/cdn/{commit}/{file}");
                    let mut head = format!("302 Found\r\nLocation: {location}\r\nX-Linked-Etag: \"{etag}\"");
                    if !behaviour.no_size {
                        head += &format!("\r\nX-Linked-Size: {}", bytes.len());
                    }
                    nothing(head)
                }
                Some(_) => nothing(format!("307 Temporary\r\nLocation: /small/{commit}/{file}")),
            },
            ["small", commit, file] => {
                let bytes = &self.files(commit)[file];
                let etag = format!("{:040x}", sum(bytes));
                (format!("200 OK\r\nContent-Length: {}\r\nETag: \"{etag}\"", bytes.len()), bytes.clone())
            }
            _ => nothing("404 Not Found\r\nX-Error-Code: RepoNotFound".into()),
        }
    }

    fn files(&self, commit: &str) -> &Files {
        if commit == MAIN { &self.main } else { &self.v2 }
    }

    /// A large file, or the part that is asked for, or half of it.
    fn large(&self, request: &Request, bytes: &[u8]) -> (String, Vec<u8>) {
        let mut behaviour = self.behaviour.lock().unwrap();
        let range = request.headers.get("range").filter(|_| !behaviour.no_ranges);
        let from =
            range.map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
        if from.is_some() && behaviour.n_busy > 0 {
            behaviour.n_busy -= 1;
            return ("503 Busy\r\nContent-Length: 0".into(), vec![]);
        }
        let size = bytes.len();
        let head = match from {
            Some(from) => {
                format!(
                    "206 Partial Content\r\nContent-Range: bytes {from}-{}/{size}",
                    size.saturating_sub(1)
                )
            }
            None => "200 OK".into(),
        };
        let body = &bytes[from.unwrap_or(0)..];
        let cut = if behaviour.n_broken > 0 { body.len() / 2 } else { body.len() };
        behaviour.n_broken = behaviour.n_broken.saturating_sub(1);
        (format!("{head}\r\nContent-Length: {}", body.len()), body[..cut].to_vec())
    }
}

fn list(commit: &str, files: &Files) -> (String, Vec<u8>) {
    let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
    let body = serde_json::json!({ "id": REPO, "sha": commit, "siblings": siblings }).to_string();
    (format!("200 OK\r\nContent-Type: application/json\r\nContent-Length: {}", body.len()), body.into())
}

/// FNV-1a: an ETag need only tell contents apart.
fn sum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
