//! [`Remote`]: a repository on the hub, asked over HTTP.

use super::{OnProgress, cannot};
use hf_hub::Repo;
use hf_hub::api::RepoInfo;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;
use ureq::config::RedirectAuthHeaders;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RANGE};
use ureq::http::uri::Authority;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, RequestBuilder};

/// Time for a connection; and the longest silence, then also a server's longest thought.
const CONNECT: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(60);
/// A download is given up after so many attempts in a row that brought nothing new; the wait doubles in between.
const ATTEMPTS: u32 = 3;
const WAIT: Duration = Duration::from_millis(250);
/// Redirects within the hub before a file is found: one for a renamed repository, one to its cache; and some.
const HOPS: usize = 5;
const BUFFER_BYTES: usize = 128 << 10; // that of a connection

/// Why there is no answer, in words for the user.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody answered, or not to the end.
    Unreachable(String),
    /// The server says that it is its own fault, or that it is too busy.
    Busy(String),
    /// Asking again would not help.
    Final(String),
}

impl Failure {
    pub fn into_reason(self) -> String {
        match self {
            Failure::Unreachable(reason) | Failure::Busy(reason) | Failure::Final(reason) => reason,
        }
    }
}

/// What is known of a file before its bytes come.
pub(super) struct Head {
    /// SHA-256 of a large file, git's SHA-1 of a small one; not checked here.
    pub etag: String,
    /// In bytes, if the server tells.
    pub size: Option<u64>,
    url: String,
}

/// A repository on the hub.
pub(super) struct Remote {
    agent: Agent,
    endpoint: String,
    repo: Repo,
    token: Option<String>,
}

