//! What happens while the load runs: the percentage changes every ten seconds, and every minute a side is away for two.

use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use cutover::decide::bucket::{Bucket, Hash};
use cutover::decide::percentage::Percentage;
use cutover::side::Side;

use crate::Soak;

const EVERY: Duration = Duration::from_secs(10);
const PERCENTAGES: [u8; 6] = [10, 50, 100, 50, 10, 0];
/// A side is away in every sixth step, for so long.
const AWAY: Duration = Duration::from_secs(2);
/// How much longer its absence may be felt: the proxy's timeouts, and a machine that is busy.
const FELT: Duration = Duration::from_secs(6);
pub const SALT: &str = "soak";

/// The percentages of all times, and the absences.
#[derive(Default)]
pub struct History(RwLock<Past>);

#[derive(Default)]
struct Past {
    steps: Vec<Step>,
    absences: Vec<(Side, Instant, Option<Instant>)>,
}

struct Step {
    begun: Instant,
    settled: Option<Instant>,
    percentage: u8,
}

impl History {
    /// The sides that may have served a user between these two moments.
    pub fn allowed(&self, user: &str, from: Instant, to: Instant) -> Vec<Side> {
        let past = self.0.read().unwrap();
        let bucket = Bucket::of(Hash::Sha256, SALT, user);
        let mut allowed = Vec::new();
        let mut add = |percentage| {
            let is_new = bucket.is_new_at(Percentage::from_whole(percentage).unwrap());
            let side = if is_new { Side::New } else { Side::Old };
            if !allowed.contains(&side) {
                allowed.push(side);
            }
        };
        let mut replaced_at = past.steps.first().map(|step| step.settled.unwrap_or(to));
        if replaced_at.is_none_or(|at| at >= from) {
            add(0);
        }
        for (index, step) in past.steps.iter().enumerate() {
            replaced_at = past.steps.get(index + 1).and_then(|next| next.settled);
            if step.begun <= to && replaced_at.is_none_or(|at| at >= from) {
                add(step.percentage);
            }
        }
        allowed
    }

    /// Whether a side was away between these two moments, or had been just before.
    pub fn was_away(&self, side: Side, from: Instant, to: Instant) -> bool {
        let past = self.0.read().unwrap();
        past.absences.iter().any(|(away, began, ended)| {
            *away == side && *began <= to && ended.is_none_or(|ended| ended + FELT >= from)
        })
    }

    /// Whether sockets may have been closed at this moment, because their users moved or a side was away.
    pub fn was_restless(&self, at: Instant, drain: Duration) -> bool {
        let away = Side::ALL.iter().any(|side| self.was_away(*side, at, at));
        let past = self.0.read().unwrap();
        away || past.steps.iter().any(|step| {
            step.begun <= at && step.settled.is_none_or(|settled| settled + drain + FELT >= at)
        })
    }

    fn changes(&self, percentage: u8) {
        let begun = Instant::now();
        self.0.write().unwrap().steps.push(Step { begun, settled: None, percentage });
    }

    fn settled(&self) {
        self.0.write().unwrap().steps.last_mut().unwrap().settled = Some(Instant::now());
    }

    fn goes(&self, side: Side) {
        self.0.write().unwrap().absences.push((side, Instant::now(), None));
    }

    fn comes_back(&self) {
        self.0.write().unwrap().absences.last_mut().unwrap().2 = Some(Instant::now());
    }
}

/// Changes the percentage, by file and by the admin API in turn, and takes the sides away in turn.
pub async fn run(soak: Arc<Soak>, until: Instant) {
    for turn in 0.. {
        tokio::time::sleep(EVERY).await;
        if Instant::now() + EVERY >= until {
            return;
        }
        let percentage = PERCENTAGES[turn % PERCENTAGES.len()];
        soak.history.changes(percentage);
        soak.proxy.is_told(percentage, turn % 2 == 0).await;
        soak.history.settled();
        soak.tally.count(format!(
            "change of the percentage by {}",
            if turn % 2 == 0 { "file" } else { "admin API" }
        ));
        if turn % 6 == 2 {
            let side = if turn % 12 == 2 { Side::New } else { Side::Old };
            soak.history.goes(side);
            soak.sides[side].is_away_for(AWAY).await;
            soak.history.comes_back();
            soak.tally.count(format!("outage of {side}"));
        }
    }
}
