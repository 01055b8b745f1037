//! Two upstreams in one process. Every answer says which side it came from (X-Side) and what it was sent
//! (X-Seen-*), under headers like those that a Supabase REST gateway sends.
//!   GET …            1 KiB JSON     GET …64k…   64 KiB JSON
//!   POST/PATCH …     body read and dropped, {"n":<bytes>}
//!   Upgrade: websocket   101; on /realtime/ a Phoenix server, elsewhere an echo
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::frame;
use crate::net::*;
use crate::phoenix;

/// What a connection speaks.
#[derive(Clone, Copy, PartialEq)]
enum Talk {
    Http,
    Echo,
    Phoenix,
}

struct Conn {
    fd: i32,
    side: u8,
    inb: Vec<u8>,
    out: Vec<u8>,
    talk: Talk,
    left: usize,      // request body bytes still to drop
    got: usize,       // request body bytes dropped so far
    chunked: bool,    // request body is chunked and not yet ended
    pending: Vec<u8>, // seen-headers of the request whose body is being read
}

const COMMON: &str = "Content-Type: application/json; charset=utf-8\r\nServer: postgrest/12.2.3\r\n\
Content-Range: 0-6/*\r\nContent-Location: /memory_entries?select=%2A\r\nAccess-Control-Allow-Origin: *\r\n\
Access-Control-Expose-Headers: Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, Transfer-Encoding, Range-Unit\r\n\
CF-Cache-Status: DYNAMIC\r\nStrict-Transport-Security: max-age=31536000; includeSubDomains; preload\r\n\
sb-gateway-version: 1\r\nVary: Accept-Encoding\r\nX-Content-Type-Options: nosniff\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n";

pub fn run(old: u16, new: u16) {
    let ls = [listen(old), listen(new)];
    let p = Poll::new();
    p.add(ls[0], IN, u64::MAX);
    p.add(ls[1], IN, u64::MAX - 1);
    let (mut evs, mut buf) = (events(), vec![0u8; 256 * 1024]);
    let mut cs: Vec<Option<Conn>> = vec![];
    let mut free: Vec<usize> = vec![];
    let body = |n: usize| {
        let mut s = String::from("[");
        let mut i = 0;
        while s.len() + 130 < n {
            s += &format!(
                "{{\"id\":{i},\"user_id\":\"5e0f6a52-8d0e-4a5b-9d9e-0c7a1b2c3d4e\",\"content\":\"memory entry number {i}\",\"score\":0.5}},"
            );
            i += 1;
        }
        s += "{\"pad\":\"";
        while s.len() < n - 3 {
            s.push('x');
        }
        s + "\"}]"
    };
    let bodies = [body(1024).into_bytes(), body(65536).into_bytes()];
    loop {
        let n = p.wait(&mut evs, None);
        for e in &evs[..n] {
            let (tok, ev) = (e.u64, e.events);
            if tok >= u64::MAX - 1 {
                let side = (u64::MAX - tok) as usize;
                while let Some(fd) = accept(ls[side]) {
                    let i = free.pop().unwrap_or_else(|| {
                        cs.push(None);
                        cs.len() - 1
                    });
                    cs[i] = Some(Conn {
                        fd,
                        side: side as u8,
                        inb: vec![],
                        out: vec![],
                        talk: Talk::Http,
                        left: 0,
                        got: 0,
                        chunked: false,
                        pending: vec![],
                    });
                    p.add(fd, IN, i as u64);
                }
                continue;
            }
            let i = tok as usize;
            let Some(c) = cs[i].as_mut() else { continue };
            let mut ok = true;
            if ev & (IN | HUP) != 0 {
                let r = read(c.fd, &mut buf);
                if r == 0 || r == -2 {
                    ok = false;
                } else if r > 0 {
                    if c.inb.is_empty() {
                        let used = feed(c, &buf[..r as usize], &bodies);
                        c.inb.extend_from_slice(&buf[used..r as usize]);
                    } else {
                        let mut all = std::mem::take(&mut c.inb);
                        all.extend_from_slice(&buf[..r as usize]);
                        let used = feed(c, &all, &bodies);
                        all.drain(..used);
                        c.inb = all;
                    }
                }
            }
            if ok && !c.out.is_empty() {
                let w = write(c.fd, &c.out);
                if w == -2 {
                    ok = false;
                } else if w as usize == c.out.len() {
                    c.out.clear();
                    if ev & OUT != 0 {
                        p.set(c.fd, IN, i as u64);
                    }
                } else {
                    c.out.drain(..w.max(0) as usize);
                    p.set(c.fd, IN | OUT, i as u64);
                }
            }
            if !ok {
                close_fd(c.fd);
                cs[i] = None;
                free.push(i);
            }
        }
    }
}