impl Remote {
    /// Connects to nobody yet.
    pub fn new(endpoint: &str, repo: Repo, token: Option<String>) -> Self {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .accept_encoding("identity") // ranges and lengths are of what is stored
            .user_agent(concat!("komt-core/", env!("CARGO_PKG_VERSION")))
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE));
        let host = authority(endpoint).map(|authority| authority.host().to_owned());
        if host.is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host.as_str())) {
            config = config.proxy(None); // a proxy's own loopback is another
        }
        Self { agent: config.build().new_agent(), endpoint: endpoint.into(), repo, token }
    }

    /// Commit and files of the revision.
    pub fn listing(&self) -> Result<RepoInfo, Failure> {
        let url = format!("{}/api/{}", self.endpoint, self.repo.api_url());
        let mut response =
            self.authorized(self.agent.get(&url), &url).call().map_err(|e| self.unanswered(e))?;
        if response.status() != 200 {
            return Err(self.refused(&response));
        }
        response.body_mut().read_json().map_err(|error| match error {
            ureq::Error::Json(error) => {
                Failure::Final(format!("{url}: not a list of a repository's files: {error}"))
            }
            error => self.unanswered(error),
        })
    }

    /// Size and ETag of a file, and its address after the hub's own redirects. Storage elsewhere is not asked: the hub
    /// answers for it.
    pub fn head(&self, commit: &str, file: &str) -> Result<Head, Failure> {
        let name = encoded(file);
        let mut url = format!("{}/{}/resolve/{commit}/{name}", self.endpoint, self.repo.url());
        for _ in 0..HOPS {
            let request = self.authorized(self.agent.head(&url), &url).config().max_redirects(0).build();
            let response = request.call().map_err(|error| self.unanswered(error))?;
            let status = response.status();
            let linked = header(&response, "x-linked-etag");
            match header(&response, LOCATION.as_str()).filter(|_| status.is_redirection()) {
                Some(path) if path.starts_with('/') && !path.starts_with("//") => {
                    url = format!("{}{path}", origin(&url));
                    continue;
                }
                Some(elsewhere) if linked.is_none() => {
                    url = elsewhere.to_owned();
                    continue;
                }
                None if status != 200 => return Err(self.refused(&response)),
                _ => {}
            }
            let etag = linked.or_else(|| header(&response, ETAG.as_str()));
            let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
            let etag = etag
                .ok_or_else(|| Failure::Final(format!("{file}: expected an ETag, the server gives none")))?;
            let own = header(&response, CONTENT_LENGTH.as_str()).filter(|_| status == 200);
            let size = header(&response, "x-linked-size").or(own).and_then(|size| size.parse().ok());
            return Ok(Head { etag, size, url });
        }
        Err(Failure::Final(format!("{file}: redirected more than {HOPS} times")))
    }

    /// Brings a file's bytes into `part`, after those that an earlier attempt left there.
    pub fn download(
        &self,
        name: &str,
        head: &Head,
        part: &Path,
        tell: OnProgress<'_>,
    ) -> Result<(), Failure> {
        let mut part = Part::open(name, part)?;
        let mut most = None; // bytes told of: a restart is not told until it gets further
        let mut tell = |done: u64| {
            if most.is_none_or(|most| done > most) {
                most = Some(done);
                tell(name, done, head.size.unwrap_or(done));
            }
        };
        let (mut longest, mut idle) = (part.len()?, 0);
        loop {
            let failure = match self.attempt(head, &mut part, &mut tell) {
                Ok(()) => return part.finish(),
                Err(failure @ Failure::Final(_)) => return Err(failure),
                Err(failure) => failure,
            };
            let len = part.len()?;
            idle = if len > longest { 0 } else { idle + 1 };
            longest = longest.max(len);
            if idle == ATTEMPTS {
                return Err(failure);
            }
            std::thread::sleep(WAIT * 2_u32.pow(idle));
        }
    }

    /// One request for the rest of a file.
    fn attempt(&self, head: &Head, part: &mut Part<'_>, tell: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        if head.size.is_none_or(|size| part.len().is_ok_and(|len| len > size)) {
            part.restart()?; // without the size, nobody can tell whether what is there is a beginning
        }
        let done = part.len()?;
        tell(done);
        if done > 0 && head.size == Some(done) {
            return Ok(()); // only the name was missing
        }
        let mut request = self.authorized(self.agent.get(&head.url), &head.url);
        if done > 0 {
            request = request.header(RANGE, format!("bytes={done}-"));
        }
        let response = request.call().map_err(|error| self.unanswered(error))?;
        let expected = match response.status().as_u16() {
            206 if done > 0 && resumes(&response, done, head.size) => head.size,
            200 => {
                part.restart()?;
                head.size.or_else(|| header(&response, CONTENT_LENGTH.as_str())?.parse().ok())
            }
            206 | 416 => {
                part.restart()?;
                let name = part.name;
                return Err(Failure::Busy(format!("{name}: the server sent another part than asked for")));
            }
            _ => return Err(self.refused(&response)),
        };
        part.take(response.into_body(), expected, tell)
    }

    /// With the token, if the address is the hub's.
    fn authorized<T>(&self, request: RequestBuilder<T>, url: &str) -> RequestBuilder<T> {
        match &self.token {
            Some(token) if origin(url) == origin(&self.endpoint) => {
                request.header(AUTHORIZATION, format!("Bearer {token}"))
            }
            _ => request,
        }
    }

    /// No HTTP answer at all.
    fn unanswered(&self, error: ureq::Error) -> Failure {
        use ureq::Error::{BadUri, BodyExceedsLimit, ConnectionFailed, HostNotFound, Http, Io, Timeout};
        let endpoint = &self.endpoint;
        match error {
            HostNotFound | ConnectionFailed | Io(_) | Timeout(_) => Failure::Unreachable(format!(
                "{endpoint} does not answer ({error}): check the network, a proxy, HF_ENDPOINT or HubOptions::endpoint"
            )),
            BadUri(_) | Http(_) => Failure::Final(format!(
                "no request can be made to {endpoint} ({error}): check the endpoint and the token"
            )),
            BodyExceedsLimit(limit) => {
                Failure::Final(format!("{endpoint} answers with more than {limit} bytes"))
            }
            error => Failure::Final(format!("asking {endpoint} failed: {error}")),
        }
    }

    /// An answer, but not the one hoped for.
    fn refused(&self, response: &Response<Body>) -> Failure {
        let status = response.status().as_u16();
        let code = header(response, "x-error-code").unwrap_or_default();
        let said =
            header(response, "x-error-message").map_or(String::new(), |text| format!(" ({})", short(text)));
        let revision = self.repo.revision();
        let reason = match (status, code) {
            (401, _) if self.token.is_none() => {
                "there is no such repository, or it is private or gated and needs a token: \
                 set HubOptions::token or HF_TOKEN, or run `hf auth login`"
                    .into()
            }
            (401, _) => "there is no such repository, or the token is not valid for it".into(),
            (403, _) if self.token.is_none() => {
                "access needs a token: set HubOptions::token or HF_TOKEN, or run `hf auth login`".into()
            }
            (403, _) => "the token gives no access: ask for it on the repository's page, \
                         or use a token with the right to read it"
                .into(),
            (404, "RevisionNotFound") => format!("the repository has no revision `{revision}`"),
            (404, "RepoNotFound") => "there is no such repository, or the token gives no access to it".into(),
            (404, _) => format!("there is no such repository, or it has no revision `{revision}`"),
            (429, _) => "too many requests: wait, or use a token".into(),
            (500.., _) => "the server failed: try again later".into(),
            _ => "not an answer that the hub gives: check HF_ENDPOINT or HubOptions::endpoint".into(),
        };
        let reason = format!("HTTP {status} from {}: {reason}{said}", self.endpoint);
        if matches!(status, 408 | 429 | 500..) { Failure::Busy(reason) } else { Failure::Final(reason) }
    }
}

