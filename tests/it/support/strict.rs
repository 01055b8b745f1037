//! An upstream that reads every request in the strictest way, from the bytes as they came, and notes what it could not read so. What it has
//! noted as a fault is a message that another server might have read in another way.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A request, one character per byte.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub body: String,
    pub trailers: Vec<(String, String)>,
}

impl Message {
    /// Method, target and body, as the corpus writes them.
    pub fn in_short(&self) -> String {
        format!("{} {} {}", self.method, self.target, self.body)
    }

    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(key, _)| key == name)
    }
}

/// What a strict reader says of the bytes at the beginning of a connection.
#[derive(Clone, Debug)]
pub enum Read {
    /// A message, and how many bytes it has.
    Whole(Box<Message>, usize),
    /// It goes on; whether the client waits for 100 Continue.
    More { expects: bool },
    /// There is more than one way to read it, or none.
    Fault(String),
}

type Line<'a> = (&'a [u8], usize);

/// The line at `at`, without its CRLF, and where the next one begins; `None` when it has no end yet.
fn line(bytes: &[u8], at: usize) -> Result<Option<Line<'_>>, String> {
    let rest = &bytes[at..];
    let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return Ok(None);
    };
    match rest.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some((&rest[..end], at + end + 2))),
        Some(_) => Err(format!("a bare line end: {:?}", text(&rest[..end + 2]))),
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn is_token(bytes: &[u8]) -> bool {
    let is_mark = |byte: &u8| b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

/// `name: value`, with exactly that between them.
fn field(line: &[u8]) -> Result<(String, String), String> {
    let wrong = || format!("a field that is none: {:?}", text(line));
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(wrong)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) || value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f)
    {
        return Err(wrong());
    }
    Ok((text(name).to_ascii_lowercase(), text(value.trim_ascii())))
}

/// Fields up to the empty line, and where what follows begins.
#[allow(clippy::type_complexity, reason = "it is read in one place")]
fn fields(bytes: &[u8], mut at: usize) -> Result<Option<(Vec<(String, String)>, usize)>, String> {
    let mut fields = Vec::new();
    while let Some((line, next)) = line(bytes, at)? {
        if line.is_empty() {
            return Ok(Some((fields, next)));
        }
        fields.push(field(line)?);
        at = next;
    }
    Ok(None)
}

/// Reads one request.
pub fn read(bytes: &[u8]) -> Read {
    match message(bytes) {
        Ok(Some((message, length))) => Read::Whole(Box::new(message), length),
        Ok(None) => {
            let seen = text(bytes).to_ascii_lowercase();
            Read::More { expects: seen.contains("\r\n\r\n") && seen.contains("expect: 100-c") }
        }
        Err(why) => Read::Fault(why),
    }
}

fn message(bytes: &[u8]) -> Result<Option<(Message, usize)>, String> {
    let Some((first, at)) = line(bytes, 0)? else { return Ok(None) };
    let parts: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = parts.as_slice() else {
        return Err(format!("a request line that is none: {:?}", text(first)));
    };
    let is_clean = |target: &[u8]| target.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    if !is_token(method) || !target.starts_with(b"/") || !is_clean(target) {
        return Err(format!("a request line that is none: {:?}", text(first)));
    }
    let Some((fields, at)) = fields(bytes, at)? else { return Ok(None) };
    let all = |name: &str| -> Vec<&str> {
        fields.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    };
    if all("host").len() != 1 {
        return Err(format!("not one Host: {fields:?}"));
    }
    let (body, trailers, end) = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => (String::new(), Vec::new(), at),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length: usize = length.parse().map_err(|_| format!("a length: {length}"))?;
            let Some(body) = bytes.get(at..at.saturating_add(length)) else { return Ok(None) };
            (text(body), Vec::new(), at + length)
        }
        ([], ["chunked"]) => match chunked(bytes, at)? {
            Some(read) => read,
            None => return Ok(None),
        },
        both => return Err(format!("no single framing: {both:?}")),
    };
    let (method, target) = (text(method), text(target));
    Ok(Some((Message { method, target, fields, body, trailers }, end)))
}

type Chunked = (String, Vec<(String, String)>, usize);

/// Chunks without extensions, and the trailers.
fn chunked(bytes: &[u8], mut at: usize) -> Result<Option<Chunked>, String> {
    let mut body = String::new();
    while let Some((size, next)) = line(bytes, at)? {
        if size.is_empty() || size.len() > 15 || !size.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("a chunk's size: {:?}", text(size)));
        }
        let size = usize::from_str_radix(&text(size), 16).unwrap();
        if size == 0 {
            return Ok(fields(bytes, next)?.map(|(trailers, end)| (body, trailers, end)));
        }
        let Some(chunk) = bytes.get(next..next + size + 2) else { return Ok(None) };
        let Some(chunk) = chunk.strip_suffix(b"\r\n") else {
            return Err("a chunk without its end".to_owned());
        };
        body += &text(chunk);
        at = next + size + 2;
    }
    Ok(None)
}

#[derive(Debug, Default)]
struct Noted {
    messages: Vec<Message>,
    faults: Vec<String>,
}

/// The upstream.
#[derive(Clone)]
pub struct StrictUpstream {
    pub address: SocketAddr,
    noted: Arc<Mutex<Noted>>,
}

impl StrictUpstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let noted = Arc::new(Mutex::new(Noted::default()));
        let noting = Arc::clone(&noted);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(serve(stream, Arc::clone(&noting)));
            }
        });
        Self { address, noted }
    }

    /// Every whole message so far, in the order of their answers' `x-seen`.
    pub fn messages(&self) -> Vec<Message> {
        self.noted.lock().unwrap().messages.clone()
    }

    /// What could not be read in the one strict way.
    pub fn faults(&self) -> Vec<String> {
        self.noted.lock().unwrap().faults.clone()
    }
}

/// Answers each message with its number. What breaks off is no message.
async fn serve(mut stream: TcpStream, noted: Arc<Mutex<Noted>>) {
    let mut held = Vec::new();
    let mut has_continued = false;
    loop {
        match read(&held) {
            Read::Whole(message, length) => {
                held.drain(..length);
                has_continued = false;
                let number = {
                    let mut noted = noted.lock().unwrap();
                    noted.messages.push(*message);
                    noted.messages.len() - 1
                };
                let answer =
                    format!("HTTP/1.1 200 OK\r\nx-seen: {number}\r\ncontent-length: 0\r\n\r\n");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
            Read::Fault(why) => {
                noted.lock().unwrap().faults.push(why);
                return;
            }
            Read::More { expects } if expects && !has_continued => {
                has_continued = true;
                if stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
                    return;
                }
            }
            Read::More { .. } => {}
        }
        if stream.read_buf(&mut held).await.unwrap_or(0) == 0 {
            return;
        }
    }
}
