//! What everybody in a simulation sees: the clock, the settings as they were published, who was served by whom, and what went wrong.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::side::{Pair, Side};

/// `realtime.drain`
pub(super) const SOCKET_DRAIN: Duration = Duration::from_secs(6);
/// `drain_timeout`
pub(super) const DRAIN: Duration = Duration::from_secs(12);
/// `realtime.send_timeout`
pub(super) const SEND: Duration = Duration::from_secs(5);
/// How long an end stands still that is slow: less than what is too slow.
pub(super) const SLOW: Duration = Duration::from_secs(3);

pub(super) const SALT: &str = "simulation";
pub(super) const USERS: usize = 6;

/// What a user is called.
pub(super) fn name(user: usize) -> String {
    format!("user-{user}")
}

/// The rollout's settings, as an operator means them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rollout {
    pub(super) percentage: u32,
    pub(super) force: Option<Side>,
    pub(super) pins: BTreeMap<usize, Side>,
}

impl Rollout {
    /// Where a user belongs. Of the rules' order this has what a simulation draws; the hash is written down here a second time.
    pub(super) fn side(&self, user: usize) -> Side {
        if let Some(side) = self.force.or_else(|| self.pins.get(&user).copied()) {
            return side;
        }
        let digest = Sha256::digest(format!("{SALT}:{}", name(user)));
        let number = u64::from(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]));
        let bucket = (number * 10_000) >> 32;
        if bucket < u64::from(self.percentage) * 100 { Side::New } else { Side::Old }
    }

    /// Where all rooms are.
    pub(super) fn rooms(&self) -> Side {
        self.force.unwrap_or(Side::Old)
    }
}

/// Settings that were published.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) at: Instant,
    pub(super) epoch: u64,
    pub(super) rollout: Rollout,
}

/// What a side saw of a request.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) side: Side,
    /// The newest version when it came.
    pub(super) version: usize,
    pub(super) body: Vec<u8>,
}

/// A socket, as all its ends tell of it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) kind: Kind,
    /// Whose it is, and since when.
    pub(super) users: Vec<(Instant, usize)>,
    /// An end of it stands still now and then.
    pub(super) is_slow: bool,
    /// The sides answer its handshakes at once: while the proxy waits for one it reads nothing of the socket, and what waits there when the
    /// socket is closed is lost.
    pub(super) is_prompt: bool,
    /// The client has joined, or the tunnel is open.
    pub(super) since: Option<Instant>,
    /// The newest version when the handshake was sent.
    pub(super) asked_at: usize,
    /// Sides where its channel is joined; `true`: with bindings. A tunnel: its side.
    pub(super) joined: Pair<Option<bool>>,
    /// When the channel was joined or left last, on any side.
    pub(super) settled: Instant,
    /// What the client sent, and when.
    pub(super) sent: Vec<Instant>,
    /// What came of it at a side.
    pub(super) arrived: Vec<(Side, usize)>,
    /// What the sides sent: which side, its number, when.
    pub(super) emitted: Vec<(Side, usize, Instant)>,
    /// What came of it at the client.
    pub(super) heard: Vec<(Side, usize)>,
    /// The client has heard the end of it.
    pub(super) ended: Option<Instant>,
    /// The client has closed it by itself.
    pub(super) is_own_end: bool,
}

