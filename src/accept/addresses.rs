//! What one client address may take: so many open connections, so many requests per second. Pure: whoever asks says what time it is.
//!
//! A client's connections are spread over all workers, so the workers share what is kept here, and it must neither grow nor make anybody wait:
//! a table of a fixed size, made when a limit is first used, in which a change is one compare-and-swap on the address's own cell. (The keyed
//! stores of the `governor` crate grow with the addresses until somebody shrinks them, and take a lock that other addresses take too.)
//!
//! The price: two first requests of an address at the very same moment may, seldom, get a cell each, and it has twice its limit until one of
//! the cells is free.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Cells of a table. Far more than addresses that are at it at a time; 4 MiB.
const CELLS: usize = 1 << 18;

/// How many cells an address may be in: two cache lines.
const WAYS: usize = 8;

/// A state's lower bits: what is kept of its address.
const VALUE: u64 = (1 << 48) - 1;
/// A state's bits above: how often the cell has changed hands. Whoever looked at its owner before that fails to change it.
const TURN: u64 = 1 << 48;
/// The cell changes hands at this moment.
const BUSY: u64 = 1 << 63;

/// How often a cell that changes hands is looked at again: it takes two writes, unless the system has other plans for whoever writes.
const LOOKS: usize = 64;

/// Connections beyond the limit of an address that still get an answer (503); any more are closed without one, and hold no place.
const ANSWERED_BEYOND_LIMIT: u64 = 4;

/// How far two workers' clocks of two requests may be apart, in microseconds: each reads its own when a head is complete.
const SKEW: u64 = 10_000_000;

/// How many requests an address may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// In each second, on average; 0 counts as 1. Exact to the microsecond between two requests.
    pub per_second: u64,
    /// At once, after a pause; 0 = as many as in a second.
    pub burst: u64,
}

/// The request is one too many; this is how long the address has to wait for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSoon(pub Duration);

/// The connection is far beyond its address's limit, and not worth an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FarTooMany;

/// What all addresses take.
#[derive(Debug, Default)]
pub struct Addresses {
    connections: OnceLock<Table>,
    requests: OnceLock<Table>,
    /// When the first request was counted.
    began: OnceLock<Instant>,
}

/// A connection that is counted for its address until this is dropped.
#[derive(Debug)]
pub struct Entered {
    addresses: Arc<Addresses>,
    cell: usize,
    /// It is beyond the limit: it gets an answer, and no more.
    pub is_beyond: bool,
}

impl Addresses {
    /// Counts a request of an address.
    ///
    /// Where more addresses are active than the table holds, those are forgotten that have asked least.
    ///
    /// # Errors
    /// [`TooSoon`]: it is beyond the pace, and does not count.
    pub fn asks(&self, address: IpAddr, pace: Pace, now: Instant) -> Result<(), TooSoon> {
        let since = now.saturating_duration_since(*self.began.get_or_init(|| now));
        let now = u64::try_from(since.as_micros()).unwrap_or(VALUE).min(VALUE);
        let step = |until: Option<u64>| pace.next(until, now);
        table(&self.requests).change(owner(address), |_| true, step).map(|_| ())
    }

