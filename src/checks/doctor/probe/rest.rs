//! The schema map, asked of PostgREST: what it shows, what it exposes, who may read it.

use futures_util::future::join_all;

use super::{Accepted, Known, NOBODYS_NAME, Probe, best};
use crate::checks::doctor::finding::Finding;
use crate::checks::doctor::judge::answer::{Rest, rest};
use crate::checks::doctor::judge::rest::{self as judge, Mapped, Reader};
use crate::checks::doctor::judge::shape::{self, Inventory};
use crate::checks::doctor::judge::{answer, columns};
use crate::checks::http::{As, Ask};
use crate::identify::keyring::Role;
use crate::rewrite::schema::Names;
use crate::secret::Secret;
use crate::side::{Pair, Side};

/// The schemas of each side that the map needs.
fn schemas(probe: &Probe<'_>, side: Side) -> Vec<String> {
    let settings = &probe.snapshot.rewrite;
    match side {
        Side::Old => vec![settings.map.legacy().to_owned()],
        Side::New => {
            let domains = settings.map.domains().into_iter().map(str::to_owned);
            let mut all: Vec<String> = domains.chain(settings.compat.clone()).collect();
            all.sort();
            all.dedup();
            all
        }
    }
}

/// What PostgREST shows of each schema: its OpenAPI document, which wants a service key.
pub(super) async fn inventories(
    probe: &Probe<'_>,
    accepted: &Accepted,
) -> (Vec<Finding>, Pair<Inventory>) {
    let wanted = ["rest.", "db.", "realtime."].iter().any(|group| probe.options.wants_any(group));
    if !wanted {
        return (Vec::new(), Pair::default());
    }
    let (old, new) = futures_util::join!(
        inventory(probe, accepted, Side::Old),
        inventory(probe, accepted, Side::New)
    );
    let shown = Pair { old: old.1, new: new.1 };
    (old.0.into_iter().chain(new.0).collect(), shown)
}

async fn inventory(
    probe: &Probe<'_>,
    accepted: &Accepted,
    side: Side,
) -> (Vec<Finding>, Inventory) {
    const ID: &str = "rest.openapi";
    const FIX: &str = "give projects.*.service_role_key, and see that PostgREST's openapi-mode is not disabled; or set projects.*.database_url: then columns and functions are read there";
    if !accepted[side].contains(&Role::Service) {
        return match accepted[side].is_empty() {
            true => (Vec::new(), Inventory::new()),
            false => {
                let skip = Finding::skip(ID, side, "documents", "no service key is accepted", FIX);
                (vec![skip], Inventory::new())
            }
        };
    }
    let documents = schemas(probe, side).into_iter().map(|schema| async move {
        let ask = Ask::get("/rest/v1/")
            .header("accept-profile", &schema)
            .header("accept", "application/openapi+json, application/json;q=0.9");
        let answer = probe.ask(side, As::Key(Role::Service), ask).await;
        let shapes = answer.as_ref().ok().and_then(|it| shape::openapi(&it.json()));
        let seen = match &answer {
            Ok(answer) if answer.status.is_success() => "the answer is none".to_owned(),
            Ok(answer) => answer::said_by(answer),
            Err(none) => none.to_string(),
        };
        (schema, shapes, rest(&answer), seen)
    });
    let (mut findings, mut inventory) = (Vec::new(), Inventory::new());
    for (schema, shapes, met, seen) in join_all(documents).await {
        match shapes {
            Some(shapes) => {
                let seen =
                    format!("{} tables, {} functions", shapes.tables.len(), shapes.functions.len());
                findings.push(Finding::pass(ID, side, &schema, seen));
                inventory.insert(schema, shapes);
            }
            // rest.exposed says it.
            None if met == Rest::NotExposed => {}
            None => {
                findings.push(Finding::skip(ID, side, &schema, format!("no document: {seen}"), FIX))
            }
        }
    }
    (findings, inventory)
}

/// The best that is known of a side's tables: what the database says, else what PostgREST shows.
fn inventory_of(known: &Known, side: Side) -> Inventory {
    match &known.catalogues[side] {
        Some(catalogue) => shape::catalogue(catalogue),
        None => known.shown[side].clone(),
    }
}

/// The map's tables, prefix entries expanded by what is there on either side; and the prefixes that could not be.
pub(super) fn tables(probe: &Probe<'_>, known: &Known) -> (Vec<Mapped>, Vec<String>) {
    let map = &probe.snapshot.rewrite.map;
    let pick = |shapes: &shape::Shapes| shapes.tables.keys().cloned().collect();
    expand(map.legacy(), map.tables(), known, pick)
}

