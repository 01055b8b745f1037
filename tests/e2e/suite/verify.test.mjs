// `cutover verify`: two databases that hold the same rows and look different, seven planted differences, a run that is killed and goes on; then
// the stack's own two projects through PostgREST. The databases of the first part are this file's own, on the stack's servers; what is
// planted on the stack's projects is undone.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import postgres from 'postgres';
import { configText, SCHEMA } from '../lib/cutover.mjs';
import { cutoverBinary } from '../lib/paths.mjs';
import { plan } from '../lib/plan.mjs';
import { freePorts } from '../lib/ports.mjs';
import { startPostgres } from '../lib/postgres.mjs';
import { Processes } from '../lib/processes.mjs';
import { keep, secretsOf } from '../lib/said.mjs';
import { registered, stack } from '../lib/suite.mjs';
import { until } from '../lib/until.mjs';
import { fill, found, MAP, plant } from '../lib/verify-data.mjs';

const ROWS = 20_000;
const DATABASE = 'verify_suite';
const processes = new Processes();
const ownConfig = join(processes.dir, 'own.toml');
const stackConfig = join(processes.dir, 'stack.toml');
const urls = Object.fromEntries(['old', 'new'].map((side) => [side, stack[side].databaseUrl.replace(/[^/]*$/, DATABASE)]));

const project = (name, url) => `[projects.${name}]\nurl = "${stack[name].url}"\nanon_key = ${JSON.stringify(stack[name].keys.anon)}\n${url ? `database_url = "${url}"\n` : ''}`;
writeFileSync(ownConfig, `${project('old', urls.old)}${project('new', urls.new)}${MAP}`);
writeFileSync(stackConfig, configText(stack, { port: 8000, adminPort: 8001 }));
secretsOf(readFileSync(ownConfig, 'utf8'));

let runs = 0;

function start(config, args) {
  return processes.start(`verify-${++runs}`, cutoverBinary(), ['verify', '--config', config, ...args], { env: { PATH: process.env.PATH }, cwd: processes.dir });
}

/** Runs verify to its end; returns its exit code, what it printed, and that as JSON if it was asked for. */
async function verify(config, ...args) {
  const child = start(config, args);
  const { code } = await child.ended;
  const text = readFileSync(child.logPath, 'utf8');
  return { code, text, report: args.includes('--json') ? JSON.parse(text) : undefined };
}

const own = (...args) => verify(ownConfig, '--json', '--ignore', 'updated_at', '--no-storage', ...(args.includes('--recheck') ? [] : ['--recheck', '1']), ...args);

/** Runs statements on a database of the stack. */
async function on(url, ...statements) {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  const answers = [];
  for (const statement of statements) answers.push(await sql.unsafe(statement));
  await sql.end();
  return answers;
}

before(async () => {
  await Promise.all(['old', 'new'].map((side) => on(stack[side].databaseUrl, `create database ${DATABASE}`)));
  await fill(urls, ROWS);
});

after(async () => {
  await Promise.all(['old', 'new'].map((side) => on(stack[side].databaseUrl, `drop database if exists ${DATABASE} with (force)`)));
  await processes.stop();
});

test('through databases: the same rows are equal, however they lie', async () => {
  const counts = await own();
  assert.deepEqual([counts.code, counts.report.verdict, counts.report.through, counts.report.rows], [0, 'equal', 'database', 'counts']);
  const all = await own('--rows', 'all');
  assert.equal(all.code, 0, all.text);
  assert.deepEqual(all.report.warnings, [], 'among them: that a side exports no snapshot');
  assert.equal(all.report.tables.reduce((sum, table) => sum + table.rows.compared.old, 0), ROWS);
  assert.deepEqual(all.report.tables.map((table) => table.new).sort(), ['audit.log', 'memory.entries', 'shared.labels', 'shared.settings'], 'the prefix entry label* is expanded');
  const entries = all.report.tables.find((table) => table.new === 'memory.entries');
  assert.deepEqual(entries.null_embeddings, [{ column: 'embedding', old: 160, new: 160 }]);
  assert.deepEqual(entries.columns_ignored, ['updated_at']);
  // Pages that end within every table, and the column that is not ignored.
  const pages = await verify(ownConfig, '--json', '--no-storage', '--rows', 'all', '--page', '777', '--recheck', '0', '--max-differences', '50', '--table', 'entries');
  assert.equal(pages.code, 1);
  const [{ rows }] = pages.report.tables;
  assert.deepEqual([rows.changed, rows.is_cut, rows.differences[0].columns], [50, true, ['updated_at']]);
});

