//! What a check has to say: one line for the operator, and what to do about it.

use serde::Serialize;

use crate::side::Side;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Pass,
    /// It could not be looked at; `fix` says how it can.
    Skip,
    /// It works, and yet deserves a look.
    Warn,
    /// Users who move would notice.
    Fail,
}

impl Status {
    /// The word that is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Skip => "skip",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: one of [`CHECKS`].
    pub id: &'static str,
    /// The side that it is about; `None`: both together.
    pub side: Option<Side>,
    /// The table, key, bucket… that it is about.
    pub subject: String,
    /// How it ended.
    pub status: Status,
    /// What was seen.
    pub seen: String,
    /// What to do; empty when there is nothing to do. May have several lines: SQL is meant to be copied.
    pub fix: String,
}

impl Finding {
    fn new(id: &'static str, side: Option<Side>, subject: &str, status: Status) -> Self {
        let (seen, fix) = (String::new(), String::new());
        Self { id, side, subject: subject.to_owned(), status, seen, fix }
    }

    /// As it should be.
    #[must_use]
    pub fn pass(
        id: &'static str,
        side: impl Into<Option<Side>>,
        subject: &str,
        seen: impl Into<String>,
    ) -> Self {
        Self { seen: seen.into(), ..Self::new(id, side.into(), subject, Status::Pass) }
    }

    /// Not looked at, and how it can be.
    #[must_use]
    pub fn skip(
        id: &'static str,
        side: impl Into<Option<Side>>,
        subject: &str,
        seen: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let new = Self::new(id, side.into(), subject, Status::Skip);
        Self { seen: seen.into(), fix: fix.into(), ..new }
    }

    /// Works, and deserves a look.
    #[must_use]
    pub fn warn(
        id: &'static str,
        side: impl Into<Option<Side>>,
        subject: &str,
        seen: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let new = Self::new(id, side.into(), subject, Status::Warn);
        Self { seen: seen.into(), fix: fix.into(), ..new }
    }

    /// Users who move would notice.
    #[must_use]
    pub fn fail(
        id: &'static str,
        side: impl Into<Option<Side>>,
        subject: &str,
        seen: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let new = Self::new(id, side.into(), subject, Status::Fail);
        Self { seen: seen.into(), fix: fix.into(), ..new }
    }
}

/// Every check and the question that it answers, in the order of the report. The ids are a contract: scripts match on them.
pub const CHECKS: [(&str, &str); 38] = [
    ("reach.url", "Does the project answer at its URL?"),
    ("reach.certificate", "Is its certificate good for another fortnight?"),
    ("reach.clock", "Does its clock agree with ours?"),
    ("keys.anon", "Is the anon key accepted, and no more than an anon key?"),
    ("keys.service", "Is the service key accepted, and a service key?"),
    ("keys.legacy", "Does a key that is a JWT belong to this project, and last?"),
    ("keys.other", "Does the project refuse the other project's keys?"),
    ("rest.exposed", "Does PostgREST expose each schema of the map?"),
    ("rest.openapi", "Can tables and columns be listed?"),
    ("rest.table", "Is each mapped table on its side?"),
    ("rest.function", "Is each mapped function on its side?"),
    ("rest.granted", "May each role read on new what it may read on old?"),
    ("rest.columns", "Has each mapped table the same columns on both sides?"),
    ("rest.compat", "Is there a compatibility view for each mapped table?"),
    ("tokens.jwks", "Are the project's keys published, with the kid that we sign with?"),
    ("tokens.own", "Does each project accept a token of its own key or secret?"),
    ("tokens.round_trip", "Does each side accept a user of the other one?"),
    ("auth.health", "Does auth answer?"),
    ("auth.settings", "Are both auth services set up alike?"),
    ("storage.bucket", "Is each bucket on its side, with the same settings?"),
    ("storage.folder", "Is each mapped folder on its side?"),
    ("realtime.join", "Can a channel be joined?"),
    ("realtime.changes", "Can changes of a mapped table be followed?"),
    ("functions.route", "Does each mapped function exist on its side?"),
    ("graphql.present", "Is GraphQL there?"),
    ("db.connect", "Can the database be asked?"),
    ("db.table", "Is each mapped table in the database?"),
    ("db.function", "Is each mapped function in the database, with the same arguments?"),
    ("db.rls", "Is row level security on where it was?"),
    ("db.policies", "Do the policies say the same?"),
    ("db.grants", "Has each role the same rights?"),
    ("db.compat", "Do compatibility views judge with the caller's rights?"),
    ("db.sequences", "Will both sides give out the same ids?"),
    ("db.publication", "Does realtime follow the same tables?"),
    ("db.replica_identity", "Do changes carry the same old row?"),
    ("db.vectors", "Has each vector column an index?"),
    ("db.bodies", "Which functions still name moved tables?"),
    ("db.names", "Which constraints or columns are called like a moved table?"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The page has a row for each check, in words that an operator can search for.
    #[test]
    fn every_check_stands_on_the_page() {
        let page = include_str!("../../../docs/doctor.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        for (id, _) in CHECKS {
            let named = format!("`{id}`");
            assert!(rows.iter().any(|row| row.contains(&named)), "docs/doctor.md lacks {id}");
        }
        for row in rows {
            let ids = row.split('|').nth(1).unwrap_or_default().split('`');
            for id in ids.filter(|id| id.contains('.') && !id.contains('*')) {
                assert!(CHECKS.iter().any(|(known, _)| *known == id), "there is no {id}");
            }
        }
    }
}
