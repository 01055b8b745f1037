//! The sockets on which the proxy listens: opened by itself, alone or beside the process that it replaces, or handed in by whoever
//! starts it (systemd's socket activation). And what a stop asks of them: does somebody else listen here, who gets what comes now?

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;

use listenfd::ListenFd;
use socket2::SockRef;

use super::StartError;
use super::worker::Sockets;
use crate::accept::listener::{self, Share};
use crate::accept::wire::Stage;
use crate::config::startup::Startup;

/// The settings whose sockets can be handed in, which are also the names to hand them in by.
const KEYS: [&str; 3] = ["listen", "tls.listen", "admin.listen"];

/// Where the sockets of a start come from.
#[derive(Debug, Default)]
pub struct Arrival {
    /// Whether an address may be in use by a process that this one replaces.
    pub share: Share,
    /// Sockets that were handed in, by their setting: their addresses count, and not those of the settings.
    pub handed_in: BTreeMap<&'static str, Vec<TcpListener>>,
}

impl Arrival {
    /// Takes what the process was started with: `LISTEN_PID`, `LISTEN_FDS`, and the names in `LISTEN_FDNAMES`. One socket alone is
    /// `listen`, whatever its name.
    ///
    /// # Errors
    /// A name that is none of ours; a descriptor that is no listening TCP socket.
    pub fn new(share: Share, names: Option<&str>) -> Result<Self, StartError> {
        let mut given = ListenFd::from_env();
        let keys = keys(given.len(), names.unwrap_or_default()).map_err(StartError::HandedIn)?;
        let mut handed_in: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (index, key) in keys.into_iter().enumerate() {
            let refused = |cause: io::Error| {
                StartError::HandedIn(format!("{key}, descriptor {}: {cause}", 3 + index))
            };
            let taken = given.take_tcp_listener(index).map_err(refused)?;
            let socket = taken.ok_or_else(|| refused(io::ErrorKind::NotFound.into()))?;
            if !SockRef::from(&socket).is_listener().map_err(refused)? {
                return Err(refused(io::Error::other("it does not listen")));
            }
            socket.set_nonblocking(true).map_err(refused)?;
            handed_in.entry(key).or_default().push(socket);
        }
        Ok(Self { share, handed_in })
    }
}

/// Which setting each socket is for.
fn keys(count: usize, names: &str) -> Result<Vec<&'static str>, String> {
    let known = |name: &str| KEYS.into_iter().find(|key| *key == name);
    let named: Vec<_> = names.split(':').filter(|name| !name.is_empty()).collect();
    match (count, named.as_slice()) {
        (0, _) => Ok(Vec::new()),
        (1, []) => Ok(vec![KEYS[0]]),
        (1, [name]) => Ok(vec![known(name).unwrap_or(KEYS[0])]),
        (_, named) if named.iter().filter(|name| **name == KEYS[2]).count() > 1 => {
            Err(format!("{} has one socket", KEYS[2]))
        }
        (count, named) if named.len() == count => {
            let unknown = |name: &str| {
                let allowed = KEYS.join(", ");
                format!("a socket is called {name:?}, allowed: {allowed} (FileDescriptorName=)")
            };
            named.iter().map(|name| known(name).ok_or_else(|| unknown(name))).collect()
        }
        (count, named) => Err(format!(
            "{count} sockets and {} names: each needs one of {} (FileDescriptorName=)",
            named.len(),
            KEYS.join(", ")
        )),
    }
}

/// An address that is listened on.
#[derive(Debug)]
pub(super) struct Door {
    /// Each worker's: one of its own, or those that were handed in, which all workers share.
    pub(super) sockets: Vec<Sockets>,
    pub(super) address: SocketAddr,
}

/// All sockets, and what is known of where they come from.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) plain: Door,
    pub(super) tls: Option<Door>,
    pub(super) admin: Door,
    pub(super) exit: Exit,
}

