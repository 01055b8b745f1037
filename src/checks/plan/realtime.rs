//! `06_realtime.sql` and `07_sequences.sql`: what realtime follows, and the numbers that are given out next.

use super::Options;
use super::moves::{Moves, found};
use super::step::{File, Step};
use crate::checks::catalogue::{Catalogue, Publication, Sequence, is_managed};
use crate::checks::quote::{self, literal, qualified};

/// Realtime follows the publication of this name.
const PUBLICATION: &str = "supabase_realtime";

pub(super) fn publication(old: &Catalogue, moves: &Moves<'_>) -> File {
    let steps = old.publication(PUBLICATION).map(|it| members(it, moves)).unwrap_or_default();
    File {
        name: "06_realtime.sql",
        title: "what realtime follows",
        about: "Gives the publication that realtime follows the tables that it has on old. Tables, not their compatibility views: a view has no\n\
                changes.",
        undo: "alter publication supabase_realtime drop table …, for each table that should not be followed.",
        by_hand: Vec::new(),
        steps,
    }
}

fn members(publication: &Publication, moves: &Moves<'_>) -> Vec<Step> {
    let known =
        format!("exists (select from pg_catalog.pg_publication where pubname = '{PUBLICATION}')");
    let Publication { insert, update, delete, .. } = publication;
    let published = [("insert", insert), ("update", update), ("delete", delete)];
    let published: Vec<_> = published.iter().filter(|it| *it.1).map(|it| it.0).collect();
    let mut steps = vec![Step::new(
        format!("publication {PUBLICATION}"),
        known,
        format!("create publication {PUBLICATION} with (publish = '{}');", published.join(", ")),
    )];
    for it in moves.tables.iter().filter(|it| it.relation.kind.is_table()) {
        let is_member = publication.has(moves.legacy, &it.relation.name);
        // A partition that isn't listed may be published through its table.
        if is_member || it.relation.partition_of.is_none() {
            steps.push(member(
                is_member,
                &it.new_name(),
                &it.found(),
                &format!("{}.{}", it.schema, it.name),
            ));
        }
    }
    let stays = |schema: &str, name: &str| schema != moves.legacy || moves.table(name).is_none();
    for it in publication.tables.iter().filter(|it| stays(&it.schema, &it.name)) {
        if !is_managed(&it.schema) {
            let name = qualified(&it.schema, &it.name);
            let oid = format!("to_regclass({})", literal(&name));
            let mut step = member(true, &name, &oid, &format!("{}.{}", it.schema, it.name));
            // What doesn't move need not have been restored.
            step.done = step.done.map(|done| format!("({oid} is null or {done})"));
            steps.push(step);
        }
    }
    steps
}

fn member(is_member: bool, name: &str, oid: &str, shown: &str) -> Step {
    let say = |word: &str| format!("alter publication {PUBLICATION} {word} table {name};");
    if !is_member {
        let listed = format!(
            "exists (select from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid \
             where p.pubname = '{PUBLICATION}' and r.prrelid = {oid})"
        );
        let does = format!("{PUBLICATION} doesn't follow {shown}");
        return Step::new(does, format!("not {listed}"), say("drop")).undo(say("add"));
    }
    let followed = format!(
        "exists (select from pg_catalog.pg_publication_tables t join pg_catalog.pg_namespace n on n.nspname = t.schemaname \
         join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.tablename \
         where t.pubname = '{PUBLICATION}' and c.oid = {oid})"
    );
    Step::new(format!("{PUBLICATION} follows {shown}"), followed, say("add")).undo(say("drop"))
}

pub(super) fn sequences(old: &Catalogue, moves: &Moves<'_>, options: &Options) -> File {
    let mut by_hand = Vec::new();
    let mut steps = Vec::new();
    for sequence in old.sequences.iter().filter(|it| !is_managed(&it.schema)) {
        let shown = format!("{}.{}", moves.sequence_schema(sequence), sequence.name);
        if sequence.cycles {
            by_hand.push(format!("sequence {shown} cycles: choose its next value yourself"));
        } else if !sequence.is_readable {
            by_hand.push(format!("sequence {shown}: this role may not read it on old"));
        } else {
            match next(sequence, options.sequence_gap) {
                Next::Nothing => {}
                Next::Value(value) => steps.push(advance(moves, sequence, value, &shown)),
                Next::TooFar => by_hand.push(format!(
                    "sequence {shown} can't be advanced by {}: its greatest value is {}",
                    options.sequence_gap, sequence.greatest
                )),
            }
        }
    }
    File {
        name: "07_sequences.sql",
        title: "next numbers",
        about: "Advances each sequence to old's last value, and by --sequence-gap further, so that rows made on either side get numbers of their\n\
                own. No sequence goes back.",
        undo: "nothing to take back: numbers that are left out harm nobody.",
        by_hand,
        steps,
    }
}

enum Next {
    Nothing,
    Value(i64),
    TooFar,
}

/// The last value that new should have given out.
fn next(sequence: &Sequence, gap: u32) -> Next {
    if sequence.last_value.is_none() && gap == 0 {
        return Next::Nothing;
    }
    let last = sequence
        .last_value
        .map_or_else(|| i128::from(sequence.start) - i128::from(sequence.increment), i128::from);
    let value = last + i128::from(gap) * i128::from(sequence.increment);
    match i64::try_from(value) {
        Ok(value) if value <= sequence.greatest => Next::Value(value),
        _ => Next::TooFar,
    }
}

