//! Thin wrappers over the socket and epoll calls.
use libc::*;
use std::mem::{size_of, zeroed};

pub const IN: u32 = EPOLLIN as u32;
pub const OUT: u32 = EPOLLOUT as u32;
pub const HUP: u32 = (EPOLLHUP | EPOLLERR) as u32;

fn addr(port: u16) -> sockaddr_in {
    let mut a: sockaddr_in = unsafe { zeroed() };
    a.sin_family = AF_INET as u16;
    a.sin_port = port.to_be();
    a.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    a
}
fn setopt(fd: i32, level: i32, name: i32) {
    let one: i32 = 1;
    unsafe { setsockopt(fd, level, name, &one as *const i32 as *const c_void, 4) };
}
pub fn nodelay(fd: i32) {
    setopt(fd, IPPROTO_TCP, TCP_NODELAY)
}
pub fn listen(port: u16) -> i32 {
    unsafe {
        let fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        setopt(fd, SOL_SOCKET, SO_REUSEADDR);
        let a = addr(port);
        if bind(fd, &a as *const _ as *const sockaddr, size_of::<sockaddr_in>() as u32) != 0
            || libc::listen(fd, 8192) != 0
        {
            eprintln!("cannot listen on {port}: {}", std::io::Error::last_os_error());
            std::process::exit(1);
        }
        fd
    }
}
pub fn accept(l: i32) -> Option<i32> {
    let fd = unsafe {
        accept4(l, std::ptr::null_mut(), std::ptr::null_mut(), SOCK_NONBLOCK | SOCK_CLOEXEC)
    };
    if fd < 0 {
        return None;
    }
    nodelay(fd);
    Some(fd)
}
/// Non-blocking connect to loopback; None when refused at once.
pub fn connect(port: u16) -> Option<i32> {
    unsafe {
        let fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        let a = addr(port);
        let r =
            libc::connect(fd, &a as *const _ as *const sockaddr, size_of::<sockaddr_in>() as u32);
        if r != 0 && *__errno_location() != EINPROGRESS {
            close(fd);
            return None;
        }
        nodelay(fd);
        Some(fd)
    }
}
/// >0 bytes, 0 end of stream, -1 would block, -2 error
pub fn read(fd: i32, b: &mut [u8]) -> isize {
    let n = unsafe { libc::read(fd, b.as_mut_ptr() as *mut c_void, b.len()) };
    code(n)
}
pub fn write(fd: i32, b: &[u8]) -> isize {
    let n = unsafe { libc::write(fd, b.as_ptr() as *const c_void, b.len()) };
    code(n)
}
fn code(n: isize) -> isize {
    if n >= 0 {
        return n;
    }
    let e = unsafe { *__errno_location() };
    if e == EAGAIN || e == EINTR || e == ENOTCONN { -1 } else { -2 }
}
pub fn close_fd(fd: i32) {
    unsafe { close(fd) };
}
pub struct Poll(i32);
impl Poll {
    pub fn new() -> Poll {
        Poll(unsafe { epoll_create1(EPOLL_CLOEXEC) })
    }
    pub fn add(&self, fd: i32, ev: u32, tok: u64) {
        let mut e = epoll_event { events: ev, u64: tok };
        unsafe { epoll_ctl(self.0, EPOLL_CTL_ADD, fd, &mut e) };
    }
    pub fn set(&self, fd: i32, ev: u32, tok: u64) {
        let mut e = epoll_event { events: ev, u64: tok };
        unsafe { epoll_ctl(self.0, EPOLL_CTL_MOD, fd, &mut e) };
    }
    /// timeout in ns, None waits for ever
    pub fn wait(&self, evs: &mut [epoll_event], ns: Option<u64>) -> usize {
        let ts = ns.map(|n| timespec {
            tv_sec: (n / 1_000_000_000) as i64,
            tv_nsec: (n % 1_000_000_000) as i64,
        });
        let p = ts.as_ref().map_or(std::ptr::null(), |t| t as *const timespec);
        let n = unsafe {
            syscall(
                SYS_epoll_pwait2,
                self.0,
                evs.as_mut_ptr(),
                evs.len(),
                p,
                std::ptr::null::<u8>(),
                8usize,
            )
        };
        n.max(0) as usize
    }
}
pub fn events() -> Vec<epoll_event> {
    vec![epoll_event { events: 0, u64: 0 }; 1024]
}
pub fn find(h: &[u8], n: &[u8]) -> Option<usize> {
    h.windows(n.len()).position(|w| w == n)
}
/// End of the header block (index just past the blank line).
pub fn head_end(b: &[u8]) -> Option<usize> {
    let mut i = 3;
    while i < b.len() {
        match b[i] {
            b'\n' if b[i - 1] == b'\r' && b[i - 2] == b'\n' && b[i - 3] == b'\r' => {
                return Some(i + 1);
            }
            b'\n' | b'\r' => i += 1,
            _ => i += 4, // no CRLFCRLF that ends at i..=i+3 can hold this byte
        }
    }
    None
}
