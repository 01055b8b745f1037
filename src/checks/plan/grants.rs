//! `04_grants.sql`: who may use what moved: what old allows, and not more.

use std::collections::BTreeSet;

use super::moves::Moves;
use super::step::{File, Step};
use crate::checks::catalogue::{
    Catalogue, DefaultGrants, Function, Grant, Relation, is_managed, privileges,
};
use crate::checks::quote::{ident, literal, qualified, texts};

/// The roles of the API, and everybody.
pub(super) const ROLES: [&str; 4] = ["public", "anon", "authenticated", "service_role"];

/// What PostgreSQL 13 to 18 all know; `MAINTAIN` (17) is left to the dump.
const TABLE: [&str; 7] =
    ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"];
const VIEW: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];
const SEQUENCE: [&str; 3] = ["SELECT", "UPDATE", "USAGE"];

/// An object that rights are given on.
pub(super) struct Object<'s> {
    /// `table "s"."n"`, as `GRANT … ON` wants it.
    pub(super) named: String,
    /// For people.
    pub(super) shown: String,
    /// An expression for its `oid`.
    pub(super) oid: String,
    /// The rights that count.
    pub(super) known: &'s [&'s str],
    /// Its letter for `acldefault`.
    pub(super) letter: char,
}

impl<'s> Object<'s> {
    pub(super) fn table(name: &str, shown: String, oid: String) -> Self {
        Self { named: format!("table {name}"), shown, oid, known: &TABLE, letter: 'r' }
    }

    pub(super) fn view(name: &str, shown: String, oid: String) -> Self {
        Self { named: format!("table {name}"), shown, oid, known: &VIEW, letter: 'r' }
    }

    fn sequence(name: &str, shown: String, oid: String) -> Self {
        Self { named: format!("sequence {name}"), shown, oid, known: &SEQUENCE, letter: 's' }
    }

    /// Makes the rights of the API's roles on it exactly those of `grants`.
    pub(super) fn exactly(&self, grants: &[Grant]) -> Step {
        let mut wanted = BTreeSet::new();
        let mut change = vec![format!("revoke all on {} from {};", self.named, roles(&ROLES))];
        for role in ROLES {
            let given: Vec<&str> =
                self.known.iter().copied().filter(|it| has(grants, role, it)).collect();
            if !given.is_empty() {
                change.push(format!(
                    "grant {} on {} to {};",
                    given.join(", "),
                    self.named,
                    role_name(role)
                ));
            }
            wanted.extend(given.iter().map(|it| format!("{role}={it}")));
        }
        let wanted: Vec<_> = wanted.into_iter().collect();
        let done = format!(
            "exists (select from pg_catalog.pg_class c where c.oid = {oid}) and {wanted} = (\
             select coalesce(array_agg(held order by held collate \"C\"), '{{}}') from (select {grantee} || '=' || a.privilege_type held \
             from pg_catalog.pg_class c, aclexplode(coalesce(c.relacl, acldefault('{letter}', c.relowner))) a where c.oid = {oid} \
             and {grantee} = any ({roles}) and a.privilege_type = any ({known})) held)",
            oid = self.oid,
            wanted = texts(&wanted),
            grantee = GRANTEE,
            letter = self.letter,
            roles = texts(&ROLES),
            known = texts(self.known),
        );
        Step::new(format!("grants on {}", self.shown), done, change.join("\n"))
    }

    /// Gives other roles what they have on old, where this database knows the role.
    pub(super) fn others(&self, grants: &[Grant], owner: &str) -> Vec<Step> {
        let names: BTreeSet<&str> = grants.iter().map(|it| it.grantee.as_str()).collect();
        let names = names.into_iter().filter(|it| !ROLES.contains(it) && *it != owner);
        let steps = names.filter_map(|role| {
            let given: Vec<&str> =
                self.known.iter().copied().filter(|it| has(grants, role, it)).collect();
            (!given.is_empty()).then(|| {
                let held = given.iter().map(|it| {
                    format!("has_table_privilege({}, {}, {})", literal(role), self.oid, literal(it))
                });
                let held: Vec<_> = held.collect();
                let known = format!("to_regrole({}) is null", literal(&ident(role)));
                Step::new(
                    format!("grants on {} to {role}", self.shown),
                    format!("case when {known} then true else {} end", held.join(" and ")),
                    format!("grant {} on {} to {};", given.join(", "), self.named, ident(role)),
                )
            })
        });
        steps.collect()
    }
}