impl Doors {
    /// Opens all doors that the settings name.
    pub(super) fn open(startup: &Startup, mut arrival: Arrival) -> Result<Self, StartError> {
        let mut exit = Exit::default();
        let mut open = |key: &'static str, address, workers| {
            open(key, address, workers, &mut arrival, &mut exit)
        };
        let plain = open("listen", startup.listen, startup.workers)?;
        let tls = startup.tls.as_ref();
        let tls = tls.map(|tls| open("tls.listen", tls.listen, startup.workers)).transpose()?;
        let admin = open("admin.listen", startup.admin, 1)?;
        if arrival.handed_in.contains_key("tls.listen") {
            let cause = "a socket for tls.listen, and no [tls] in the settings";
            return Err(StartError::HandedIn(cause.to_owned()));
        }
        Ok(Self { plain, tls, admin, exit })
    }
}

fn open(
    key: &'static str,
    address: SocketAddr,
    workers: usize,
    arrival: &mut Arrival,
    exit: &mut Exit,
) -> Result<Door, StartError> {
    if let Some(sockets) = arrival.handed_in.remove(key) {
        let address = sockets[0].local_addr()?;
        tracing::info!(key, %address, sockets = sockets.len(), "listening on what was handed in");
        exit.is_handed_in = true;
        let dup = |_| {
            let sockets = sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
            // What nobody accepts here any more waits there for another process.
            Ok(Sockets { sockets, until: Stage::Leaving })
        };
        return Ok(Door { sockets: (0..workers).map(dup).collect::<io::Result<_>>()?, address });
    }
    let share = arrival.share;
    let sockets = listener::bind(address, workers, share).map_err(|cause| StartError::Listen {
        address,
        key,
        hint: hint(&cause, share),
        cause,
    })?;
    for socket in &sockets {
        exit.own.push(socket.try_clone()?);
    }
    let address = sockets[0].local_addr()?;
    let one = |socket| Sockets { sockets: vec![socket], until: Stage::Stopping };
    Ok(Door { sockets: sockets.into_iter().map(one).collect(), address })
}

/// What to do about an address that can't be had.
fn hint(cause: &io::Error, share: Share) -> &'static str {
    match share {
        _ if cause.kind() != io::ErrorKind::AddrInUse => "",
        Share::Nobody => {
            ". If a running cutover has it: stop that one first, or start this one with --take-over to replace it without a refused connection"
        }
        Share::Other => {
            ". --take-over shares it only with a cutover of the same user; another program has it, or another user's"
        }
    }
}

/// What a stop needs to know of the sockets. While it is held they stay open.
#[derive(Debug, Default)]
pub(super) struct Exit {
    /// Those that this process opened.
    own: Vec<TcpListener>,
    /// Whether some were handed in: whoever did that holds them too, and closing ours loses nothing.
    pub(super) is_handed_in: bool,
}

impl Exit {
    /// Whether another process listens where this one does. Where the system does not tell, there is none.
    pub(super) fn has_successor(&self) -> bool {
        let ours: BTreeSet<u64> = self.own.iter().filter_map(inode).collect();
        let addresses: BTreeSet<_> =
            self.own.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        ["/proc/self/net/tcp", "/proc/self/net/tcp6"].iter().any(|table| {
            let Ok(table) = File::open(table) else { return false };
            listening(BufReader::new(table).lines().map_while(Result::ok)).any(|(there, inode)| {
                !ours.contains(&inode) && addresses.iter().any(|ours| meet(*ours, there))
            })
        })
    }

    /// Lets no new connection begin on the sockets that this process opened.
    pub(super) fn turn_away(&self) {
        for socket in &self.own {
            if let Err(error) = listener::turn_away(socket) {
                tracing::warn!(%error, "connections that begin right now may be lost");
            }
        }
    }
}

/// The number by which the system knows a socket.
fn inode(socket: &TcpListener) -> Option<u64> {
    let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Whether who comes to one of two addresses may be accepted at the other.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    let is_any = ip.is_unspecified() || other_ip.is_unspecified();
    one.port() == other.port() && (ip == other_ip || is_any)
}