fn advance(moves: &Moves<'_>, sequence: &Sequence, value: i64, shown: &str) -> Step {
    let name = qualified(moves.sequence_schema(sequence), &sequence.name);
    let oid = found(&name, &qualified(&sequence.schema, &sequence.name));
    let further = if sequence.increment < 0 { "<=" } else { ">=" };
    let done = format!("coalesce(pg_sequence_last_value({oid}) {further} {value}, false)");
    // What stands in another schema need not have been restored.
    let is_needed = sequence.schema == moves.legacy;
    Step::new(
        format!("sequence {shown}: {value}"),
        if is_needed { done } else { format!("({oid} is null or {done})") },
        format!("perform setval({}, {value});", literal(&name)),
    )
}

pub(super) fn exposed(moves: &Moves<'_>, options: &Options, base: &[String]) -> File {
    let mut wanted: Vec<String> = Vec::new();
    let domains = moves.schemas().into_iter().map(str::to_owned);
    let all = options.compat.iter().cloned().chain(domains).chain(options.expose.iter().cloned());
    for schema in all {
        if !wanted.contains(&schema) {
            wanted.push(schema);
        }
    }
    let (wanted, base) = (quote::texts(&wanted), quote::texts(base));
    let setting = "(select regexp_replace(setting, '^[^=]*=', '') from pg_catalog.pg_db_role_setting s, unnest(s.setconfig) setting \
        where s.setrole = to_regrole('authenticator') and setting like 'pgrst.db\\_schemas=%' \
        and s.setdatabase in (0, (select oid from pg_catalog.pg_database where datname = current_database())) order by s.setdatabase desc limit 1)";
    let held = format!(
        "(select array_agg(btrim(name)) from unnest(string_to_array({setting}, ',')) name)"
    );
    let change = format!(
        "declare\n  held text[] := coalesce({held}, {base});\n  name text;\nbegin\n  \
           foreach name in array {wanted} loop\n    \
             if not name = any (held) then held := held || name; end if;\n  end loop;\n  \
           if exists (select from pg_catalog.pg_db_role_setting s, unnest(s.setconfig) setting where s.setrole = to_regrole('authenticator') \
             and setting like 'pgrst.db\\_schemas=%' and s.setdatabase = (select oid from pg_catalog.pg_database where datname = current_database())) then\n    \
             execute format('alter role authenticator in database %I set pgrst.db_schemas = %L', current_database(), array_to_string(held, ', '));\n  \
           else\n    execute format('alter role authenticator set pgrst.db_schemas = %L', array_to_string(held, ', '));\n  end if;\nend;"
    );
    let step = Step::new(
        "exposed schemas: those that were, and the domains",
        format!("to_regrole('authenticator') is null or coalesce({wanted} <@ {held}, false)"),
        change,
    );
    File {
        name: "08_exposed.sql",
        title: "schemas exposed through REST",
        about: "Exposes the schemas through REST: those that are exposed already stay. On a hosted project the dashboard's list (Settings, API,\n\
                Exposed schemas) is hidden by this one from now on; keep both alike.",
        undo: "alter role authenticator reset pgrst.db_schemas, and 09_reload.sql.",
        by_hand: Vec::new(),
        steps: vec![step],
    }
}

pub(super) fn reload() -> File {
    let notify = |what: &str| format!("perform pg_notify('pgrst', 'reload {what}');");
    File {
        name: "09_reload.sql",
        title: "PostgREST reads all this",
        about: "Tells PostgREST to read its settings and the catalogue again.",
        undo: "nothing to take back.",
        by_hand: Vec::new(),
        steps: vec![
            Step::always("notify pgrst, 'reload config'", notify("config")),
            Step::always("notify pgrst, 'reload schema'", notify("schema")),
        ],
    }
}

/// `a, "B"` of `pgrst.db_schemas=…`.
pub(super) fn listed(settings: &[String]) -> Option<Vec<String>> {
    let text = settings.iter().find_map(|it| it.strip_prefix("pgrst.db_schemas="))?;
    let names = text.split(',').map(|name| name.trim().to_owned());
    Some(names.filter(|name| !name.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(last_value: Option<i64>, increment: i64, greatest: i64) -> Sequence {
        Sequence {
            schema: "public".into(),
            name: "s".into(),
            type_: "bigint".into(),
            start: 1,
            increment,
            greatest,
            cycles: false,
            last_value,
            is_readable: true,
            owned_by: None,
            grants: Vec::new(),
        }
    }

    #[test]
    fn sequences_go_on_from_old_and_the_gap() {
        let value = |last, increment, greatest, gap| match next(
            &sequence(last, increment, greatest),
            gap,
        ) {
            Next::Nothing => None,
            Next::Value(value) => Some(value),
            Next::TooFar => Some(i64::MIN),
        };
        assert_eq!(value(None, 1, 100, 0), None);
        assert_eq!(value(Some(41), 1, 100, 0), Some(41));
        assert_eq!(value(Some(41), 1, 100, 59), Some(100));
        assert_eq!(value(Some(41), 1, 100, 60), Some(i64::MIN));
        assert_eq!(value(None, 2, 100, 10), Some(19));
        assert_eq!(value(Some(i64::MAX), 1, i64::MAX, 1), Some(i64::MIN));
        assert_eq!(value(Some(-3), -1, -1, 4), Some(-7));
    }
}
