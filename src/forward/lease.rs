//! One HTTP/1 connection to a side. No task of its own: while it is kept it is a value in a list, and whoever borrows it for a request
//! reads and writes it.

use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::Settings;
use super::pool::{Address, Pool};
use crate::http1::link::Link;
use crate::http1::stream::Stream;
use crate::observe::metrics::Held;
use crate::side::Side;

/// An HTTP/1 connection in use. Given back by [`Lease::give_back`] when the response has been read to its end; dropped in
/// any other state, which closes it.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) link: Link<Stream>,
    pub(super) alarm: Alarm,
    pub(super) address: Rc<Address>,
    pub(super) side: Side,
    pub(super) made: Instant,
    /// Where it goes back to; nowhere for a connection that is made for an upgrade.
    pool: Weak<Pool>,
    idle_timeout: Duration,
    idle_connections: usize,
    _open: Held,
}

/// A kept connection, and for how long.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) lease: Box<Lease>,
    pub(super) since: Instant,
    pub(super) until: Instant,
}

impl Lease {
    /// A new connection. It goes back to `pool`.
    pub(super) fn new(
        stream: Stream,
        address: Rc<Address>,
        side: Side,
        pool: Weak<Pool>,
        open: Held,
    ) -> Box<Self> {
        Box::new(Self {
            link: Link::new(stream),
            alarm: Alarm::default(),
            address,
            side,
            made: Instant::now(),
            pool,
            idle_timeout: Duration::ZERO,
            idle_connections: 0,
            _open: open,
        })
    }

    /// The same, for a request under these settings.
    pub(super) fn under(mut self: Box<Self>, settings: &Settings) -> Box<Self> {
        self.idle_timeout = settings.idle_timeout;
        self.idle_connections = settings.idle_connections;
        self
    }

    /// Keeps the connection for the next request, unless something is there that nobody asked for. `hint` is what the side said about how
    /// long it will (`Keep-Alive: timeout=N`): a connection that the side is about to close is not worth the race.
    pub(super) fn give_back(self: Box<Self>, hint: Option<Duration>) {
        let Some(pool) = self.pool.upgrade() else { return };
        let wait = hint.map_or(self.idle_timeout, |hint| hint.min(self.idle_timeout));
        let is_clean = self.link.held().is_empty() && self.link.unwritten() == 0;
        if is_clean && !wait.is_zero() {
            let (side, most, since) = (self.side, self.idle_connections, Instant::now());
            pool.keep(side, most, Kept { lease: self, since, until: since + wait });
        }
    }
}

impl Kept {
    /// Whether nothing has come of it, as far as is known without asking the system.
    pub(super) fn stands(&mut self) -> bool {
        self.lease.link.io_mut().is_quiet()
    }

    /// The same, and the system is asked.
    pub(super) fn really_stands(&self) -> bool {
        self.lease.link.io().is_really_quiet()
    }
}

/// A timer that is set once for many waits: it is moved only when it goes off too early, so that a wait that ends in time costs none.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when it is `due`.
    pub(super) fn poll_due(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_alarm_goes_off_when_it_is_due_whatever_it_waited_for_before() {
        let mut alarm = Alarm::default();
        let began = Instant::now();
        let second = Duration::from_secs(1);
        let first = poll_fn(|cx| Poll::Ready(alarm.poll_due(began + second * 5, cx))).await;
        assert!(first.is_pending());
        for (due, at) in [(9, 9), (4, 9), (10, 10), (60, 60)] {
            poll_fn(|cx| alarm.poll_due(began + second * due, cx)).await;
            assert_eq!(began.elapsed().as_secs(), at, "{due}");
        }
        let now = Instant::now();
        let later = poll_fn(|cx| Poll::Ready(alarm.poll_due(now + second * 9, cx))).await;
        assert!(later.is_pending());
        poll_fn(|cx| alarm.poll_due(now + second, cx)).await;
        assert_eq!(now.elapsed(), second);
    }
}
