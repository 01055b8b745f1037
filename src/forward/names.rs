//! Which addresses a project's host has. A name is asked for once by all who need it, and its addresses are remembered for a while: a
//! name server that is slow or away holds up nobody who was connected before, and nothing but the connections to that name.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, Shared};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// How long an answer is good. The system does not tell its time to live; what it has from a cache of its own is cheap.
const FRESH: Duration = Duration::from_secs(5);

/// How long the last good addresses are used after a name server has failed, before it is asked again.
const FAILED: Duration = Duration::from_secs(1);

/// How long an answer is waited for when there are addresses of before.
const SLOW: Duration = Duration::from_millis(250);

/// How long an address that was of no use comes last.
const LAST: Duration = Duration::from_secs(60);

/// Whom to ask for the addresses of a name, best first. It may block: it is asked on a thread of its own.
#[derive(Clone)]
pub struct Resolver(Arc<Ask>);

type Ask = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

impl Resolver {
    /// Asks this.
    #[must_use]
    pub fn new(ask: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl Default for Resolver {
    /// The system: its files, its name servers, in its order (RFC 6724).
    fn default() -> Self {
        Self::new(|host| Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// What was answered, and when it was asked for. Everybody who waited gets the same.
type Answered = (Result<Arc<[IpAddr]>, Arc<io::Error>>, Instant);

/// A question that is being asked.
type Asking = Shared<LocalBoxFuture<'static, Answered>>;

/// What is known of a name.
#[derive(Debug)]
struct Known {
    /// The last good answer; empty before the first one.
    addresses: Arc<[IpAddr]>,
    /// It is good until then.
    until: Instant,
    asking: Option<Asking>,
    /// Addresses that were of no use, and when.
    useless: Vec<(IpAddr, Instant)>,
}

/// The addresses of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    /// In the order in which they are to be tried; never none.
    pub(super) all: Vec<IpAddr>,
    /// They were not asked for just now.
    pub(super) is_remembered: bool,
}

/// The names that one worker knows.
#[derive(Debug)]
pub(super) struct Names {
    resolver: Resolver,
    known: RefCell<HashMap<String, Known>>,
}

impl Names {
    /// Knows none.
    pub(super) fn new(resolver: Resolver) -> Self {
        Self { resolver, known: RefCell::default() }
    }

    /// A host's addresses. The caller bounds the time.
    ///
    /// # Errors
    /// What the resolver says, where there was no answer before.
    pub(super) async fn addresses(&self, host: &str) -> io::Result<Addresses> {
        if let Ok(address) = host.parse() {
            return Ok(Addresses { all: vec![address], is_remembered: false });
        }
        let (asking, has_some) = {
            let mut all = self.known.borrow_mut();
            let now = Instant::now();
            let known = all.entry(host.to_owned()).or_insert_with(|| Known::nothing(now));
            // Whoever asked may have gone before the answer came: it is as old as its question, not as new as this one.
            if let Some(answered) = known.asking.clone().and_then(|asking| asking.now_or_never()) {
                known.note(&answered);
            }
            if known.until > now && !known.addresses.is_empty() {
                return Ok(known.read(true));
            }
            let asking = known.asking.get_or_insert_with(|| ask(&self.resolver, host));
            (asking.clone(), !known.addresses.is_empty())
        };
        let answered = if has_some {
            timeout(SLOW, asking.clone()).await.ok()
        } else {
            Some(asking.clone().await)
        };
        let mut all = self.known.borrow_mut();
        let known = all.get_mut(host).ok_or(io::ErrorKind::NotFound)?;
        match &answered {
            // The first of those who waited notes it for all.
            Some(answered) if known.is_asking(&asking) => known.note(answered),
            Some(_) => {}
            // It is still being asked; those who come meanwhile need not wait as well.
            None => known.until = Instant::now() + FAILED,
        }
        match answered {
            Some((Err(error), _)) if known.addresses.is_empty() => {
                Err(io::Error::new(error.kind(), error.to_string()))
            }
            answered => {
                let is_answered = answered.is_some_and(|(answer, _)| answer.is_ok());
                Ok(known.read(!is_answered))
            }
        }
    }

    /// Doubts a host's addresses until the doubt is dispelled: when it ends otherwise, they are asked for anew by whoever comes next.
    pub(super) fn doubt<'a>(&'a self, host: &'a str) -> Doubt<'a> {
        Doubt { names: self, host, is_real: true }
    }

    /// An address was of no use: it comes last for a while.
    pub(super) fn puts_last(&self, host: &str, address: IpAddr) {
        if let Some(known) = self.known.borrow_mut().get_mut(host) {
            known.useless.retain(|(other, _)| *other != address);
            known.useless.push((address, Instant::now()));
        }
    }
}

/// Ends with the addresses being asked for anew, also when whoever doubts is dropped because its time is over.
#[derive(Debug)]
pub(super) struct Doubt<'a> {
    names: &'a Names,
    host: &'a str,
    is_real: bool,
}

impl Doubt<'_> {
    /// One of the addresses was good.
    pub(super) fn dispelled(mut self) {
        self.is_real = false;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if self.is_real
            && let Some(known) = self.names.known.borrow_mut().get_mut(self.host)
        {
            known.until = Instant::now();
        }
    }
}

impl Known {
    fn nothing(now: Instant) -> Self {
        Self { addresses: Arc::default(), until: now, asking: None, useless: Vec::new() }
    }

    fn is_asking(&self, asking: &Asking) -> bool {
        self.asking.as_ref().is_some_and(|now| now.ptr_eq(asking))
    }

    fn note(&mut self, (answer, asked_at): &Answered) {
        self.asking = None;
        match answer {
            Ok(addresses) => {
                self.addresses = Arc::clone(addresses);
                self.until = *asked_at + FRESH;
            }
            Err(error) if self.addresses.is_empty() => {
                tracing::debug!(%error, "a name has no addresses");
            }
            Err(error) => {
                tracing::warn!(%error, "a name can't be asked for; its last addresses are used");
                self.until = Instant::now() + FAILED;
            }
        }
    }

    /// The addresses in the order in which they are to be tried.
    fn read(&mut self, is_remembered: bool) -> Addresses {
        let now = Instant::now();
        self.useless.retain(|(_, since)| now < *since + LAST);
        let mut all = interleaved(&self.addresses);
        all.sort_by_key(|address| self.useless.iter().any(|(useless, _)| useless == address));
        Addresses { all, is_remembered }
    }
}

/// The families in turn, beginning with the first one's (RFC 8305 4): when one of them leads nowhere, the second try is of the other.
fn interleaved(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let is_first = |address: &&IpAddr| {
        addresses.first().is_some_and(|first| first.is_ipv4() == address.is_ipv4())
    };
    let mut own = addresses.iter().filter(is_first);
    let mut other = addresses.iter().filter(|address| !is_first(address));
    let mut all = Vec::with_capacity(addresses.len());
    while all.len() < addresses.len() {
        all.extend(own.next().into_iter().chain(other.next()));
    }
    all
}

/// Asks on a thread of its own. Not on one of the runtime's: a name server may take half a minute to be given up, and whoever stops the
/// runtime would wait for it.
fn ask(resolver: &Resolver, host: &str) -> Asking {
    let (answer, answered) = oneshot::channel();
    let (asked, name, asked_at) = (resolver.clone(), host.to_owned(), Instant::now());
    let thread = std::thread::Builder::new().name("cutover-name".to_owned());
    let started = thread.spawn(move || {
        let found = match (asked.0)(&name) {
            Ok(none) if none.is_empty() => {
                Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
            }
            found => found,
        };
        // Nobody may be waiting any more.
        let _unheard = answer.send(found);
    });
    async move {
        let found = match started {
            Ok(_thread) => {
                answered.await.unwrap_or_else(|_| Err(io::Error::other("the resolver panicked")))
            }
            Err(error) => Err(error),
        };
        (found.map(Arc::from).map_err(Arc::new), asked_at)
    }
    .boxed_local()
    .shared()
}

/// How many addresses are tried at most, so that a name with very many does not become a flood.
pub(super) const TRIED: usize = 16;

/// Where to connect to.
pub(super) fn sockets(addresses: &Addresses, port: u16) -> Vec<SocketAddr> {
    addresses.all.iter().take(TRIED).map(|address| SocketAddr::new(*address, port)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_keep_their_order() {
        for (given, want) in [
            (&[][..], &[][..]),
            (&["::1"], &["::1"]),
            (&["::1", "::2", "1.1.1.1"], &["::1", "1.1.1.1", "::2"]),
            (
                &["1.1.1.1", "1.1.1.2", "1.1.1.3", "::1", "::2"],
                &["1.1.1.1", "::1", "1.1.1.2", "::2", "1.1.1.3"],
            ),
        ] {
            assert_eq!(interleaved(&addresses(given)), addresses(want), "{given:?}");
        }
    }

    /// Names whose resolver answers what the list has next, and then nothing good.
    fn names(answers: &[&[&str]]) -> Names {
        let answers: Vec<_> = answers.iter().rev().map(|texts| addresses(texts)).collect();
        let answers = Mutex::new(answers);
        Names::new(Resolver::new(move |_| {
            answers.lock().unwrap().pop().ok_or_else(|| io::Error::other("away"))
        }))
    }

    async fn read(names: &Names) -> Vec<String> {
        let found = names.addresses("a").await.unwrap();
        found.all.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn an_answer_is_remembered_until_it_is_doubted() {
        let names = names(&[&["::1", "1.1.1.1"], &["::2"]]);
        assert_eq!(read(&names).await, ["::1", "1.1.1.1"]);
        names.doubt("a").dispelled();
        assert_eq!(read(&names).await, ["::1", "1.1.1.1"]);
        drop(names.doubt("a"));
        assert_eq!(read(&names).await, ["::2"]);
        // The name server is away now, which nobody notices.
        for _ in 0..3 {
            drop(names.doubt("a"));
            assert_eq!(read(&names).await, ["::2"]);
        }
    }

    #[tokio::test]
    async fn what_was_of_no_use_comes_last() {
        let names = names(&[&["::1", "::2", "1.1.1.1"]]);
        assert_eq!(read(&names).await, ["::1", "1.1.1.1", "::2"]);
        names.puts_last("a", "::1".parse().unwrap());
        assert_eq!(read(&names).await, ["1.1.1.1", "::2", "::1"]);
        names.puts_last("a", "1.1.1.1".parse().unwrap());
        names.puts_last("a", "::2".parse().unwrap());
        assert_eq!(read(&names).await, ["::1", "1.1.1.1", "::2"]);
    }

    #[tokio::test]
    async fn no_address_is_an_error_and_an_address_is_no_name() {
        let names = names(&[&[]]);
        for _ in 0..2 {
            assert!(names.addresses("a").await.is_err());
        }
        for literal in ["127.0.0.1", "::1"] {
            let found = names.addresses(literal).await.unwrap();
            assert_eq!(found.all, addresses(&[literal]));
        }
    }

    #[tokio::test]
    async fn all_who_ask_at_once_wait_for_one_answer() {
        let asked = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&asked);
        let (answer, held) = mpsc::channel();
        let held = Mutex::new(held);
        let names = Names::new(Resolver::new(move |_| {
            *counted.lock().unwrap() += 1;
            held.lock().unwrap().recv().unwrap();
            Ok(addresses(&["::1"]))
        }));
        // Whoever began it goes away.
        assert!(timeout(Duration::from_millis(5), names.addresses("a")).await.is_err());
        let all = futures_util::future::join_all((0..100).map(|_| names.addresses("a")));
        let (all, ()) = tokio::join!(all, async { answer.send(()).unwrap() });
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(*asked.lock().unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_heard_is_as_old_as_its_question() {
        let (answer, answers) = mpsc::channel();
        let answers = Mutex::new(answers);
        let names = Names::new(Resolver::new(move |_| Ok(answers.lock().unwrap().recv().unwrap())));
        answer.send(addresses(&["::1"])).unwrap();
        assert_eq!(read(&names).await, ["::1"]);
        drop(names.doubt("a"));
        assert_eq!(read(&names).await, ["::1"], "the name server is slow");
        answer.send(addresses(&["::2"])).unwrap();
        // The thread that asked says it to nobody.
        std::thread::sleep(Duration::from_millis(50));
        tokio::time::advance(Duration::from_secs(60)).await;
        let found = names.addresses("a").await.unwrap();
        assert!(found.is_remembered, "{found:?}");
        answer.send(addresses(&["::3"])).unwrap();
    }
}
