//! Both databases: their catalogues, and how far each counted column has come.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::{Known, Probe};
use crate::checks::catalogue::{self, Catalogue, SequenceOwner};
use crate::checks::database::connect;
use crate::checks::doctor::finding::Finding;
use crate::checks::doctor::judge::database::{Databases, Greatest, counted, judged};
use crate::checks::doctor::judge::sql::{ident, qualified};
use crate::config::Report;
use crate::side::{Pair, Side};

const ID: &str = "db.connect";

/// Reads what the settings give access to.
pub(super) async fn read(
    probe: &Probe<'_>,
    report: &Report,
) -> (Vec<Finding>, Pair<Option<Catalogue>>) {
    let wanted = ["db.", "rest.", "realtime."].iter().any(|group| probe.options.wants_any(group));
    if !wanted {
        return (Vec::new(), Pair::default());
    }
    let (old, new) =
        futures_util::join!(one(probe, report, Side::Old), one(probe, report, Side::New));
    (vec![old.0, new.0], Pair { old: old.1, new: new.1 })
}

async fn one(probe: &Probe<'_>, report: &Report, side: Side) -> (Finding, Option<Catalogue>) {
    let subject = format!("projects.{side}.database_url");
    let Some(database) = &report.databases[side] else {
        let seen = "not set: row level security, policies, grants, sequences and publications are not compared";
        let fix = format!(
            "set {subject} (SUPABASE_DB_URL_{}): any role that may read the catalogue will do",
            side.as_str().to_uppercase()
        );
        return (Finding::skip(ID, side, &subject, seen, fix), None);
    };
    probe.progress.more(1);
    // Some seconds more than for an answer: a catalogue is many of them.
    let reading = async {
        let client = connect(database).await.map_err(|error| error.to_string())?;
        catalogue::read(&client).await.map_err(|error| error.to_string())
    };
    let read = tokio::time::timeout(probe.timeout * 3, reading).await;
    probe.progress.done();
    let read = read.unwrap_or_else(|_| Err(format!("not read within {:?}", probe.timeout * 3)));
    match read {
        Ok(catalogue) => {
            let seen = format!(
                "PostgreSQL {}, {} tables and views, as {}",
                catalogue.server.version / 10_000,
                catalogue.relations.len(),
                catalogue.server.role
            );
            (Finding::pass(ID, side, &subject, seen), Some(catalogue))
        }
        Err(why) => {
            let fix = "the URL is in the dashboard, Connect; behind a firewall the pooler's (port 6543) works too";
            (Finding::fail(ID, side, &subject, why, fix), None)
        }
    }
}

/// Every line that the catalogues have to say.
pub(super) async fn all(probe: &Probe<'_>, report: &Report, known: &Known) -> Vec<Finding> {
    if !probe.options.wants_any("db.") {
        return Vec::new();
    }
    let (tables, _) = super::rest::tables(probe, known);
    let (functions, _) = super::rest::functions(probe, known);
    let mut greatest: Pair<Greatest> = Pair::default();
    if probe.options.wants("db.sequences") {
        for side in Side::ALL {
            if let (Some(database), Some(catalogue)) =
                (&report.databases[side], &known.catalogues[side])
            {
                let columns = counted(side, &tables, catalogue);
                let counting = async {
                    let client = connect(database).await.ok()?;
                    Some(ends(&client, &columns).await)
                };
                let counted = tokio::time::timeout(probe.timeout * 3, counting).await;
                greatest[side] = counted.ok().flatten().unwrap_or_default();
            }
        }
    }
    judged(&Databases {
        tables: &tables,
        functions: &functions,
        compat: probe.snapshot.rewrite.compat.as_deref(),
        sides: Pair::from_fn(|side| known.catalogues[side].as_ref()),
        greatest: &greatest,
    })
}

/// The greatest value of each column. One that can't be read in time, or not at all, is left out.
async fn ends(client: &Client, columns: &[SequenceOwner]) -> Greatest {
    let mut greatest = Greatest::new();
    for owner in columns {
        let query = format!(
            "begin read only; set local statement_timeout = '5s'; select max({})::bigint::text from {}; rollback",
            ident(&owner.column),
            qualified(&owner.schema, &owner.table)
        );
        let Ok(rows) = client.simple_query(&query).await else {
            // Without rights, or too slow. Where nothing can be ended any more, the next query says it.
            client.batch_execute("rollback").await.ok();
            continue;
        };
        let value = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        if let Some(value) = value {
            let key = (owner.schema.clone(), owner.table.clone(), owner.column.clone());
            greatest.insert(key, value);
        }
    }
    greatest
}
