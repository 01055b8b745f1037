//! A file of SQL, in steps: each asks whether it is needed before it does anything.

use std::fmt::Write as _;

use crate::checks::quote::{comment, dollars};

/// One change, and the question whether it was made already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does, in a line.
    pub does: String,
    /// A boolean expression in SQL: true once there is nothing to do. It reads the catalogue alone, and is never an error, also
    /// where the files before it were not applied yet: that is how a dry run counts.
    pub(super) done: Option<String>,
    /// Statements of PL/pgSQL.
    pub(super) change: String,
    /// SQL that takes it back; "": nothing to take back.
    pub(super) undo: String,
}

impl Step {
    /// A step that is left out where `done` holds.
    pub(super) fn new(does: impl Into<String>, done: String, change: String) -> Self {
        Self { does: does.into(), done: Some(done), change, undo: String::new() }
    }

    /// A step that runs every time and changes nothing that stays: notices and notifications.
    pub(super) fn always(does: impl Into<String>, change: String) -> Self {
        Self { does: does.into(), done: None, change, undo: String::new() }
    }

    pub(super) fn undo(mut self, undo: String) -> Self {
        self.undo = undo;
        self
    }

    /// Whether it is a change that stays.
    #[must_use]
    pub const fn is_counted(&self) -> bool {
        self.done.is_some()
    }

    /// The statement, as it is printed and as it is applied.
    #[must_use]
    pub fn sql(&self) -> String {
        // Never indented: a name may have a line break in it.
        let change = &self.change;
        let body = match &self.done {
            None => format!("begin\n{change}\nend"),
            Some(done) => {
                format!("begin\nif not coalesce({done}, false) then\n{change}\nend if;\nend")
            }
        };
        format!("do {};", dollars(&body))
    }
}

/// One file: one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// e.g. `02_tables.sql`
    pub name: &'static str,
    /// What it does, in a few words.
    pub title: &'static str,
    /// What it does, for its header.
    pub about: &'static str,
    /// How to take it back, for its header; the steps' own SQL follows it.
    pub undo: &'static str,
    /// What needs a person, as comments.
    pub by_hand: Vec<String>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl File {
    /// The whole file, for psql. It is one transaction, with the limits that `--apply` works with.
    #[must_use]
    pub fn sql(&self, limits: Limits) -> String {
        let mut text = String::new();
        let mut line = |words: &str| {
            // Writing to a String can't fail.
            _ = writeln!(text, "{words}");
        };
        line(&format!("-- {} (cutover plan; apply with psql -v ON_ERROR_STOP=1)", self.name));
        self.about.lines().for_each(|about| line(&format!("-- {about}")));
        line("--");
        self.undo.lines().for_each(|undo| line(&format!("-- Undo: {undo}")));
        for undo in self.steps.iter().rev().filter(|step| !step.undo.is_empty()) {
            line(&format!("--   {}", comment(&undo.undo)));
        }
        for hand in &self.by_hand {
            line(&format!("-- By hand: {}", comment(hand)));
        }
        line(&format!("\nbegin;\n{}", limits.sql()));
        for step in &self.steps {
            line(&format!("\n-- {}\n{}", comment(&step.does), step.sql()));
        }
        line("\ncommit;");
        text
    }

    /// The query for the numbers of the steps that are still to be made; `None` if no step asks.
    pub(super) fn pending(&self) -> Option<String> {
        let asked = self.steps.iter().enumerate().filter_map(|(number, step)| {
            let done = step.done.as_ref()?;
            Some(format!("({number}, ({done}))"))
        });
        let asked: Vec<_> = asked.collect();
        (!asked.is_empty()).then(|| {
            format!("select number from (values {}) asked (number, done) where done is not true order by number", asked.join(",\n"))
        })
    }
}

/// What bounds each file's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a statement waits for a lock, in seconds.
    pub lock_seconds: u32,
    /// How long a statement runs, in seconds.
    pub statement_seconds: u32,
}

impl Limits {
    /// The settings at the beginning of each transaction. Every name in a file is written with its schema.
    pub(super) fn sql(self) -> String {
        let Self { lock_seconds, statement_seconds } = self;
        format!(
            "set local lock_timeout = '{lock_seconds}s';\nset local statement_timeout = '{statement_seconds}s';\n\
             set local search_path = '';"
        )
    }
}
