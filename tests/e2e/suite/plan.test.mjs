// `cutover plan` against real PostgreSQL: a hard OLD, its dump restored into empty NEWs, and what the plan makes of them. The stack's own
// NEW is built by the plan too (lib/project.mjs), so every other file of the suite tests it as well.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { SCHEMA } from '../lib/cutover.mjs';
import { command, plan } from '../lib/plan.mjs';
import { freePorts } from '../lib/ports.mjs';
import { startPostgres } from '../lib/postgres.mjs';
import { Processes } from '../lib/processes.mjs';
import { registered, stack } from '../lib/suite.mjs';

const USER = '5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11';
const MAP = (compat = 'public') => `
[schema]
compat = ${JSON.stringify(compat)}
cross_schema_embeds = "pass"
[schema.tables]
users = "people"
a = "s.b"
b = "s.c"
c = "t.a"
"Order*" = "Up-Per"
"line*" = "s"
select = "order.select"
vendor_usage_logs = "vendors.usage_logs"
intelligence_usage_logs = "intelligence.usage_logs"
events = "s.happenings"
totals = "s"
shouts = "t.shouted"
keys = { to = "vendors.keys", canonical = true }
keys_v2 = "vendors.keys"
hidden = "s"
missing = "s"
[schema.functions]
size = "s.length"
count_a = "people"
clean = "s"
dynamic = "s"
`;
const SCHEMAS = ['people', 's', 't', 'Up-Per', 'order', 'vendors', 'intelligence'];
const FILES = ['01_schemas', '02_tables', '03_functions', '04_grants', '05_compat', '06_realtime', '07_sequences', '08_exposed', '09_reload'].map((name) => `${name}.sql`);

const processes = new Processes();
let old;
let dump;

before(async () => {
  const [port] = await freePorts(1);
  old = await startPostgres(processes, 'plan', port);
  await old.file('roles.sql');
  await old.sql.unsafe('create role plan_reporter').simple();
  await emptyProject('empty'); // what NEWs are made of, before OLD fills
  await old.file('plan.sql');
  dump = join(processes.dir, 'plan.dump.sql');
  await old.dump(dump, '--no-publications');
});
after(async () => {
  await old?.close();
  await processes.stop();
});

/** An empty project: a database of the same server, with what each project has of its own. */
async function emptyProject(name) {
  const database = await old.another(name);
  await database.sql.unsafe(`create schema extensions; create extension vector schema extensions; create schema auth;
    grant usage on schema auth, extensions to public;
    create function auth.uid() returns uuid language sql stable as $$ select current_setting('request.jwt.claim.sub', true)::uuid $$`).simple();
  await database.close();
}

let count = 0;
/** A NEW with OLD's dump restored. */
async function restored(t) {
  const database = await old.another(`new_${(count += 1)}`, 'empty');
  t.after(() => database.close());
  await database.restore(dump);
  return database;
}

/** Everything that a schema-only dump shows, without what differs from one dump to the next. */
async function pictured(database) {
  const file = join(processes.dir, `picture-${(count += 1)}.sql`);
  await database.program('pg_dump', '--file', file);
  return readFileSync(file, 'utf8').replace(/^\\(un)?restrict .*$/gm, '');
}

/** What the API's roles and everybody may do, a line each. */
async function rights(database) {
  const grantee = `case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee)::text end`;
  const lines = await database.sql.unsafe(`select concat_ws(' ', n.nspname, o.name, ${grantee}, a.privilege_type) as line from (
      select relnamespace as of, relname::text as name, coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner)) as acl from pg_class
      union all select c.relnamespace, c.relname || '.' || t.attname, t.attacl from pg_attribute t join pg_class c on c.oid = t.attrelid
      union all select pronamespace, oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)) from pg_proc) o
    join pg_namespace n on n.oid = o.of, aclexplode(o.acl) a
    where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'auth', 'extensions') and a.privilege_type <> 'MAINTAIN'
      and ${grantee} in ('public', 'anon', 'authenticated', 'service_role') order by 1`);
  return lines.map(({ line }) => line).join('\n');
}