/// The same for functions.
pub(super) fn functions(probe: &Probe<'_>, known: &Known) -> (Vec<Mapped>, Vec<String>) {
    let map = &probe.snapshot.rewrite.map;
    let pick = |shapes: &shape::Shapes| shapes.functions.keys().cloned().collect();
    expand(map.legacy(), map.functions(), known, pick)
}

fn expand(
    legacy: &str,
    names: &Names,
    known: &Known,
    pick: impl Fn(&shape::Shapes) -> Vec<String>,
) -> (Vec<Mapped>, Vec<String>) {
    let (mut mapped, mut unknown) = (Vec::new(), Vec::new());
    let inventories = Pair::from_fn(|side| inventory_of(known, side));
    for line in names.lines() {
        if let Some(name) = line.name {
            mapped.push(Mapped::new(legacy, line.old, line.schema, name));
            continue;
        }
        let places = [(Side::Old, legacy), (Side::New, line.schema)];
        let shapes: Vec<_> =
            places.iter().filter_map(|(side, schema)| inventories[*side].get(*schema)).collect();
        if shapes.is_empty() {
            unknown.push(format!("{}*", line.old));
        }
        for name in shapes.into_iter().flat_map(&pick) {
            // An exact entry, or a longer prefix, may have taken the name.
            if names.to_new(&name).is_some_and(|place| place.line == line.line) {
                mapped.push(Mapped::new(legacy, &name, line.schema, &name));
            }
        }
    }
    mapped.sort();
    mapped.dedup();
    (mapped, unknown)
}

/// Every line about the map.
pub(super) async fn all(probe: &Probe<'_>, known: &Known) -> Vec<Finding> {
    if !probe.options.wants_any("rest.") {
        return Vec::new();
    }
    let (tables, unknown) = tables(probe, known);
    let (functions, _) = functions(probe, known);
    let mut findings: Vec<Finding> = unknown.iter().map(|prefix| not_expanded(prefix)).collect();
    let known_tables = Pair::from_fn(|side| inventory_of(known, side));
    let ready = Pair::from_fn(|side| best(&known.accepted, side));
    for side in Side::ALL {
        if ready[side].is_none() {
            let seen = "not asked: it can't be reached, or no key is accepted";
            findings.push(Finding::skip(
                "rest.table",
                side,
                "the map",
                seen,
                "see reach.url and keys.anon",
            ));
        }
    }
    let (a, b, c) = futures_util::join!(
        exposed(probe, known, &ready),
        on_tables(probe, known, &tables, &ready, &known_tables),
        on_functions(probe, known, &functions, &ready),
    );
    findings.extend(a.into_iter().chain(b).chain(c));
    findings.extend(compared(known, &tables, &known_tables));
    findings
}

fn not_expanded(prefix: &str) -> Finding {
    let fix = "set projects.*.service_role_key or database_url: then the tables with that prefix are found";
    Finding::skip("rest.table", None, prefix, "which tables it means is not known", fix)
}

async fn exposed(probe: &Probe<'_>, known: &Known, ready: &Pair<Option<Role>>) -> Vec<Finding> {
    let mut asked = Vec::new();
    for side in Side::ALL {
        let Some(role) = ready[side] else { continue };
        for schema in schemas(probe, side) {
            asked.push(async move {
                let rest = probe.read(side, As::Key(role), &schema, NOBODYS_NAME).await;
                let catalogue = known.catalogues[side].as_ref();
                let is_there = catalogue.map(|it| it.schema(&schema).is_some());
                judge::exposed(side, &schema, &rest, is_there)
            });
        }
    }
    join_all(asked).await
}

async fn on_tables(
    probe: &Probe<'_>,
    known: &Known,
    tables: &[Mapped],
    ready: &Pair<Option<Role>>,
    inventories: &Pair<Inventory>,
) -> Vec<Finding> {
    let users = super::tokens::users(probe);
    let users = &users;
    let asked = tables.iter().map(|mapped| async move {
        let mut findings = Vec::new();
        let mut best = Pair::from_fn(|_| None);
        for side in Side::ALL {
            let Some(role) = ready[side] else { continue };
            let (schema, name) = mapped.place(side);
            let rest = probe.read(side, As::Key(role), schema, name).await;
            let compat = probe.snapshot.rewrite.compat.as_deref().filter(|_| side == Side::New);
            findings.push(judge::table(side, mapped, &rest, &inventories[side], compat));
            best[side] = Some(rest);
        }
        if let Pair { old: Some(old), new: Some(new) } = &best {
            findings.extend(granted(probe, known, mapped, ready, Pair { old, new }, users).await);
        }
        if let (Some(schema), Some(role)) = (&probe.snapshot.rewrite.compat, ready.new)
            && (schema, &mapped.old) != (&mapped.schema, &mapped.new)
        {
            let rest = probe.read(Side::New, As::Key(role), schema, &mapped.old).await;
            findings.push(judge::compat(schema, mapped, &rest));
        }
        findings
    });
    let mut findings: Vec<Finding> = join_all(asked).await.into_iter().flatten().collect();
    if users.is_none() && ready.old.is_some() && ready.new.is_some() {
        let fix = "set projects.*.jwt_secret or signing_key: then a token for a user who does not exist is signed to ask with";
        let seen = "what signed-in users may read is not asked";
        findings.push(Finding::skip("rest.granted", None, "authenticated", seen, fix));
    }
    findings
}