const GRANTEE: &str =
    "case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee)::text end";

fn has(grants: &[Grant], role: &str, privilege: &str) -> bool {
    grants.iter().any(|it| it.grantee == role && it.privilege == privilege)
}

fn role_name(role: &str) -> String {
    if role == "public" { role.to_owned() } else { ident(role) }
}

fn roles(names: &[&str]) -> String {
    names.iter().map(|it| role_name(it)).collect::<Vec<_>>().join(", ")
}

pub(super) fn grants(old: &Catalogue, moves: &Moves<'_>) -> File {
    let mut steps = usage(old, moves);
    for it in &moves.tables {
        let shown = format!("{}.{}", it.schema, it.name);
        let object = Object::table(&it.new_name(), shown.clone(), it.found());
        steps.push(object.exactly(&it.relation.grants));
        for column in it.relation.columns.iter().filter(|it| !it.grants.is_empty()) {
            steps.extend(on_column(
                &it.new_name(),
                &shown,
                &it.found(),
                &column.name,
                &column.grants,
            ));
        }
    }
    for sequence in &old.sequences {
        let schema = moves.sequence_schema(sequence);
        if sequence.schema == moves.legacy && schema != moves.legacy {
            let name = qualified(schema, &sequence.name);
            let was = qualified(moves.legacy, &sequence.name);
            let shown = format!("sequence {schema}.{}", sequence.name);
            let object = Object::sequence(&name, shown, super::moves::found(&name, &was));
            steps.push(object.exactly(&sequence.grants));
        }
    }
    for it in &moves.functions {
        let of = |function: &&Function| {
            on_function(moves, function, &moves.function_oids(function, old), "false")
        };
        steps.extend(it.overloads.iter().map(of));
    }
    steps.extend(staying(old, moves));
    steps.extend(defaults(old, moves));
    File {
        name: "04_grants.sql",
        title: "rights, as on old",
        about: "Gives the API's roles what they have on old, and not more: USAGE on the schemas; rights on tables, columns, sequences and\n\
                functions, also on those that don't move, because a new project's default privileges add to what a dump grants; default\n\
                privileges for what will be made. Rights of other roles came with the dump.",
        undo: "the rights are those of old: nothing to take back. For a schema: revoke usage on schema … from anon, authenticated, service_role.",
        by_hand: Vec::new(),
        steps,
    }
}

/// What doesn't move, as far as it is here and the connection's role owns it. A restored dump says what is granted and not what isn't: the
/// default privileges of a hosted project give `anon` all that old took away.
fn staying(old: &Catalogue, moves: &Moves<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    let is_old = |it: &Relation| it.schema == moves.legacy;
    let moves_on = |it: &Relation| is_old(it) && moves.table(&it.name).is_some();
    for it in old.relations.iter().filter(|it| !is_managed(&it.schema) && !moves_on(it)) {
        // One that becomes another's rows keeps its rights until a view takes its name, which has the other's.
        let is_merged = is_old(it) && moves.merged.contains_key(it.name.as_str());
        let kinds = if is_merged { "rpf" } else { "rpfvm" };
        let (name, shown) = (qualified(&it.schema, &it.name), format!("{}.{}", it.schema, it.name));
        let oid = format!("to_regclass({})", literal(&name));
        let mut granted =
            vec![Object::table(&name, shown.clone(), oid.clone()).exactly(&it.grants)];
        for column in it.columns.iter().filter(|it| !it.grants.is_empty()) {
            granted.extend(on_column(&name, &shown, &oid, &column.name, &column.grants));
        }
        steps.extend(granted.into_iter().map(|step| if_owned(step, &oid, kinds)));
    }
    for it in old.sequences.iter().filter(|it| !is_managed(&it.schema)) {
        if moves.sequence_schema(it) == it.schema {
            let name = qualified(&it.schema, &it.name);
            let oid = format!("to_regclass({})", literal(&name));
            let shown = format!("sequence {}.{}", it.schema, it.name);
            let step = Object::sequence(&name, shown, oid.clone()).exactly(&it.grants);
            steps.push(if_owned(step, &oid, "S"));
        }
    }
    let stays = |it: &&Function| {
        let is_moved = it.schema == moves.legacy && moves.function(&it.name).is_some();
        !is_managed(&it.schema) && !is_moved
    };
    for function in old.functions.iter().filter(stays) {
        let oids = moves.function_oids(function, old);
        let own = format!("{oids} and pg_has_role(current_user, p.proowner, 'MEMBER')");
        steps.push(on_function(moves, function, &own, "true"));
    }
    steps
}