/// Address and inode of each listening socket in a table as Linux writes it (proc_pid_net(5)). Those that listen stand first
/// (`tcp_get_idx` in net/ipv4/tcp_ipv4.c), and the rest is not read: it has a line for each connection of the machine, and a busy one has
/// so many that reading them holds up a stop for seconds.
fn listening(lines: impl Iterator<Item = String>) -> impl Iterator<Item = (SocketAddr, u64)> {
    const LISTEN: &str = "0A";
    lines.skip(1).map_while(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (address, port) = fields.next()?.rsplit_once(':')?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        let address = SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?);
        (state == LISTEN).then_some((address, inode))
    })
}

/// An address as that table has it: words of the machine's own order, in hexadecimal.
fn ip(text: &str) -> Option<IpAddr> {
    let word =
        |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(word(0)?.into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            <[u8; 16]>::try_from(words.as_flattened()).ok().map(IpAddr::from)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_told_apart_by_their_names() {
        for (count, names, want) in [
            (0, "", Ok(vec![])),
            (1, "", Ok(vec!["listen"])),
            (1, "cutover.socket", Ok(vec!["listen"])),
            (1, "admin.listen", Ok(vec!["admin.listen"])),
            (2, "listen:admin.listen", Ok(vec!["listen", "admin.listen"])),
            (3, "listen:tls.listen:listen", Ok(vec!["listen", "tls.listen", "listen"])),
            (2, "listen:web", Err("a socket is called \"web\"")),
            (2, "admin.listen:admin.listen", Err("admin.listen has one socket")),
            (2, "", Err("2 sockets and 0 names")),
            (2, "listen", Err("2 sockets and 1 names")),
        ] {
            match (keys(count, names), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{names}"),
                (Err(got), Err(want)) => assert!(got.starts_with(want), "{got}"),
                (got, _) => panic!("{count} {names}: {got:?}"),
            }
        }
    }

    #[test]
    fn who_listens_is_read_from_the_systems_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0\n\
            \x20  1: 00000000000000000000000001000000:1F41 0:0000 0A 0:0 00:0 0  0  0 4713 1\n\
            \x20  2: 0100007F:1F40 0100007F:8000 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 100 0 0 10 0\n\
            nonsense\n";
        let want = ["127.0.0.1:8000", "[::1]:8001"].map(|text| text.parse().unwrap());
        let found: Vec<_> = listening(table.lines().map(str::to_owned)).collect();
        assert_eq!(found, [(want[0], 4711), (want[1], 4713)]);
        let mut read = 0;
        let lines = table.lines().chain(std::iter::repeat("x")).inspect(|_| read += 1);
        assert_eq!(listening(lines.map(str::to_owned)).count(), 2);
        assert_eq!(read, 4, "connections are not read");
    }

    #[test]
    fn only_who_can_be_met_at_an_address_is_a_successor() {
        for (one, other, want) in [
            ("127.0.0.1:8000", "127.0.0.1:8000", true),
            ("127.0.0.1:8000", "127.0.0.1:8001", false),
            ("10.0.0.5:8000", "127.0.0.1:8000", false),
            ("10.0.0.5:8000", "0.0.0.0:8000", true),
            ("[::]:8000", "127.0.0.1:8000", true),
            ("[::ffff:127.0.0.1]:8000", "127.0.0.1:8000", true),
            ("[::1]:8000", "127.0.0.1:8000", false),
        ] {
            assert_eq!(meet(one.parse().unwrap(), other.parse().unwrap()), want, "{one} {other}");
        }
    }

    #[test]
    fn another_process_on_the_same_address_is_seen() {
        let any = ([127, 0, 0, 1], 0).into();
        let ours = listener::bind(any, 2, Share::Nobody).unwrap();
        let address = ours[0].local_addr().unwrap();
        let exit = Exit { own: ours, is_handed_in: false };
        assert!(!exit.has_successor(), "its own workers are no successor");
        let other = listener::bind(address, 1, Share::Other).unwrap();
        assert!(exit.has_successor());
        drop(other);
        assert!(!exit.has_successor());
    }
}