test('through databases: seven planted differences are found, and no other', async () => {
  const expected = await plant(urls.new, ROWS);
  const report = join(processes.dir, 'report.md');
  const all = await own('--rows', 'all', '--report', report);
  assert.equal(all.code, 1, all.text);
  assert.deepEqual(found(all.report), expected);
  assert.equal(all.report.verdict, 'differ');
  const small = await own('--rows', 'all', '--page', '501', '--concurrency', '4', '--recheck', '0');
  assert.deepEqual(found(small.report), expected, 'where pages end has no say');

  const markdown = readFileSync(report, 'utf8');
  assert.match(markdown, /\| public\.labels \| shared\.labels \| \d+ \| \d+ \| 0 \| differ \| 1 changed \|/);
  assert.match(markdown, /- changed {2}id=[-0-9a-f]{36}: embedding/);
  const shown = await verify(ownConfig, '--rows', 'all', '--ignore', 'updated_at', '--no-storage', '--show', '1', '--table', 'memory.entries');
  assert.match(shown.text, /missing on new {2}id=[-0-9a-f]{36}\n {2}… 2 more/);
  assert.doesNotMatch(shown.text, /postgres:postgres/, 'no password');

  // Left out, by either name of the table; a sample sees some of them, and the same ones each time.
  const without = await own('--rows', 'all', '--ignore', 'log.at', '--ignore', 'public.labels.body', '--ignore', 'value');
  assert.deepEqual(found(without.report), expected.filter(({ columns }) => !['at', 'body', 'value'].includes(columns[0])));
  const [one, two] = [await own('--rows', '5000', '--recheck', '0'), await own('--rows', '5000', '--recheck', '0')];
  assert.deepEqual(found(one.report), found(two.report));
  const sampled = found(one.report).map((difference) => JSON.stringify(difference));
  assert.ok(sampled.every((difference) => expected.some((wanted) => JSON.stringify(wanted) === difference)), sampled.join());
  assert.equal(one.report.seed, 'cutover');
});

test('a run that is killed half-way goes on where it was, and finds the same', async () => {
  const state = join(processes.dir, 'verify.state');
  const args = ['--json', '--ignore', 'updated_at', '--no-storage', '--rows', 'all', '--page', '200', '--concurrency', '1', '--recheck', '0', '--resume', state];
  const child = start(ownConfig, [...args, '--rate', '8000']);
  const reached = () => {
    const { done, begun } = JSON.parse(readFileSync(state, 'utf8'));
    return { done: Object.keys(done), begun };
  };
  await until('a table to be done and another to be begun', () => existsSync(state) && reached().done.length > 0 && Object.keys(reached().begun).length > 0);
  child.kill('SIGKILL');
  await child.ended;
  assert.equal(statSync(state).mode & 0o777, 0o600, 'keys are for their owner alone');
  keep('state', readFileSync(state, 'utf8'));
  assert.doesNotMatch(readFileSync(state, 'utf8'), /postgres:postgres/);

  const other = await verify(ownConfig, ...args.filter((arg) => arg !== '--ignore' && arg !== 'updated_at'));
  assert.equal(other.code, 1);
  assert.match(other.report.message, /begun with other settings/);
  const [whole, resumed] = [await own('--rows', 'all', '--recheck', '0'), await verify(ownConfig, ...args)];
  assert.equal(resumed.code, 1);
  assert.equal(resumed.report.resumed, true);
  assert.deepEqual(found(resumed.report), found(whole.report));
  assert.equal(found(resumed.report).length, 7);
  assert.ok(!existsSync(state), 'nothing is left to go on from');
});

test('a run that is over time says what it has, and how to go on', async () => {
  const state = join(processes.dir, 'late.state');
  const late = await own('--rows', 'all', '--page', '200', '--rate', '2000', '--max-duration', '1', '--resume', state);
  assert.equal(late.code, 1);
  assert.equal(late.report.verdict, 'not_compared');
  assert.match(late.report.warnings.join(), /--max-duration \(1 s\) is over; the same command goes on/);
  assert.ok(late.report.tables.some((table) => table.fault === 'stopped before its end'));
  assert.ok(existsSync(state));

  // Ctrl-C is the same: what there is, and a file that the next run goes on from.
  const child = start(ownConfig, ['--json', '--ignore', 'updated_at', '--no-storage', '--rows', 'all', '--page', '200', '--rate', '2000', '--resume', state]);
  const begun = readFileSync(state, 'utf8');
  await until('it to go on', () => child.how || readFileSync(state, 'utf8') !== begun);
  child.kill('SIGINT');
  assert.deepEqual(await child.ended, { code: 1, signal: null });
  const interrupted = JSON.parse(readFileSync(child.logPath, 'utf8'));
  assert.match(interrupted.warnings.join(), /interrupted; the same command goes on/);
  const resumed = await own('--rows', 'all', '--resume', state);
  assert.deepEqual([resumed.report.resumed, found(resumed.report).length], [true, 7]);
});