    /// Counts a connection of an address, as long as it is open. `None`: it is not counted, because the table holds no more addresses.
    ///
    /// # Errors
    /// [`FarTooMany`]
    pub fn enters(
        self: &Arc<Self>,
        address: IpAddr,
        most: u64,
    ) -> Result<Option<Entered>, FarTooMany> {
        let one_more = |open: Option<u64>| match open.unwrap_or(0) {
            open if open >= most.saturating_add(ANSWERED_BEYOND_LIMIT) => Err(FarTooMany),
            open => Ok(open + 1),
        };
        let is_free = |open| open == 0;
        let entered = table(&self.connections).change(owner(address), is_free, one_more)?;
        Ok(entered.map(|(cell, open)| Entered {
            addresses: Arc::clone(self),
            cell,
            is_beyond: open > most,
        }))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(cell) = table(&self.addresses.connections).cells.get(self.cell) {
            // Above 0 as long as this lives, so that it borrows nothing from the bits above, and the cell stays its address's.
            cell.state.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The table, made now if this is the first use. Whoever comes second at that moment makes one in vain, and does not wait.
fn table(made: &OnceLock<Table>) -> &Table {
    match made.get() {
        Some(table) => table,
        None => {
            let _late = made.set(Table::new(CELLS));
            made.get_or_init(|| Table::new(CELLS))
        }
    }
}

impl Pace {
    /// Until when an address is used up after one more request (the "generic cell rate algorithm"), in microseconds. `until` is what it was
    /// before: each request moves it on by one step, and it may be ahead of the clock by a burst's steps.
    fn next(self, until: Option<u64>, now: u64) -> Result<u64, TooSoon> {
        let per_second = self.per_second.max(1);
        let step = (1_000_000 / per_second).max(1);
        let burst = if self.burst == 0 { per_second } else { self.burst };
        // What is further ahead than this pace can bring it is from another pace, which was changed since.
        let furthest = now.saturating_add(step.saturating_mul(burst)).saturating_add(SKEW);
        let begins = until.filter(|until| *until <= furthest).unwrap_or(now).max(now);
        let ahead = begins - now;
        match ahead.checked_sub(step.saturating_mul(burst - 1)) {
            None | Some(0) => Ok(begins.saturating_add(step).min(VALUE)),
            Some(wait) => Err(TooSoon(Duration::from_micros(wait))),
        }
    }
}

/// What counts as one client: an IPv4 address; of IPv6 the network of 64 bits, because whoever has one address there has all of it.
fn owner(address: IpAddr) -> u64 {
    match address.to_canonical() {
        // No IPv6 network of the internet begins with so many zeros.
        IpAddr::V4(address) => (1 << 32) | u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

/// Owners and a value for each, in a fixed number of cells.
#[derive(Debug)]
struct Table {
    cells: Box<[Cell]>,
    /// Nobody outside can know which addresses share their cells.
    hash: RandomState,
}

#[derive(Debug, Default)]
struct Cell {
    owner: AtomicU64,
    state: AtomicU64,
}

impl Table {
    /// `cells`: a power of two, and at least [`WAYS`].
    fn new(cells: usize) -> Self {
        let cells = std::iter::repeat_with(Cell::default).take(cells).collect();
        Self { cells, hash: RandomState::new() }
    }

    /// The cells that an owner may be in.
    fn ways(&self, owner: u64) -> impl Iterator<Item = (usize, &Cell)> {
        let sets = (self.cells.len() / WAYS).max(1);
        let first = (self.hash.hash_one(owner) as usize % sets) * WAYS;
        let ways = self.cells.get(first..first + WAYS).unwrap_or_default();
        ways.iter().enumerate().map(move |(way, cell)| (first + way, cell))
    }

    /// Changes an owner's value; `next` makes the new one of the old one. An owner without a cell takes the one with the smallest value, if
    /// it may be taken. Answers the cell and its new value; `None` when there is no cell.
    ///
    /// # Errors
    /// Those of `next`; nothing is changed then.
    fn change<E>(
        &self,
        owner: u64,
        may_take: impl Fn(u64) -> bool,
        next: impl Fn(Option<u64>) -> Result<u64, E>,
    ) -> Result<Option<(usize, u64)>, E> {
        'again: loop {
            let mut spare: Option<(usize, &Cell, u64)> = None;
            for (index, cell) in self.ways(owner) {
                let Some(state) = cell.settled() else { continue };
                if cell.owner.load(Ordering::Relaxed) == owner {
                    let value = next(Some(state & VALUE))?;
                    // Fails when the owner is no longer this one, or somebody else was faster.
                    match cell.replace(state, (state & !VALUE) | value) {
                        true => return Ok(Some((index, value))),
                        false => continue 'again,
                    }
                }
                if spare.is_none_or(|(_, _, least)| state & VALUE < least & VALUE) {
                    spare = Some((index, cell, state));
                }
            }
            let spare = spare.filter(|(_, _, state)| may_take(state & VALUE));
            let Some((index, cell, state)) = spare else { return Ok(None) };
            let value = next(None)?;
            let taken = ((state & !VALUE).wrapping_add(TURN) & !BUSY) | value;
            if cell.replace(state, taken | BUSY) {
                cell.owner.store(owner, Ordering::Relaxed);
                cell.state.store(taken, Ordering::Release);
                return Ok(Some((index, value)));
            }
        }
    }
}

impl Cell {
    /// The state, of an owner that can be read; `None` when it changes hands for longer than one would wait.
    fn settled(&self) -> Option<u64> {
        let looks = (0..LOOKS).map(|_| self.state.load(Ordering::Acquire));
        looks
            .inspect(|state| {
                if state & BUSY != 0 {
                    std::hint::spin_loop()
                }
            })
            .find(|state| state & BUSY == 0)
    }

    fn replace(&self, seen: u64, state: u64) -> bool {
        let replaced =
            self.state.compare_exchange(seen, state, Ordering::AcqRel, Ordering::Relaxed);
        replaced.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace { per_second: 10, burst: 5 };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// All of a test's moments are after its first one.
    struct Asked {
        addresses: Arc<Addresses>,
        began: Instant,
    }

    impl Asked {
        fn new() -> Self {
            let asked = Self { addresses: Arc::default(), began: Instant::now() };
            asked.asks(address("203.0.113.1"), PACE, ms(0)).unwrap();
            asked
        }

        fn asks(&self, from: IpAddr, pace: Pace, at: Duration) -> Result<(), TooSoon> {
            self.addresses.asks(from, pace, self.began + at)
        }
    }

    /// How many of `count` requests at one moment pass.
    fn pass(asked: &Asked, from: IpAddr, pace: Pace, at: Duration, count: usize) -> usize {
        (0..count).filter(|_| asked.asks(from, pace, at).is_ok()).count()
    }

    #[test]
    fn a_burst_passes_and_one_more_waits_as_long_as_it_is_told() {
        let addresses = Asked::new();
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(pass(&addresses, one, PACE, ms(1000), 5), 5);
        assert_eq!(addresses.asks(one, PACE, ms(1000)), Err(TooSoon(ms(100))));
        assert_eq!(addresses.asks(one, PACE, ms(1040)), Err(TooSoon(ms(60))));
        assert_eq!(pass(&addresses, other, PACE, ms(1040), 9), 5, "another address has its own");
        assert_eq!(addresses.asks(one, PACE, ms(1100)), Ok(()), "refused ones do not count");
        assert_eq!(addresses.asks(one, PACE, ms(1199)), Err(TooSoon(ms(1))));
        assert_eq!(
            pass(&addresses, one, PACE, ms(9000), 9),
            5,
            "a pause saves no more than a burst"
        );
    }

    #[test]
    fn without_a_burst_it_is_a_seconds_worth() {
        let (addresses, one) = (Asked::new(), address("192.0.2.1"));
        let pace = Pace { per_second: 7, burst: 0 };
        assert_eq!(pass(&addresses, one, pace, ms(5), 100), 7);
        let nothing = Pace { per_second: 0, burst: 0 };
        assert_eq!(pass(&addresses, address("::1"), nothing, ms(0), 100), 1);
    }

    #[test]
    fn a_pace_that_changed_is_not_held_against_those_who_asked_before() {
        let (addresses, one) = (Asked::new(), address("192.0.2.1"));
        let long = Pace { per_second: 1, burst: 1_000_000 };
        assert_eq!(pass(&addresses, one, long, ms(0), 1000), 1000);
        assert_eq!(pass(&addresses, one, PACE, ms(0), 9), 5);
        assert_eq!(pass(&addresses, one, Pace { burst: 50, ..PACE }, ms(0), 100), 45);
        assert_eq!(addresses.asks(one, PACE, ms(0)), Err(TooSoon(ms(4600))), "at most so long");
    }

    #[test]
    fn a_worker_whose_clock_is_behind_does_not_forget() {
        let (addresses, one) = (Asked::new(), address("192.0.2.1"));
        assert_eq!(pass(&addresses, one, PACE, ms(5000), 5), 5);
        assert_eq!(addresses.asks(one, PACE, ms(4990)), Err(TooSoon(ms(110))));
    }

    #[test]
    fn an_ipv6_client_is_its_network_and_a_mapped_one_is_its_ipv4_address() {
        let addresses = Asked::new();
        let same = [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::1", "::2"),
        ];
        for (one, other) in same {
            assert_eq!(pass(&addresses, address(one), PACE, ms(0), 3), 3, "{one}");
            assert_eq!(pass(&addresses, address(other), PACE, ms(0), 9), 2, "{other}");
        }
        for other in ["2001:db8:1:3::1", "192.0.2.2", "0.0.0.0", "255.255.255.255"] {
            assert_eq!(pass(&addresses, address(other), PACE, ms(0), 9), 5, "{other}");
        }
    }

    #[test]
    fn a_place_that_is_free_again_is_used() {
        let (addresses, one) = (Arc::new(Addresses::default()), address("192.0.2.1"));
        let enter = || addresses.enters(one, 2).map(Option::unwrap);
        let mut open: Vec<Entered> = (0..6).map(|_| enter().unwrap()).collect();
        let beyond: Vec<bool> = open.iter().map(|entered| entered.is_beyond).collect();
        assert_eq!(beyond, [false, false, true, true, true, true]);
        assert_eq!(enter().unwrap_err(), FarTooMany);
        let other = addresses.enters(address("192.0.2.2"), 2).unwrap().unwrap();
        assert!(!other.is_beyond, "another address has its own");
        open.truncate(1);
        assert!(!enter().unwrap().is_beyond);
        assert!(!enter().unwrap().is_beyond, "the last one was dropped");
        drop(open);
        assert!(addresses.enters(one, 65_535).unwrap().is_some());
    }

    #[test]
    fn a_hundred_thousand_addresses_take_no_more_room_than_one() {
        let asked = Asked::new();
        let addresses = &asked.addresses;
        let victim = address("198.51.100.7");
        assert_eq!(pass(&asked, victim, PACE, ms(0), 3), 3);
        let crowd = (0..50_000_u32).flat_map(|i| {
            let v6 = u128::from(0x2001_0db8_0000_0000 | u64::from(i)) << 64;
            [IpAddr::V4((0x0a00_0000 | i).into()), IpAddr::V6(v6.into())]
        });
        let crowd: Vec<IpAddr> = crowd.collect();
        for one in &crowd {
            assert_eq!(asked.asks(*one, PACE, ms(1)), Ok(()));
        }
        let open: Vec<_> = crowd.iter().map(|one| addresses.enters(*one, 1).unwrap()).collect();
        let size = |table: &OnceLock<Table>| size_of_val(&*table.get().unwrap().cells);
        assert_eq!((size(&addresses.requests), size(&addresses.connections)), (4 << 20, 4 << 20));
        assert_eq!(pass(&asked, victim, PACE, ms(1), 9), 2, "who asked most is not forgotten");
        let uncounted = open.iter().filter(|entered| entered.is_none()).count();
        assert!(uncounted < crowd.len() / 100, "{uncounted} have no cell");
        drop(open);
        let used = |cell: &Cell| cell.state.load(Ordering::Relaxed) & VALUE != 0;
        assert!(!addresses.connections.get().unwrap().cells.iter().any(used), "all are free again");
    }

    #[test]
    fn a_full_table_forgets_who_asked_least_and_counts_no_more_connections() {
        let table = Table::new(WAYS);
        let one_more = |value: Option<u64>| Ok::<_, ()>(value.unwrap_or(0) + 1);
        for owner in 1..=8 {
            for _ in 0..=owner {
                table.change(owner, |_| true, one_more).unwrap();
            }
        }
        assert_eq!(table.change(9, |open| open == 0, one_more), Ok(None));
        let taken = table.change(9, |_| true, one_more).unwrap().unwrap();
        assert_eq!(taken, (0, 1), "the first one's");
        let value = |owner| table.change(owner, |_| false, |value| value.ok_or(()).map(|v| v + 1));
        assert_eq!(value(1), Ok(None), "who had it is a stranger now");
        assert_eq!(value(8).unwrap().unwrap().1, 10);
    }

    /// Threads that ask at the same moment get what one would have got, and nobody's change is lost.
    #[test]
    fn what_passes_does_not_depend_on_who_asks_at_the_same_time() {
        let asked = Asked::new();
        let addresses = &asked.addresses;
        let pace = Pace { per_second: 1, burst: 10_000 };
        let passed = AtomicUsize::new(0);
        let mine = address("192.0.2.1");
        asked.asks(mine, pace, ms(0)).unwrap();
        let first = addresses.enters(mine, 65_535).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let (asked, passed) = (&asked, &passed);
                scope.spawn(move || {
                    for round in 0..5_000_u32 {
                        let crowd = IpAddr::V4((thread << 16 | round).into());
                        asked.asks(crowd, pace, ms(0)).unwrap();
                        let _others = addresses.enters(crowd, 1).unwrap();
                        let _entered = addresses.enters(mine, 65_535).unwrap();
                        let one_more = asked.asks(mine, pace, ms(0));
                        passed.fetch_add(usize::from(one_more.is_ok()), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 9_999);
        let second = addresses.enters(mine, 2).unwrap().unwrap();
        assert!(!second.is_beyond, "one besides is open");
        assert!(addresses.enters(mine, 2).unwrap().unwrap().is_beyond);
        drop((first, second));
    }

    proptest! {
        /// The law: what passes is what a bucket would let pass that holds `burst` and gains one with every step.
        #[test]
        fn it_is_a_bucket(
            per_second in 1_u64..=10_000,
            burst in 1_u64..50,
            pauses in prop::collection::vec(prop_oneof![Just(0_u64), 0_u64..2_000, 0_u64..3_000_000], 1..200),
        ) {
            let (addresses, one) = (Asked::new(), address("192.0.2.1"));
            let pace = Pace { per_second, burst };
            let step = 1_000_000 / per_second;
            let (mut now, mut held) = (0, step * burst);
            for pause in pauses {
                now += pause;
                held = (held + pause).min(step * burst);
                let want = if held >= step { Ok(()) } else { Err(TooSoon(Duration::from_micros(step - held))) };
                if want.is_ok() {
                    held -= step;
                }
                prop_assert_eq!(addresses.asks(one, pace, Duration::from_micros(now)), want);
            }
        }
    }
}