/// Leaves the step out unless a relation of these kinds is there and is this role's.
fn if_owned(mut step: Step, oid: &str, kinds: &str) -> Step {
    let is_own = format!(
        "exists (select from pg_catalog.pg_class c where c.oid = {oid} and c.relkind::text = any (string_to_array('{kinds}', null)) \
         and pg_has_role(current_user, c.relowner, 'MEMBER'))"
    );
    step.done = step.done.map(|done| format!("(not {is_own} or ({done}))"));
    step
}

/// `USAGE` on the schemas, to every role that has it on the legacy schema, directly or as everybody, and something to use in the schema.
fn usage(old: &Catalogue, moves: &Moves<'_>) -> Vec<Step> {
    let legacy = old.schema(moves.legacy).map(|it| it.grants.as_slice()).unwrap_or_default();
    let mut steps = Vec::new();
    for schema in moves.schemas().into_iter().filter(|it| *it != moves.legacy) {
        let tables = moves.tables.iter().filter(|it| it.schema == schema);
        let functions = moves.functions.iter().filter(|it| it.schema == schema);
        let mut users: BTreeSet<&str> =
            tables.flat_map(|it| it.relation.grants.iter().map(|it| it.grantee.as_str())).collect();
        users.extend(
            functions
                .flat_map(|it| &it.overloads)
                .flat_map(|it| &it.grants)
                .map(|it| it.grantee.as_str()),
        );
        users.extend(["anon", "authenticated", "service_role"]);
        users.remove("public");
        for role in users.into_iter().filter(|role| privileges(legacy, role).contains("USAGE")) {
            let (name, known) = (literal(&ident(schema)), literal(&ident(role)));
            let held = format!(
                "exists (select from pg_catalog.pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a \
                 where n.oid = to_regnamespace({name}) and a.grantee = to_regrole({known}) and a.privilege_type = 'USAGE')"
            );
            let done = match ROLES.contains(&role) {
                true => held,
                // Who makes the schema owns it, and needs no grant.
                false => format!(
                    "to_regrole({known}) is null or (to_regnamespace({name}) is null and to_regrole({known}) = to_regrole(quote_ident(current_user))) \
                     or has_schema_privilege({}, to_regnamespace({name}), 'USAGE')",
                    literal(role)
                ),
            };
            let change = format!("grant usage on schema {} to {};", ident(schema), ident(role));
            let undo = format!("revoke usage on schema {} from {};", ident(schema), ident(role));
            steps.push(Step::new(format!("usage of {schema} for {role}"), done, change).undo(undo));
        }
    }
    steps
}

/// Rights on a column alone; those that the dump brought are found there.
pub(super) fn on_column(
    name: &str,
    shown: &str,
    oid: &str,
    column: &str,
    grants: &[Grant],
) -> Vec<Step> {
    let given = grants.iter().filter(|it| ROLES.contains(&it.grantee.as_str()));
    let steps = given.map(|grant| {
        let Grant { grantee, privilege, .. } = grant;
        let done = format!(
            "exists (select from pg_catalog.pg_attribute t, aclexplode(t.attacl) a where t.attrelid = {oid} and t.attname = {} \
             and {GRANTEE} = {} and a.privilege_type = {})",
            literal(column), literal(grantee), literal(privilege)
        );
        let change = format!("grant {privilege} ({}) on table {name} to {};", ident(column), role_name(grantee));
        Step::new(format!("{privilege} on column {column} of {shown} for {grantee}"), done, change)
    });
    steps.collect()
}