const both = (database) => ({ old: old.url, new: database.url });
const apply = (database, args = [], options = {}) => plan(processes, both(database), ['--apply', '--yes', ...args], { schema: MAP(), ...options });

/** Runs a query as a user of the API, and takes it back. */
const asUser = (database, query, role = 'authenticated') => database.sql.begin(async (sql) => {
  await sql.unsafe(`set local role ${role}; set local request.jwt.claim.sub = '${USER}'`).simple();
  return sql.unsafe(query);
});

describe('the hard OLD', () => {
  test('is moved, and a second time nothing changes', async (t) => {
    const database = await restored(t);
    const before = await pictured(database);

    const dry = JSON.parse((await plan(processes, both(database), ['--apply', '--dry-run', '--json'], { schema: MAP() })).stdout);
    assert.equal(await pictured(database), before, 'a dry run changes nothing');
    assert.deepEqual(dry.files.map(({ file }) => file), FILES);

    const first = await apply(database, ['--json', '--sequence-gap', '50']);
    const made = JSON.parse(first.stdout);
    assert.ok(made.changed > 80, `${made.changed}`);
    // Rights that came with the dump are not counted as changes; sequences are, because the dry run had no gap.
    for (const [index, name] of FILES.entries()) {
      if (!name.startsWith('07')) assert.equal(made.files[index].changed, dry.files[index].pending, `${name}: ${dry.files[index].steps}`);
    }
    const after = await pictured(database);
    assert.notEqual(after, before);

    const second = await apply(database, ['--sequence-gap', '50']);
    assert.match(second.stdout, /changed 0 objects in 9 of 9 files/);
    assert.equal(await pictured(database), after, 'nothing changes when the plan is applied again');
    await database.sql.unsafe(await printed(database, ['--sequence-gap', '50'])).simple();
    assert.equal(await pictured(database), after, 'nor by the printed SQL');
    await itHasWhatOldHas(database);
  });

  test('what a hosted project gives by default widens no right, and one apply is enough', async (t) => {
    const plain = await restored(t);
    await apply(plain);
    const hosted = await old.another(`new_${(count += 1)}`, 'empty');
    t.after(() => hosted.close());
    const all = ['tables', 'functions', 'sequences'].map((kind) => `alter default privileges in schema public grant all on ${kind} to anon, authenticated, service_role;`);
    await hosted.sql.unsafe(all.join('')).simple();
    await hosted.restore(dump);
    assert.notEqual(await rights(hosted), await rights(plain));
    // A schema that was left out of the dump stands in nobody's way.
    await old.sql.unsafe(`create schema elsewhere; create sequence elsewhere.n; select nextval('elsewhere.n')`).simple();
    t.after(() => old.sql.unsafe('drop schema elsewhere cascade').simple());
    await apply(hosted);
    assert.equal(await rights(hosted), await rights(plain));
    assert.match((await apply(hosted)).stdout, /changed 0 objects in 9 of 9 files/);
  });

  test('the printed SQL does what --apply does', async (t) => {
    const [one, two] = [await restored(t), await restored(t)];
    await apply(one);
    const file = join(processes.dir, 'printed.sql');
    writeFileSync(file, await printed(two));
    await two.restore(file);
    assert.equal(await pictured(two), await pictured(one));
  });

  test('the old names work: rows go in and out through the views, under row level security', async (t) => {
    const database = await restored(t);
    await apply(database);
    const [{ id }] = await asUser(database, 'insert into public.vendor_usage_logs (calls) values (5) returning id');
    assert.equal(id, 42, 'defaults and sequences are the table’s');
    assert.equal((await asUser(database, 'select * from public.vendor_usage_logs')).length, 1);
    await asUser(database, `insert into public.vendor_usage_logs (user_id) values (gen_random_uuid())`)
      .then(() => assert.fail('a row of somebody else went in'), ({ code }) => assert.equal(code, '42501'));
    const [made] = await asUser(database, 'insert into public.a default values returning *');
    assert.deepEqual({ ...made }, { id: 3, user_id: USER, mood: 'good' });
    await asUser(database, `insert into public.b (note) values ('x') on conflict (note) do update set note = 'z'`);
    assert.deepEqual([...(await asUser(database, `update public.events set at = '2026-06-06' where id = 1 returning id`))], [{ id: 1 }]);
    for (const [query, role] of [['select * from public.a', 'anon'], ['select secret from s.hidden', 'anon'], ['select count_a()', 'anon']]) {
      await asUser(database, query.replace('count_a', 'people.count_a'), role).then(() => assert.fail(query), ({ code }) => assert.equal(code, '42501', query));
    }
    assert.equal((await asUser(database, 'select id, open from s.hidden', 'anon')).length, 0);
    assert.equal((await asUser(database, 'select * from public.c', 'anon')).length, 1, 'what everybody may do on old');
    assert.equal((await asUser(database, 'select note from public.shouts'))[0].note, 'LOUD');
    assert.equal((await asUser(database, 'select * from public.keys_v2', 'service_role')).length, 0, 'rows that have to be merged keep their table');
  });

  test('functions go on finding what they name', async (t) => {
    const database = await restored(t);
    await apply(database);
    const [row] = await database.sql.unsafe(`select people.count_a() a, public.count_logs() logs, public.count_by_caller() by_caller, public.atomic() atomic,
      (select s.length(x) from s.b x where id = 2) of_b`);
    assert.deepEqual({ ...row }, { a: '2', logs: '41', by_caller: '0', atomic: '2', of_b: 2 });
  });

  test('without compatibility views functions find tables by their new search_path', async (t) => {
    const database = await restored(t);
    const { stderr } = await apply(database, [], { schema: MAP('') });
    assert.deepEqual([...(await database.sql.unsafe(`select viewname from pg_views where schemaname = 'public'`))], []);
    assert.match(stderr, /by hand: function public\.count_logs\(\), line 1: .*say vendors\.usage_logs/);
    const second = await apply(database, [], { schema: MAP('') });
    assert.match(second.stdout, /changed 0 objects/);

    const other = await restored(t);
    const renames = '[schema]\ncompat = ""\ncross_schema_embeds = "pass"\n[schema.tables]\na = "s"\nintelligence_usage_logs = "intelligence"\n[schema.functions]\ncount_a = "people"\n';
    await apply(other, [], { schema: renames });
    const [row] = await other.sql.unsafe('select people.count_a() a, public.count_by_caller() logs');
    assert.deepEqual({ ...row }, { a: '2', logs: '0' });
    assert.match((await apply(other, [], { schema: renames })).stdout, /changed 0 objects/);
  });

  test('an owner who is no superuser applies it, to a dump without rights', async (t) => {
    const plain = join(processes.dir, 'plain.dump.sql');
    await old.dump(plain, '--no-publications', '--no-owner', '--no-privileges', '--exclude-extension', 'vector');
    const made = await old.another(`new_${(count += 1)}`, 'empty');
    t.after(() => made.close());
    await old.sql.unsafe(`create role plan_owner login createrole password 'plan_owner'; grant anon, authenticated, service_role, plan_reporter to plan_owner;
      grant authenticator to plan_owner with admin option`).simple();
    await made.sql.unsafe(`grant all on schema public to plan_owner; grant create on database "${made.name}" to plan_owner; grant usage on schema public to anon, authenticated, service_role`).simple();
    const theirs = made.as('plan_owner');
    t.after(() => theirs.close());
    await theirs.restore(plain);
    assert.match((await apply(theirs)).stdout, /changed \d+ objects in 9 of 9 files/);
    assert.match((await apply(theirs)).stdout, /changed 0 objects/);
    await asUser(made, 'insert into public.a default values');
    await asUser(made, 'select people.count_a()');
    assert.equal((await asUser(made, 'select id, open from s.hidden', 'anon')).length, 0);
    for (const query of ['select secret from s.hidden', 'select people.count_a()', 'insert into public.c (note) values (1)', 'select * from vendors.usage_logs']) {
      await asUser(made, query, 'anon').then(() => assert.fail(query), ({ code }) => assert.equal(code, '42501', query));
    }
  });

  test('what bodies, triggers and policies name is listed with its line', async () => {
    const { findings, notes } = JSON.parse((await plan(processes, { old: old.url }, ['--json'], { schema: MAP() })).stdout);
    const lines = (object, by) => findings.filter((it) => it.object.startsWith(object)).map((it) => [it.line, it.names, it.becomes, it.by_hand, ...(by ? [it[by]] : [])]);
    assert.deepEqual(lines('count_a('), [[3, 'public.a', 's.b', false]], 'not the comment');
    assert.deepEqual(lines('count_logs('), [[1, 'public.vendor_usage_logs', 'vendors.usage_logs', false]]);
    assert.deepEqual(lines('dynamic(').slice(0, 2), [[5, 'public.a', 's.b', false], [6, 'public.size', 's.length', true]]);
    assert.deepEqual(lines('clean('), [[3, 'public.a', 's.b', true]], 'a view can’t be truncated');
    assert.deepEqual(lines('touched('), [[3, 'public.vendor_usage_logs', 'vendors.usage_logs', true]]);
    assert.deepEqual(lines('atomic('), [], 'parsed when it was made');
    assert.deepEqual(findings.filter((it) => it.kind !== 'function').map((it) => [it.kind, it.object]), [['trigger', 'touch on vendor_usage_logs'], ['policy', 'named on vendor_usage_logs']]);
    assert.ok(notes.some((note) => /keys_v2 becomes vendors\.keys as well/.test(note)), notes.join('\n'));
    assert.ok(notes.some((note) => /old doesn't have: missing$/.test(note)));
    const text = await printed();
    assert.match(text, /^-- By hand: function public\.clean\(\), line 3: truncate public\.a cascade;/m);
  });

  async function printed(database, args = []) {
    return (await plan(processes, { old: old.url, new: database?.url }, args, { schema: MAP() })).stdout;
  }
});

/** Compares NEW with OLD by what the catalogue says, through the map. */
async function itHasWhatOldHas(database) {
  const places = { users: 'people.users', a: 's.b', b: 's.c', c: 't.a', 'Order "x" é': 'Up-Per.Order "x" é', 'line\nbreak; drop table a': 's.line\nbreak; drop table a',
    select: 'order.select', vendor_usage_logs: 'vendors.usage_logs', intelligence_usage_logs: 'intelligence.usage_logs', events: 's.happenings',
    events_2025: 's.events_2025', events_2026: 's.events_2026', totals: 's.totals', shouts: 't.shouted', keys: 'vendors.keys', hidden: 's.hidden' };
  const query = `select n.nspname || '.' || c.relname as place, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.relreplident,
      obj_description(c.oid, 'pg_class') as comment,
      (select array_agg(polname::text order by polname) from pg_policy where polrelid = c.oid) as policies,
      (select array_agg(x.relname::text order by x.relname) from pg_index i join pg_class x on x.oid = i.indexrelid where i.indrelid = c.oid) as indexes,
      (select array_agg(tgname::text order by tgname) from pg_trigger where tgrelid = c.oid and not tgisinternal) as triggers,
      (select array_agg(conname::text order by conname) from pg_constraint where conrelid = c.oid) as constraints,
      (select array_agg(grantee || '=' || privilege_type order by grantee, privilege_type) from (select a.grantee::regrole::text as grantee, a.privilege_type from aclexplode(c.relacl) a) g) as rights,
      (select array_agg(attname || ' ' || a.grantee::regrole || '=' || privilege_type order by attname, privilege_type) from pg_attribute t, aclexplode(t.attacl) a where attrelid = c.oid) as on_columns,
      (select string_agg(d.objid::regclass::text, ' ') from pg_depend d join pg_class q on q.oid = d.objid and q.relkind = 'S' where d.refobjid = c.oid and d.deptype in ('a', 'i')) as sequences,
      exists (select from pg_publication_tables p where p.pubname = 'supabase_realtime' and p.schemaname = n.nspname and p.tablename = c.relname) as followed
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm') and n.nspname not in ('auth', 'extensions', 'information_schema') and n.nspname !~ '^pg_'`;
  const [was, is] = [await old.sql.unsafe(query), await database.sql.unsafe(query)];
  for (const [name, place] of Object.entries(places)) {
    const [before] = was.filter((it) => it.place === `public.${name}`);
    const [now] = is.filter((it) => it.place === place);
    const schema = place.split('.')[0];
    const sequences = before.sequences && schema + '.' + before.sequences.replace(/^public\./, '');
    assert.deepEqual({ ...now }, { ...before, place, sequences }, place);
    const [view] = is.filter((it) => it.place === `public.${name}`);
    assert.equal(view.relkind, 'v', name);
  }
  assert.equal(is.find((it) => it.place === 'public.keys_v2').relkind, 'r');
  assert.equal(is.find((it) => it.place === 'public.stays').followed, true);

  const [settings] = await database.sql.unsafe(`select setconfig from pg_db_role_setting where setrole = 'authenticator'::regrole`);
  const exposed = settings.setconfig.find((it) => it.startsWith('pgrst.db_schemas=')).replace(/^[^=]*=/, '').split(', ');
  assert.deepEqual(exposed.sort(), ['public', ...SCHEMAS].sort());
  const values = await database.sql.unsafe(`select schemaname || '.' || sequencename as name, last_value from pg_sequences order by 1`);
  assert.deepEqual(Object.fromEntries(values.map((it) => [it.name, Number(it.last_value)])), {
    'intelligence.intelligence_usage_logs_id_seq': 50, 'public.stays_id_seq': 50, 'public.tickets': 57, 's.a_id_seq': 52, 's.b_id_seq': 52,
    't.c_id_seq': 600, 'vendors.vendor_usage_logs_id_seq': 91,
  });
  const acl = await database.sql.unsafe(`select n.nspname, d.defaclobjtype from pg_default_acl d join pg_namespace n on n.oid = d.defaclnamespace where n.nspname = 's' order by 2`);
  assert.deepEqual(acl.map((it) => it.defaclobjtype), ['f', 'r']);
  const comments = await database.sql.unsafe(`select nspname, obj_description(oid, 'pg_namespace') as text from pg_namespace where nspname = 'vendors'`);
  assert.equal(comments[0].text, 'Holds what was in public: keys, vendor_usage_logs as usage_logs.');
}

describe('the command', () => {
  test('a conflict rolls its file back, and what stands before it stays', async (t) => {
    const database = await restored(t);
    await database.sql.unsafe('create schema vendors; create table vendors.usage_logs (planted int)').simple();
    const { stdout, stderr } = await apply(database, [], { code: 1 });
    assert.match(stdout, /changed \d+ objects in 1 of 9 files/);
    assert.match(stderr, /02_tables\.sql failed at step \d+ \(table public\.vendor_usage_logs → vendors\.usage_logs\): 42P07 .*rolled back/);
    const [row] = await database.sql.unsafe(`select to_regnamespace('people') is not null as schema, to_regclass('public.a') is not null as stays, to_regclass('s.b') is null as gone`);
    assert.deepEqual({ ...row }, { schema: true, stays: true, gone: true });
    const failed = JSON.parse((await apply(database, ['--json'], { code: 1 })).stdout).failed;
    assert.deepEqual([failed.file, failed.code], ['02_tables.sql', '42P07']);
    assert.match(failed.sql, /alter table/);
    await database.sql.unsafe('drop table vendors.usage_logs').simple();
    await apply(database);
    assert.match((await apply(database)).stdout, /changed 0 objects/);
  });

  test('nothing is applied unasked, to old, or where nothing was restored', async (t) => {
    const database = await restored(t);
    const before = await pictured(database);
    const unasked = await plan(processes, both(database), ['--apply'], { schema: MAP(), code: 1 });
    assert.match(unasked.stderr, /nothing was changed: there is no terminal/);
    assert.match(unasked.stdout, /^02_tables\.sql +16 +0 /m);
    assert.equal(await pictured(database), before);
    const itself = await plan(processes, { old: old.url, new: old.url }, ['--apply', '--yes'], { schema: MAP(), code: 1 });
    assert.match(itself.stderr, /leads to old's own database/);

    await database.sql.unsafe('drop extension vector').simple();
    assert.match((await plan(processes, both(database), ['--apply', '--dry-run'], { schema: MAP() })).stderr, /extensions of old that new lacks: vector/);

    const empty = await old.another('nothing', 'empty');
    t.after(() => empty.close());
    const { stderr } = await apply(empty, [], { code: 1 });
    assert.match(stderr, /02_tables\.sql failed at step 1 .*42P01/);
    assert.match((await plan(processes, { old: old.url }, ['--apply', '--yes'], { schema: MAP(), code: 1 })).stderr, /SUPABASE_DB_URL_NEW/);
    assert.match((await plan(processes, { old: '', new: database.url }, [], { schema: MAP(), code: 1 })).stderr, /SUPABASE_DB_URL_OLD/);
    assert.match((await plan(processes, both(database), [], { schema: '[schema]\nnonsense = 1\n', code: 2 })).stdout, /schema\.nonsense/);
  });

  test('--out writes the files, and replaces no other ones unless forced', async () => {
    const dir = join(mkdtempSync(join(processes.dir, 'out-')), 'sql');
    const out = (args = [], options = {}) => plan(processes, { old: old.url }, ['--out', dir, ...args], { schema: MAP(), ...options });
    await out();
    assert.deepEqual(readdirSync(dir).sort(), FILES);
    assert.match((await out()).stdout, /^(unchanged .*\n){9}$/);
    writeFileSync(join(dir, FILES[3]), '-- mine');
    assert.match((await out([], { code: 1 })).stderr, /04_grants\.sql; nothing was written; --force/);
    assert.equal(readFileSync(join(dir, FILES[3]), 'utf8'), '-- mine');
    assert.match((await out(['--force'])).stdout, /^written .*04_grants/m);
  });

  test('no password is in what is said', async (t) => {
    const database = await restored(t);
    const wrong = database.url.replace('postgres:postgres@', 'postgres:hush-hush@').replace('/new_', '/none_');
    const { stdout, stderr } = await plan(processes, { old: old.url }, ['--apply', wrong, '--yes', '--json'], { schema: MAP(), code: 1 });
    assert.doesNotMatch(stdout + stderr, /hush-hush/);
    assert.match(stderr, /a password among the arguments/);
  });
});

test('the stack’s own NEW, built by the plan, has nothing left to change', async () => {
  const { stdout } = await plan(processes, { old: stack.old.databaseUrl, new: stack.new.databaseUrl }, ['--apply', '--dry-run', '--json']);
  const { files } = JSON.parse(stdout);
  assert.deepEqual(files.filter(({ pending }) => pending), []);
});

test('an empty NEW with a restored dump has, after the plan, all rows of OLD where the map says', async (t) => {
  const [was, is] = [await old.another('stack_old', 'empty'), await old.another('stack_new', 'empty')];
  t.after(() => Promise.all([was.close(), is.close()]));
  await Promise.all([was.restore(stack.old.dump), is.restore(stack.old.dump)]);
  const databases = { old: was.url, new: is.url };
  await plan(processes, databases, ['--apply', '--yes']);
  const verify = ['verify', '--rows', 'all', '--no-storage', '--mapped-only', '--recheck', '0', '--json'];
  const { verdict, tables } = JSON.parse((await command(processes, databases, verify)).stdout);
  assert.equal(verdict, 'equal');
  assert.ok(tables.length >= 19, `${tables.length} tables`);
  await is.sql.unsafe('delete from vendors.usage_logs').simple();
  await command(processes, databases, verify, { code: 1 });
});

registered(import.meta);
