//! What was seen, and whether it is explained.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use cutover::side::Side;

use crate::side::Fault;

/// Unexplained cases that are printed with their circumstances.
const SHOWN: usize = 20;

#[derive(Clone, Default)]
pub struct Tally(Arc<Inner>);

#[derive(Default)]
struct Inner {
    number: AtomicU64,
    requests: AtomicU64,
    messages: AtomicU64,
    /// What was done to a request, by its number, until its client has asked.
    faults: Mutex<HashMap<u64, Fault>>,
    /// Writes that arrived and are not answered yet: how often.
    writes: Mutex<HashMap<u64, u32>>,
    counts: Mutex<BTreeMap<String, u64>>,
    unexplained: Mutex<(u64, Vec<String>)>,
}

impl Tally {
    /// A number for a request.
    pub fn number(&self) -> u64 {
        self.0.requests.fetch_add(1, Relaxed);
        self.0.number.fetch_add(1, Relaxed)
    }

    pub fn requests(&self) -> u64 {
        self.0.requests.load(Relaxed)
    }

    pub fn message(&self) {
        self.0.messages.fetch_add(1, Relaxed);
    }

    pub fn count(&self, what: impl Into<String>) {
        *self.0.counts.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    /// How often anything was counted that begins like this.
    pub fn counted(&self, begin: &str) -> u64 {
        let counts = self.0.counts.lock().unwrap();
        counts.iter().filter(|(what, _)| what.starts_with(begin)).map(|(_, count)| count).sum()
    }

    pub fn messages(&self) -> u64 {
        self.0.messages.load(Relaxed)
    }

    /// A side says that it fails this request. `false` when it already did: it comes a second time, and is served.
    pub fn injects(&self, number: u64, fault: Fault) -> bool {
        let is_first = self.0.faults.lock().unwrap().insert(number, fault).is_none();
        if is_first {
            self.count(format!("fault: {fault:?}"));
        }
        is_first
    }

    /// What was done to this request.
    pub fn fault(&self, number: u64) -> Option<Fault> {
        self.0.faults.lock().unwrap().remove(&number)
    }

    /// A side got this write.
    pub fn wrote(&self, number: u64, side: Side) {
        let times = {
            let mut writes = self.0.writes.lock().unwrap();
            let times = writes.entry(number).or_default();
            *times += 1;
            *times
        };
        if times > 1 {
            self.unexplained(format!("write {number} arrived {times} times, now on {side}"));
        }
    }

    /// The client of this write has its end.
    pub fn forget_write(&self, number: u64) {
        self.0.writes.lock().unwrap().remove(&number);
    }

    pub fn unexplained(&self, what: String) {
        let (count, shown) = &mut *self.0.unexplained.lock().unwrap();
        *count += 1;
        if shown.len() < SHOWN {
            println!("unexplained: {what}");
            shown.push(what);
        }
    }

    /// Prints everything; answers what fails the soak.
    pub fn report(&self) -> Vec<String> {
        println!("\n{self}");
        for (what, count) in &*self.0.counts.lock().unwrap() {
            println!("{count:>12}  {what}");
        }
        let (count, _) = &*self.0.unexplained.lock().unwrap();
        match count {
            0 => Vec::new(),
            count => vec![format!("{count} unexplained")],
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, messages) = (self.requests(), self.messages());
        let unexplained = self.0.unexplained.lock().unwrap().0;
        write!(f, "{requests} requests, {messages} messages, {unexplained} unexplained")
    }
}