/// `without`: whether there is nothing to do where no such function is.
fn on_function(moves: &Moves<'_>, function: &Function, oids: &str, without: &str) -> Step {
    let given: Vec<&str> =
        ROLES.into_iter().filter(|role| has(&function.grants, role, "EXECUTE")).collect();
    let mut wanted = given.clone();
    wanted.sort_unstable();
    let done = format!(
        "(select coalesce(bool_and({wanted} = (select coalesce(array_agg({GRANTEE} order by {GRANTEE} collate \"C\"), '{{}}') \
         from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where {GRANTEE} = any ({roles}))), {without}) \
         from pg_catalog.pg_proc p where p.oid in ({oids}))",
        wanted = texts(&wanted),
        roles = texts(&ROLES),
    );
    let mut statements = vec![format!(
        "execute format('revoke all on routine %s from {}', one.oid::regprocedure);",
        roles(&ROLES)
    )];
    if !given.is_empty() {
        statements.push(format!(
            "execute format('grant execute on routine %s to {}', one.oid::regprocedure);",
            roles(&given)
        ));
    }
    let change = format!(
        "declare one record;\nbegin\n  for one in {oids} loop\n    {}\n  end loop;\nend;",
        statements.join("\n    ")
    );
    let place = moves.function(&function.name).filter(|_| function.schema == moves.legacy);
    let shown = match place {
        Some(it) => format!("{}.{}", it.schema, it.name),
        None => format!("{}.{}", function.schema, function.name),
    };
    Step::new(format!("grants on function {shown}({})", function.identity_arguments), done, change)
}

/// What the legacy schema's default privileges give, in each schema: new tables behave as they did there.
fn defaults(old: &Catalogue, moves: &Moves<'_>) -> Vec<Step> {
    let mut owners: BTreeSet<&str> =
        moves.tables.iter().map(|it| it.relation.owner.as_str()).collect();
    owners.extend(moves.functions.iter().flat_map(|it| &it.overloads).map(|it| it.owner.as_str()));
    let given = old.default_grants.iter().filter(|it| it.schema.as_deref() == Some(moves.legacy));
    let given: Vec<_> = given.filter(|it| owners.contains(it.role.as_str())).collect();
    let schemas = moves.schemas().into_iter().filter(|it| *it != moves.legacy);
    schemas.flat_map(|schema| given.iter().flat_map(move |it| default_of(schema, it))).collect()
}

fn default_of(schema: &str, default: &DefaultGrants) -> Vec<Step> {
    let letter = match default.objects.as_str() {
        "tables" => 'r',
        "sequences" => 'S',
        "functions" => 'f',
        "types" => 'T',
        _ => return Vec::new(),
    };
    let DefaultGrants { role, objects, grants, .. } = default;
    let steps = ROLES.into_iter().filter_map(|grantee| {
        let given: Vec<&str> =
            grants.iter().filter(|it| it.grantee == grantee).map(|it| it.privilege.as_str()).filter(|it| *it != "MAINTAIN").collect();
        // Only a member of the role may say what its objects grant; the platform's own roles are the platform's business.
        let owner = literal(&ident(role));
        let done = format!(
            "to_regrole({owner}) is null or not pg_has_role(current_user, to_regrole({owner}), 'MEMBER') or {} <@ (select coalesce(array_agg(a.privilege_type), '{{}}') from pg_catalog.pg_default_acl d, \
             aclexplode(d.defaclacl) a where d.defaclrole = to_regrole({owner}) and d.defaclnamespace = to_regnamespace({}) \
             and d.defaclobjtype = '{letter}' and {GRANTEE} = {})",
            texts(&given), literal(&ident(schema)), literal(grantee)
        );
        let alter = format!("alter default privileges for role {} in schema {}", ident(role), ident(schema));
        let (given_text, to) = (given.join(", "), role_name(grantee));
        let change = format!("{alter} grant {given_text} on {objects} to {to};");
        let undo = format!("{alter} revoke {given_text} on {objects} from {to};");
        let does = format!("default privileges on {objects} of {role} in {schema} for {grantee}");
        (!given.is_empty()).then(|| Step::new(does, done, change).undo(undo))
    });
    steps.collect()
}