/// Consumes as much as it can of `b`, queues answers on c.out, returns the bytes used.
fn feed(c: &mut Conn, b: &[u8], bodies: &[Vec<u8>; 2]) -> usize {
    let mut at = 0;
    loop {
        let rest = &b[at..];
        if rest.is_empty() {
            return at;
        }
        if c.talk != Talk::Http {
            let Some(used) = heard(c, rest) else { return at };
            at += used;
            continue;
        }
        if c.chunked {
            let Some(nl) = find(rest, b"\r\n") else { return at };
            let len = std::str::from_utf8(&rest[..nl])
                .ok()
                .and_then(|s| usize::from_str_radix(s.trim(), 16).ok())
                .unwrap_or(0);
            if rest.len() < nl + 2 + len + 2 {
                return at;
            }
            at += nl + 2 + len + 2;
            c.got += len;
            if len == 0 {
                c.chunked = false;
                posted(c);
            }
            continue;
        }
        if c.left > 0 {
            let k = c.left.min(rest.len());
            c.left -= k;
            c.got += k;
            at += k;
            if c.left == 0 {
                posted(c);
            }
            continue;
        }
        let Some(end) = head_end(rest) else { return at };
        at += end;
        request(c, &rest[..end], bodies);
    }
}

fn posted(c: &mut Conn) {
    let js = format!("{{\"n\":{}}}", c.got);
    c.out.extend_from_slice(b"HTTP/1.1 201 Created\r\n");
    c.out.extend_from_slice(COMMON.as_bytes());
    let p = std::mem::take(&mut c.pending);
    c.out.extend_from_slice(&p);
    c.out.extend_from_slice(format!("Content-Length: {}\r\n\r\n{}", js.len(), js).as_bytes());
}

fn request(c: &mut Conn, h: &[u8], bodies: &[Vec<u8>; 2]) {
    let none: &[u8] = b"-";
    let (mut prof, mut cprof, mut key, mut host, mut fwd, mut ws_key) =
        (none, none, none, none, none, none);
    let (mut len, mut chunked, mut upgrade) = (0usize, false, false);
    let mut lines = h.split(|&x| x == b'\n');
    let first = lines.next().unwrap_or(none);
    for l in lines {
        let Some(col) = l.iter().position(|&x| x == b':') else { continue };
        let v = l[col + 1..].trim_ascii();
        let name = &l[..col];
        let is = |n: &[u8]| name.eq_ignore_ascii_case(n);
        match col {
            14 if is(b"accept-profile") => prof = v,
            15 if is(b"content-profile") => cprof = v,
            6 if is(b"apikey") => key = v,
            4 if is(b"host") => host = v,
            15 if is(b"x-forwarded-for") => fwd = v,
            14 if is(b"content-length") => {
                len = std::str::from_utf8(v).ok().and_then(|s| s.parse().ok()).unwrap_or(0)
            }
            17 if is(b"transfer-encoding") => chunked = v.eq_ignore_ascii_case(b"chunked"),
            17 if is(b"sec-websocket-key") => ws_key = v,
            7 if is(b"upgrade") => upgrade = v.eq_ignore_ascii_case(b"websocket"),
            _ => {}
        }
    }
    let o = if len > 0 || chunked { &mut c.pending } else { &mut c.out };
    let side: &[u8] = if c.side == 0 { b"old" } else { b"new" };
    if upgrade {
        let accept = accept_value(ws_key);
        o.extend_from_slice(format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n").as_bytes());
        c.talk = if find(first, b" /realtime/").is_some() { Talk::Phoenix } else { Talk::Echo };
    } else if len == 0 && !chunked {
        o.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        o.extend_from_slice(COMMON.as_bytes());
    }
    let tail = &key[key.len().saturating_sub(8)..];
    for (k, v) in [
        (&b"X-Side: "[..], side),
        (b"X-Seen-Profile: ", prof),
        (b"X-Seen-Content-Profile: ", cprof),
        (b"X-Seen-Apikey: ", tail),
        (b"X-Seen-Host: ", host),
        (b"X-Seen-Forwarded-For: ", fwd),
    ] {
        o.extend_from_slice(k);
        o.extend_from_slice(v);
        o.extend_from_slice(b"\r\n");
    }
    if upgrade {
        o.extend_from_slice(b"\r\n");
    } else if len > 0 || chunked {
        c.left = len;
        c.chunked = chunked;
        c.got = 0;
    } else {
        let body = &bodies[find(first, b"64k").is_some() as usize];
        o.extend_from_slice(if body.len() == 1024 {
            &b"Content-Length: 1024\r\n\r\n"[..]
        } else {
            b"Content-Length: 65536\r\n\r\n"
        });
        o.extend_from_slice(body);
    }
}

/// Answers one client frame; how many bytes it took, nothing while it is not whole.
fn heard(c: &mut Conn, bytes: &[u8]) -> Option<usize> {
    let (first, payload, used) = frame::of_client(bytes)?;
    match c.talk {
        Talk::Phoenix if first == frame::TEXT => {
            if let Some(answer) = phoenix::answer(&payload) {
                frame::of_server(first, &answer, &mut c.out);
            }
        }
        _ => frame::of_server(first, &payload, &mut c.out),
    }
    Some(used)
}

/// The accept value of RFC 6455, section 4.2.2.
fn accept_value(key: &[u8]) -> String {
    STANDARD.encode(
        Sha1::new_with_prefix(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize(),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_sample_key_of_the_standard() {
        assert_eq!(
            super::accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