/// The same table, read in every role. What the best key met is known already.
async fn granted(
    probe: &Probe<'_>,
    known: &Known,
    mapped: &Mapped,
    ready: &Pair<Option<Role>>,
    best: Pair<&Rest>,
    users: &Option<Pair<Secret>>,
) -> Vec<Finding> {
    // A table that is not there has no grants.
    let is_there = |rest: &Rest| matches!(rest, Rest::Fine | Rest::Denied { .. });
    if !is_there(best.old) || !is_there(best.new) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let both = |role: Role| Side::ALL.iter().all(|side| known.accepted[*side].contains(&role));
    if both(Role::Anon) {
        let (old, new) = futures_util::join!(
            reads(probe, Side::Old, As::Key(Role::Anon), mapped),
            reads(probe, Side::New, As::Key(Role::Anon), mapped),
        );
        findings.push(judge::granted(mapped, Reader::Anon, &old, &new));
    }
    if let (Some(users), true) = (users, both(Role::Anon)) {
        let (old, new) = futures_util::join!(
            reads(probe, Side::Old, As::User(users.old.expose()), mapped),
            reads(probe, Side::New, As::User(users.new.expose()), mapped),
        );
        findings.push(judge::granted(mapped, Reader::User, &old, &new));
    }
    if ready.old == Some(Role::Service) && ready.new == Some(Role::Service) {
        findings.push(judge::granted(mapped, Reader::Service, best.old, best.new));
    }
    findings
}

async fn reads(probe: &Probe<'_>, side: Side, who: As<'_>, mapped: &Mapped) -> Rest {
    let (schema, name) = mapped.place(side);
    probe.read(side, who, schema, name).await
}

async fn on_functions(
    probe: &Probe<'_>,
    known: &Known,
    functions: &[Mapped],
    ready: &Pair<Option<Role>>,
) -> Vec<Finding> {
    let mut asked = Vec::new();
    for side in Side::ALL {
        let Some(role) = ready[side] else { continue };
        for mapped in functions {
            asked.push(async move {
                let (schema, name) = mapped.place(side);
                // PostgREST's own list is what clients get; a database's catalogue may be newer than its schema cache.
                if known.shown[side].contains_key(schema) {
                    return judge::function(side, mapped, None, &known.shown[side]);
                }
                let name = crate::rewrite::query::encode_segment(name);
                let target = format!("/rest/v1/rpc/{name}?{NOBODYS_NAME}=1");
                let ask = Ask::get(target).header("accept-profile", schema);
                let rest = rest(&probe.ask(side, As::Key(role), ask).await);
                judge::function(side, mapped, Some(&rest), &inventory_of(known, side))
            });
        }
    }
    join_all(asked).await
}

/// Both sides' columns: from the databases if both could be asked, else from what is known of each.
fn compared(known: &Known, tables: &[Mapped], inventories: &Pair<Inventory>) -> Vec<Finding> {
    let sources = match &known.catalogues {
        Pair { old: Some(_), new: Some(_) } => inventories,
        // A document and a catalogue write types alike, but one kind of source for both is better where there is one.
        _ if !known.shown.old.is_empty() && !known.shown.new.is_empty() => &known.shown,
        _ => inventories,
    };
    let mut findings = Vec::new();
    for mapped in tables {
        let of = |side: Side| {
            let (schema, name) = mapped.place(side);
            sources[side].get(schema)?.tables.get(name)
        };
        // A table that is missing has a line of its own.
        if let (Some(old), Some(new)) = (of(Side::Old), of(Side::New)) {
            findings.extend(columns::compare(mapped, old, new));
        }
    }
    if findings.is_empty() && !tables.is_empty() {
        let fix = "see rest.openapi: it needs service keys, or both databases";
        findings.push(Finding::skip("rest.columns", None, "columns", "not compared", fix));
    }
    findings
}
