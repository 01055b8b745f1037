//! Is this set-up sound? Asks both projects what an operator would want to know before the first user moves, and says of each answer
//! what it means and what to do.
//!
//! Reads only: nothing is written to a project, no user is made, no function is called. `judge` is pure and says what an answer means;
//! `probe` is the shell that asks.

pub mod finding;
mod judge;
mod probe;

use std::time::Duration;

use crate::config::Report;
use crate::side::Side;
use finding::{CHECKS, Finding};

/// What is asked, and how hard.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only lines about this side (and about both together).
    pub side: Option<Side>,
    /// Only checks whose id begins with one of these; empty: all.
    pub only: Vec<String>,
    /// No checks whose id begins with one of these.
    pub skip: Vec<String>,
    /// Questions at the same time, 1 to 64.
    pub concurrency: usize,
    /// For each whole answer.
    pub timeout: Duration,
}

/// No check has an id that begins like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no check is called {name}: there are {known}")]
pub struct UnknownCheck {
    /// What was asked for.
    name: String,
    /// The groups of checks.
    known: String,
}

fn groups() -> Vec<String> {
    let mut groups: Vec<String> =
        CHECKS.iter().filter_map(|(id, _)| Some(format!("{}.*", id.split('.').next()?))).collect();
    groups.dedup();
    groups
}

impl Options {
    /// Whether every id in `only` and `skip` is the beginning of a check's.
    ///
    /// # Errors
    /// [`UnknownCheck`]: the first that is not.
    pub fn check(&self) -> Result<(), UnknownCheck> {
        let known = |start: &str| CHECKS.iter().any(|(id, _)| begins(id, start));
        let mut all = self.only.iter().chain(&self.skip);
        match all.find(|start| !known(start)) {
            None => Ok(()),
            Some(name) => Err(UnknownCheck { name: name.clone(), known: groups().join(", ") }),
        }
    }

    /// Whether a check is wanted.
    fn wants(&self, id: &str) -> bool {
        let among = |list: &[String]| list.iter().any(|start| begins(id, start));
        (self.only.is_empty() || among(&self.only)) && !among(&self.skip)
    }

    /// Whether any check of a group (`rest.`) is wanted.
    fn wants_any(&self, group: &str) -> bool {
        CHECKS.iter().any(|(id, _)| id.starts_with(group) && self.wants(id))
    }
}

/// `rest`, `rest.` and `rest.table` all begin `rest.table`; `res` does not.
fn begins(id: &str, start: &str) -> bool {
    let rest = id.strip_prefix(start.trim_end_matches('*'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || start.ends_with(['.', '*']))
}

/// Hears how it goes on.
pub trait Progress {
    /// So many questions more are to come.
    fn more(&self, questions: usize);
    /// One of them was answered.
    fn done(&self);
    /// What is asked about now.
    fn about(&self, what: &str);
}

/// Asks everything that is wanted. The lines are in the order of [`CHECKS`], then of side and subject. Use it inside a `LocalSet`.
pub async fn examine(report: &Report, options: &Options, progress: &dyn Progress) -> Vec<Finding> {
    let mut findings = Box::pin(probe::all(report, options, progress)).await;
    findings.retain(|it| {
        options.wants(it.id) && options.side.is_none_or(|side| it.side.is_none_or(|of| of == side))
    });
    let place = |id: &str| CHECKS.iter().position(|(other, _)| *other == id);
    findings.sort_by_cached_key(|it| (place(it.id), it.side, it.subject.clone()));
    findings.dedup();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(only: &[&str], skip: &[&str]) -> Options {
        let list = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect();
        let timeout = Duration::from_secs(1);
        Options { side: None, only: list(only), skip: list(skip), concurrency: 1, timeout }
    }

    #[test]
    fn checks_are_chosen_by_the_beginning_of_their_id() {
        for (only, skip, wanted, unwanted) in [
            (&[][..], &[][..], "rest.table", ""),
            (&["rest"], &[], "rest.table", "db.table"),
            (&["rest."], &["rest.columns"], "rest.table", "rest.columns"),
            (&["rest.*"], &[], "rest.compat", "reach.url"),
            (&[], &["db"], "rest.table", "db.rls"),
        ] {
            let options = options(only, skip);
            assert_eq!(options.check(), Ok(()));
            assert!(options.wants(wanted), "{only:?} {skip:?}");
            assert!(!options.wants(unwanted) || unwanted.is_empty(), "{only:?} {skip:?}");
        }
        assert!(options(&["db"], &[]).wants_any("db."));
        assert!(!options(&["db"], &[]).wants_any("rest."));
        let refused = options(&["res"], &[]).check().unwrap_err();
        assert!(refused.to_string().contains("rest.*"), "{refused}");
    }

    #[test]
    fn ids_are_distinct_and_grouped() {
        let mut ids: Vec<&str> = CHECKS.iter().map(|(id, _)| *id).collect();
        assert_eq!(groups().len(), 10, "{:?}", groups());
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), CHECKS.len());
    }
}