impl Socket {
    /// Whether its changes come from one side and its room is on the other (or the same). A side that the changes have left is not told to
    /// stop as long as the room is there.
    fn fits(&self, changes: Side, rooms: Side) -> bool {
        let is_room_there = match rooms == changes {
            true => self.joined[rooms.other()] != Some(false),
            false => self.joined[rooms].is_some(),
        };
        self.joined[changes] == Some(true) && is_room_there
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Realtime,
    Tunnel,
}

/// The stage.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) start: Instant,
    pub(super) versions: RefCell<Vec<Version>>,
    pub(super) requests: RefCell<BTreeMap<usize, Vec<Arrival>>>,
    pub(super) sockets: RefCell<BTreeMap<usize, Socket>>,
    /// How many rows each side has written: each is an event for those who are joined there.
    pub(super) rows: Pair<watch::Sender<usize>>,
    pub(super) stopped: Cell<Option<Instant>>,
    pub(super) faults: RefCell<Vec<String>>,
    pub(super) log: RefCell<Vec<String>>,
    next: Cell<usize>,
    pub(super) answered: Cell<usize>,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            versions: RefCell::default(),
            requests: RefCell::default(),
            sockets: RefCell::default(),
            rows: Pair::from_fn(|_| watch::Sender::new(0)),
            stopped: Cell::default(),
            faults: RefCell::default(),
            log: RefCell::default(),
            next: Cell::default(),
            answered: Cell::default(),
        }
    }

    pub(super) fn say(&self, what: &str) {
        self.log.borrow_mut().push(format!("{:>6} ms  {what}", self.start.elapsed().as_millis()));
    }

    pub(super) fn fault(&self, what: &str) {
        self.say(&format!("FAULT {what}"));
        self.faults.borrow_mut().push(what.to_owned());
    }

    /// A number that nobody had before.
    pub(super) fn number(&self) -> usize {
        self.next.replace(self.next.get() + 1)
    }

    /// Index of the newest version.
    pub(super) fn version(&self) -> usize {
        self.versions.borrow().len() - 1
    }

    /// Where a user may have been served by the versions from one to another.
    pub(super) fn allowed(&self, user: usize, from: usize, to: usize) -> BTreeSet<Side> {
        self.versions.borrow()[from..=to].iter().map(|version| version.rollout.side(user)).collect()
    }

    pub(super) fn with<R>(&self, socket: usize, change: impl FnOnce(&mut Socket) -> R) -> R {
        change(self.sockets.borrow_mut().get_mut(&socket).unwrap())
    }

    /// The laws that hold at any moment: of each socket that is open, whether it has been where it doesn't belong for too long.
    pub(super) fn look(&self) {
        let now = Instant::now();
        let mut faults = Vec::new();
        for (number, socket) in self.sockets.borrow().iter() {
            if socket.since.is_some() && socket.ended.is_none() && self.stopped.get().is_none() {
                faults.extend(
                    self.misplaced(socket, now).map(|why| format!("socket {number}: {why}")),
                );
            }
        }
        faults.iter().for_each(|fault| self.fault(fault));
    }

    fn misplaced(&self, socket: &Socket, now: Instant) -> Option<String> {
        let versions = self.versions.borrow();
        let user = socket.users.last()?.1;
        let since = socket.since?;
        let place = |version: &Version| (version.rollout.side(user), version.rollout.rooms());
        let slack = if socket.is_slow { SLOW * 3 } else { Duration::from_millis(100) };
        if socket.kind == Kind::Tunnel {
            // Once its user has moved it closes, whatever comes after; settings that were replaced in the same moment were seen by nobody.
            let side = Side::ALL.into_iter().find(|side| socket.joined[*side].is_some())?;
            let ends = versions.iter().skip(1).map(|next| next.at).chain([now]);
            let moved = versions.iter().zip(ends).skip(socket.asked_at).find(|(version, end)| {
                version.rollout.side(user) != side && *end > version.at.max(since)
            });
            let (late, _) =
                moved.filter(|(moved, _)| now > moved.at.max(since) + SOCKET_DRAIN + slack)?;
            return Some(format!(
                "{} moved at epoch {}, and its tunnel is still open",
                name(user),
                late.epoch
            ));
        }
        let current = place(versions.last()?);
        let unchanged =
            versions.iter().rev().take_while(|version| place(version) == current).last()?;
        let rest =
            [unchanged.at, socket.settled, since, socket.users.last()?.0].into_iter().max()?;
        if now <= rest + SOCKET_DRAIN + slack {
            return None;
        }
        let (changes, rooms) = current;
        (!socket.fits(changes, rooms)).then(|| {
            format!(
                "{} belongs to {changes} (rooms {rooms}) and is joined as {:?}",
                name(user),
                socket.joined
            )
        })
    }

    /// Whether a socket had to move at this moment, or (one with an end that stands still) not long ago.
    pub(super) fn has_moved(&self, socket: &Socket) -> bool {
        let now = Instant::now();
        let versions = self.versions.borrow();
        let user = socket.users.last().unwrap().1;
        let back = if socket.is_slow { SLOW * 2 } else { Duration::ZERO };
        let ends = versions.iter().skip(1).map(|next| Some(next.at)).chain([None]);
        let recent =
            versions.iter().zip(ends).filter(|(_, end)| end.is_none_or(|end| end + back >= now));
        match socket.kind {
            // A change that was taken back is one all the same.
            Kind::Tunnel => versions
                .iter()
                .skip(socket.asked_at)
                .any(|version| socket.joined[version.rollout.side(user)].is_none()),
            // Where both sides are listened to, the changes have moved once, and it can't be told from here which side is heard.
            Kind::Realtime if Side::ALL.iter().all(|side| socket.joined[*side] == Some(true)) => {
                true
            }
            Kind::Realtime => recent
                .map(|(version, _)| &version.rollout)
                .any(|rollout| !socket.fits(rollout.side(user), rollout.rooms())),
        }
    }

    /// The laws of a socket that has ended: nothing lost, nothing twice, nothing out of order.
    pub(super) fn account(&self, number: usize) {
        let mut faults = Vec::new();
        self.with(number, |socket| {
            let Some(ended) = socket.ended else { return };
            let arrived: Vec<usize> = socket.arrived.iter().map(|(_, n)| *n).collect();
            if arrived.iter().enumerate().any(|(at, n)| at != *n) {
                faults.push(format!("of its messages {arrived:?} arrived"));
            }
            let must = socket.sent.iter().filter(|at| **at < ended || socket.is_own_end).count();
            let is_heard_out = socket.is_own_end && self.stopped.get().is_none();
            if !socket.is_slow && (socket.is_prompt || is_heard_out) && arrived.len() < must {
                faults.push(format!("{} of {must} messages arrived", arrived.len()));
            }
            for side in Side::ALL {
                let heard: Vec<usize> = socket
                    .heard
                    .iter()
                    .filter(|(from, _)| *from == side)
                    .map(|(_, n)| *n)
                    .collect();
                let told: Vec<(usize, Instant)> = socket
                    .emitted
                    .iter()
                    .filter(|(from, ..)| *from == side)
                    .map(|(_, n, at)| (*n, *at))
                    .collect();
                if heard.windows(2).any(|pair| pair[0] >= pair[1]) {
                    faults.push(format!("it heard {heard:?} from {side}"));
                }
                let is_whole = socket.users.len() == 1 && !socket.is_slow && socket.is_prompt;
                let missed =
                    told.iter().filter(|(n, at)| *at < ended && !heard.contains(n)).count();
                if is_whole && missed > 0 {
                    faults.push(format!(
                        "it heard {heard:?} of {told:?} from {side}, and ended at {ended:?}"
                    ));
                }
                if let Some(n) = heard.iter().find(|n| !told.iter().any(|(told, _)| told == *n)) {
                    faults.push(format!("it heard {n} from {side}, which nobody said"));
                }
            }
        });
        faults.iter().for_each(|fault| self.fault(&format!("socket {number}: {fault}")));
    }
}
