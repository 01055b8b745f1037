//! TCP relay: every client connection gets its own upstream connection, bytes are copied both ways.
use crate::net::*;

struct Half {
    fd: i32,
    peer: usize,
    out: Vec<u8>, // bytes waiting to be written to fd
}

pub fn run(port: u16, target: u16) {
    let l = listen(port);
    let p = Poll::new();
    p.add(l, IN, u64::MAX);
    let (mut evs, mut buf) = (events(), vec![0u8; 128 * 1024]);
    let mut h: Vec<Option<Half>> = vec![];
    let mut free: Vec<usize> = vec![];
    loop {
        let n = p.wait(&mut evs, None);
        let mut dead: Vec<usize> = vec![];
        for e in &evs[..n] {
            let (tok, ev) = (e.u64, e.events);
            if tok == u64::MAX {
                while let Some(c) = accept(l) {
                    let Some(u) = connect(target) else {
                        close_fd(c);
                        continue;
                    };
                    let mut slot = || {
                        free.pop().unwrap_or_else(|| {
                            h.push(None);
                            h.len() - 1
                        })
                    };
                    let (a, b) = (slot(), slot());
                    h[a] = Some(Half { fd: c, peer: b, out: vec![] });
                    h[b] = Some(Half { fd: u, peer: a, out: vec![] });
                    p.add(c, IN, a as u64);
                    p.add(u, IN, b as u64);
                }
                continue;
            }
            let i = tok as usize;
            let Some(me) = h[i].as_mut() else { continue };
            let (fd, peer) = (me.fd, me.peer);
            if ev & OUT != 0 && !me.out.is_empty() {
                let w = write(fd, &me.out);
                if w > 0 {
                    me.out.drain(..w as usize);
                }
                if me.out.is_empty() {
                    p.set(fd, IN, i as u64);
                    if let Some(o) = &h[peer] {
                        p.set(o.fd, IN, peer as u64);
                    }
                } else if w == -2 {
                    dead.push(i);
                }
            }
            if ev & (IN | HUP) != 0 {
                let r = read(fd, &mut buf);
                if r == 0 || r == -2 {
                    dead.push(i);
                } else if r > 0 {
                    let Some(o) = h[peer].as_mut() else { continue };
                    let w = if o.out.is_empty() { write(o.fd, &buf[..r as usize]) } else { 0 };
                    if w == -2 {
                        dead.push(i);
                    } else if w.max(0) < r {
                        o.out.extend_from_slice(&buf[w.max(0) as usize..r as usize]);
                        p.set(o.fd, OUT, peer as u64); // wait for room, stop reading from us meanwhile
                        p.set(fd, 0, i as u64);
                    }
                }
            }
        }
        for i in dead {
            if let Some(a) = h[i].take() {
                close_fd(a.fd);
                if let Some(b) = h[a.peer].take() {
                    close_fd(b.fd);
                }
                free.extend([i, a.peer]);
            }
        }
    }
}