test('what changed between the two snapshots settles when it is looked at again', async () => {
  await on(urls.new, `update shared.labels set body = 'being written' where name = (select min(name) from shared.labels)`);
  const child = start(ownConfig, ['--json', '--ignore', 'updated_at', '--no-storage', '--rows', 'all', '--table', 'labels', '--recheck', '4', '--resume', join(processes.dir, 'settle.state')]);
  // The table is done: both snapshots have been read, and the pause has begun.
  await until('labels to be done', () => {
    const path = join(processes.dir, 'settle.state');
    return child.how || (existsSync(path) && Object.keys(JSON.parse(readFileSync(path, 'utf8')).done).length === 1);
  });
  const [[{ body }]] = await on(urls.old, `select body from labels where name::text collate "C" = (select min(name::text collate "C") from labels)`);
  const sql = postgres(urls.new, { max: 1 });
  await sql`update shared.labels set body = ${body} where name = (select min(name) from shared.labels)`;
  await sql.end();
  const { code } = await child.ended;
  const [{ rows }] = JSON.parse(readFileSync(child.logPath, 'utf8')).tables;
  assert.deepEqual([code, rows.settled, rows.changed], [1, 1, 1], 'what was planted stays');
});

test('a table that new lacks is said, and a key is no more than its own columns', async () => {
  const inc = ['create table inc (id int, x int, primary key (id) include (x))', 'insert into inc values (1, null), (2, 3)'];
  await on(urls.old, 'create table forgotten (id int primary key)', ...inc);
  await on(urls.new, ...inc);
  const { code, report } = await own('--rows', 'all');
  await on(urls.old, 'drop table forgotten, inc');
  await on(urls.new, 'drop table inc');
  assert.match(report.warnings.join(), /new lacks tables of old that the map doesn't name: public\.forgotten$/);
  const { verdict, rows } = report.tables.find((table) => table.new === 'public.inc');
  assert.deepEqual([code, verdict, rows.key], [1, 'equal', ['id']], 'what was planted stays');
});

test('a partition is a part of its table, unless the map names it', async () => {
  const parts = (schema) => ['create table parted (id int primary key) partition by range (id)', `create table ${schema}.parted_1 partition of parted for values from (0) to (10)`,
    `create table parted_2 partition of parted for values from (10) to (20)`, 'insert into parted select generate_series(0, 19)'];
  await on(urls.old, ...parts('public'));
  await on(urls.new, ...parts('shared'));
  const config = join(processes.dir, 'parted.toml');
  writeFileSync(config, readFileSync(ownConfig, 'utf8').replace('[schema.tables]', '[schema.tables]\nparted_1 = "shared"'));
  const { report } = await verify(config, '--json', '--no-storage', '--rows', 'all', '--recheck', '0', '--ignore', 'updated_at');
  await Promise.all(['old', 'new'].map((side) => on(urls[side], 'drop table parted')));
  const parted = report.tables.filter((table) => table.new.includes('parted')).map((table) => [table.new, table.verdict, table.rows?.compared.new]);
  assert.deepEqual(parted, [['public.parted', 'equal', 20], ['shared.parted_1', 'equal', 10]]);
});

test('tables without a key are compared as a whole, and what can not be compared is said', async () => {
  await on(urls.old, 'create table loose (a int, b text)', `insert into loose values (1, 'x'), (1, 'x'), (2, null)`);
  await on(urls.new, 'create table loose (b text, a int)', `insert into loose values (null, 2), ('x', 1), ('x', 1)`);
  const equal = await own('--rows', 'all', '--table', 'loose');
  assert.deepEqual([equal.code, equal.report.tables[0].is_mapped], [0, false], 'a table that the map leaves alone');
  await on(urls.new, `update loose set a = 3 where a = 2`);
  const differs = await own('--rows', 'all', '--table', 'loose', '--recheck', '1');
  assert.deepEqual([differs.code, differs.report.tables[0].rows.keyless_differ], [1, true]);
  assert.deepEqual((await own('--mapped-only', '--table', 'loose')).report.message, 'no table is called loose');

  await on(urls.new, 'alter table shared.labels rename to gone');
  const gone = await own();
  await on(urls.new, 'alter table shared.gone rename to labels', 'drop table loose');
  assert.equal(gone.code, 1);
  assert.equal(gone.report.verdict, 'not_compared');
  const labels = gone.report.tables.find((table) => table.old.includes('public.labels'));
  assert.deepEqual([labels.verdict, labels.fault], ['not_compared', 'new has no shared.labels']);
  assert.ok(gone.report.tables.filter((table) => table !== labels && table.new !== 'memory.entries').some((table) => table.verdict !== 'not_compared'), 'the others were compared');
});

test('faults in the settings are exit 2, a database that does not answer is 1', async () => {
  const bad = join(processes.dir, 'bad.toml');
  writeFileSync(bad, readFileSync(ownConfig, 'utf8').replace('[schema]', '[schema]\nunmapped = "x"'));
  assert.equal((await verify(bad)).code, 2);
  writeFileSync(bad, readFileSync(ownConfig, 'utf8').replace(urls.new, urls.new.replace(/:\d+\//, ':9/')));
  const gone = await verify(bad);
  assert.equal(gone.code, 1);
  assert.match(gone.text, /^error: new: /);
  writeFileSync(bad, readFileSync(ownConfig, 'utf8').replace(urls.new, urls.old));
  assert.match((await verify(bad)).text, /leads to the same database as old's/, 'a database always agrees with itself');
  const without = await verify(stackConfig, '--through', 'database');
  assert.match(without.text, /needs projects\.old\.database_url/);
});

test('through PostgREST: the stack\'s projects by counts and by rows', async () => {
  const args = ['--json', '--no-storage', '--recheck', '1'];
  const counts = await verify(stackConfig, ...args);
  assert.equal(counts.report.through, 'rest');
  const table = (report, name) => report.tables.find((each) => each.new === name);
  assert.ok(table(counts.report, 'intelligence.smart_recall_notes'), 'the prefix entry is expanded by the OpenAPI documents');
  assert.deepEqual(counts.report.warnings, []);

  const some = (wanted, ...more) => verify(stackConfig, ...args, '--rows', wanted, '--page', '7', ...more);
  const rows = (...more) => some('all', ...more);
  const session = (n) => `md5('session ' || ${n})::uuid`;
  const fillSessions = (name, organizations) => `insert into ${name} (id, user_id, organization_id, platform)
    select ${session('n')}, o.user_id, o.id, 'platform ' || n from generate_series(1, 40) n join ${organizations} o on o.id = md5('organization ' || n)::uuid`;
  const setting = (value) => `update shared_services.settings set value = '"${value}"' where user_id = md5('user 7')::uuid and key = 'theme' returning user_id`;
  try {
    // A table that no other file of the suite uses, and one with a key of two columns that others do: there what is new is looked at.
    await on(stack.old.databaseUrl, fillSessions('vendor_platform_sessions', 'vendor_organizations'));
    await on(stack.new.databaseUrl, fillSessions('vendors.platform_sessions', 'vendors.organizations'));
    const clean = await rows('--table', 'vendor_platform_sessions');
    assert.equal(clean.code, 0, clean.text);
    const { key, compared } = table(clean.report, 'vendors.platform_sessions').rows;
    assert.deepEqual([key, compared], [['id'], { old: 40, new: 40 }]);
    const before = found((await rows('--table', 'user_settings')).report);

    await on(stack.new.databaseUrl, setting('light'), `update vendors.platform_sessions set platform = '' where id = ${session(1)}`,
      `delete from vendors.platform_sessions where id = ${session(2)}`, `update vendors.platform_sessions set id = ${session(99)} where id = ${session(3)}`);
    const planted = await rows('--table', 'platform_sessions', '--table', 'user_settings');
    assert.equal(planted.code, 1, planted.text);
    const [ids] = await on(stack.old.databaseUrl, `select ${[1, 2, 3, 99].map((n) => `${session(n)}::text as s${n}`)}, md5('user 7')::uuid::text as user`);
    const { s1, s2, s3, s99, user } = ids[0];
    const differences = found(planted.report).filter((difference) => !before.some((known) => JSON.stringify(known) === JSON.stringify(difference)));
    const expected = [
      { table: 'shared_services.settings', kind: 'changed', key: [user, 'theme'], columns: ['value'] },
      { table: 'vendors.platform_sessions', kind: 'changed', key: [s1], columns: ['platform'] },
      { table: 'vendors.platform_sessions', kind: 'missing', key: [s2], columns: [] },
      { table: 'vendors.platform_sessions', kind: 'missing', key: [s3], columns: [] },
      { table: 'vendors.platform_sessions', kind: 'extra', key: [s99], columns: [] },
    ];
    const sorted = (list) => list.map((each) => JSON.stringify(each)).sort();
    assert.deepEqual(sorted(differences), sorted(expected));

    const ignored = await rows('--table', 'platform_sessions', '--ignore', 'vendor_platform_sessions.platform');
    assert.deepEqual(found(ignored.report).map(({ kind }) => kind).sort(), ['extra', 'missing', 'missing']);
    const sample = await some('10', '--table', 'platform_sessions');
    const { rows: sampled } = table(sample.report, 'vendors.platform_sessions');
    assert.ok(sampled.is_sample && sampled.compared.old > 0 && sampled.compared.old < 40, JSON.stringify(sampled.compared));
  } finally {
    await on(stack.new.databaseUrl, setting('dark'), 'delete from vendors.platform_sessions');
    await on(stack.old.databaseUrl, 'delete from vendor_platform_sessions');
  }
});

test('a restored dump of OLD that `cutover plan` has put in order is equal, row by row', async () => {
  const [port] = await freePorts(1);
  const old = await startPostgres(processes, 'verify', port);
  await old.file('roles.sql');
  const neu = await old.another('planned', 'app');
  await Promise.all([old.restore(stack.old.dump), neu.restore(stack.old.dump)]);
  await plan(processes, { old: old.url, new: neu.url }, ['--apply', '--yes']);
  await Promise.all([old.close(), neu.close()]);
  const config = join(processes.dir, 'planned.toml');
  writeFileSync(config, `${project('old', old.url)}${project('new', neu.url)}${SCHEMA}`);
  const { code, report, text } = await verify(config, '--json', '--rows', 'all', '--recheck', '0');
  assert.equal(code, 0, text);
  const compared = report.tables.reduce((sum, table) => sum + table.rows.compared.new, 0);
  assert.ok(compared > 1000 && report.tables.length >= 20, `${compared} rows of ${report.tables.length} tables`);
});

test('storage: objects are counted where the map says they are', async () => {
  const config = join(processes.dir, 'storage.toml');
  writeFileSync(config, configText(stack, { port: 8000, adminPort: 8001, sections: '[storage.buckets]\nartifacts = "artifacts/growth"\nreports = "documents"\n[storage.owners]\navatars = "old"\n' }));
  const only = ['--json', '--table', 'vendor_platform_sessions', '--recheck', '0'];
  const object = (side, name, method, body) => fetch(`${stack[side].url}/storage/v1/object/artifacts/${name}`, {
    method, body, headers: { apikey: stack[side].serviceKey, authorization: `Bearer ${stack[side].serviceKey}`, ...(body && { 'content-type': 'text/plain' }) },
  });
  const objects = [['old', 'verify/one.txt'], ['old', 'verify/deep/two.txt'], ['new', 'growth/verify/one.txt'], ['new', 'elsewhere/one.txt']];
  const artifacts = (of) => of.buckets.find((bucket) => bucket.old === 'artifacts');
  const { report: empty } = await verify(config, ...only);
  for (const [side, name] of objects) assert.equal((await object(side, name, 'POST', 'twelve bytes')).status, 200);
  after(() => Promise.all(objects.map(([side, name]) => object(side, name, 'DELETE'))));
  const { report, code } = await verify(config, ...only);
  assert.equal(code, 1);
  const { objects: { old: wasOld, new: wasNew } } = artifacts(empty);
  assert.deepEqual(artifacts(report).objects, { old: wasOld + 2, new: wasNew + 1 }, 'what lies outside of the folder is not counted');
  assert.deepEqual(report.buckets.map((bucket) => `${bucket.old} ${bucket.new}`).sort(), ['artifacts artifacts/growth', 'avatars avatars', 'pictures pictures', 'reports documents']);
  assert.equal(report.buckets.find((bucket) => bucket.old === 'avatars').verdict, 'owned');
  const throughDatabases = join(processes.dir, 'storage-databases.toml');
  const text = readFileSync(config, 'utf8').replace(/\[projects\.(old|new)\]/g, (section, side) => `${section}\ndatabase_url = "${stack[side].databaseUrl}"`);
  writeFileSync(throughDatabases, text);
  const other = (await verify(throughDatabases, ...only)).report;
  assert.equal(other.through, 'database');
  const counted = (buckets) => buckets.map(({ old, new: place, objects }) => [old, place, objects]);
  assert.deepEqual(counted(other.buckets), counted(report.buckets), 'both ways of counting agree');
});

registered(import.meta);