/// The file that a download grows in.
struct Part<'a> {
    name: &'a str, // of the file that is downloaded
    path: &'a Path,
    file: File,
}

impl<'a> Part<'a> {
    fn open(name: &'a str, path: &'a Path) -> Result<Self, Failure> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|error| Failure::Final(cannot("open", path, &error)))?;
        Ok(Self { name, path, file })
    }

    fn disk(&self, error: std::io::Error) -> Failure {
        Failure::Final(cannot("write", self.path, &error))
    }

    /// Bytes that are there.
    fn len(&self) -> Result<u64, Failure> {
        self.file.metadata().map(|file| file.len()).map_err(|error| self.disk(error))
    }

    /// Begins again at the beginning.
    fn restart(&mut self) -> Result<(), Failure> {
        self.file.set_len(0).map_err(|error| self.disk(error))
    }

    /// Appends a body; with it there must be `expected` bytes.
    fn take(&mut self, body: Body, expected: Option<u64>, tell: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let (name, mut done) = (self.name, self.len()?);
        let of = expected.map_or(String::new(), |size| format!(" of {size}"));
        let broken = |done: u64, why: &str| {
            let what = format!("{name}: the download broke off after {done}{of} bytes{why}");
            Failure::Unreachable(format!("{what}; fetching again goes on with it"))
        };
        let mut body = body.into_reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let n = body.read(&mut buffer).map_err(|error| broken(done, &format!(" ({error})")))?;
            if n == 0 {
                break;
            }
            self.file.write_all(&buffer[..n]).map_err(|error| self.disk(error))?;
            done += n as u64;
            if let Some(size) = expected.filter(|&size| done > size) {
                self.restart()?;
                return Err(Failure::Final(format!("{name}: expected {size} bytes, the server sends more")));
            }
            tell(done);
        }
        if expected.is_some_and(|size| done < size) { Err(broken(done, "")) } else { Ok(()) }
    }

    /// On disk, not only on its way there.
    fn finish(self) -> Result<(), Failure> {
        self.file.sync_all().map_err(|error| self.disk(error))
    }
}

/// Whether the answer goes on at byte `done` of a file of `size` bytes: `Content-Range: bytes 100-199/200`.
fn resumes(response: &Response<Body>, done: u64, size: Option<u64>) -> bool {
    let range = header(response, CONTENT_RANGE.as_str()).unwrap_or_default();
    let total = size.map_or(String::new(), |size| format!("/{size}"));
    response.status() == 206 && range.starts_with(&format!("bytes {done}-")) && range.ends_with(&total)
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok().map(str::trim)
}

fn authority(url: &str) -> Option<Authority> {
    url.parse::<Uri>().ok()?.into_parts().authority
}

/// `scheme://host:port` of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |end| &url[..host + end])
}

/// A file's name as a part of an address (RFC 3986, section 2.3: all but the unreserved bytes as `%` and two digits).
fn encoded(name: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(one).collect()
}

/// At most 160 characters of something that a server or a user wrote.
pub(super) fn short(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(160).collect();
    if text.chars().count() > 160 {
        short.push_str("...");
    }
    short
}
