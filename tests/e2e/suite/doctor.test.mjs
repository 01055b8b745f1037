// `cutover doctor` on real projects: nothing fails on them as they are, and each of ten faults, made and undone one after the other, is
// named with what to do about it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import postgres from 'postgres';
import { configText } from '../lib/cutover.mjs';
import { OTHER_SECRET } from '../lib/keys.mjs';
import * as paths from '../lib/paths.mjs';
import { keep, secretsOf } from '../lib/said.mjs';
import { registered, stack, startPair } from '../lib/suite.mjs';

const BUCKET = 'doctors-bucket'; // of this file alone: others may hold objects of other tests
const SECTIONS = `
[storage.buckets]
artifacts = "artifacts/growth"
reports = "documents"
`;

const directory = mkdtempSync(join(tmpdir(), 'cutover-doctor-'));
const databases = Object.fromEntries(['old', 'new'].map((side) => [side, postgres(stack[side].databaseUrl, { max: 1, onnotice: () => {} })]));
const sql = (side, statement) => databases[side].unsafe(statement).simple();
after(async () => {
  for (const side of ['old', 'new']) await sql(side, `delete from storage.buckets where id = '${BUCKET}'`);
  rmSync(directory, { recursive: true });
  await Promise.all(Object.values(databases).map((database) => database.end({ timeout: 1 })));
});

/** The settings of a pair, with both databases, and the secret that tokens are tried with. */
function settings(pair) {
  let text = configText(pair, { port: 8000, adminPort: 8001, sections: SECTIONS });
  for (const side of ['old', 'new']) {
    const secret = pair.tokens ? '' : `jwt_secret = ${JSON.stringify(pair[side].signing.secret)}\n`;
    text = text.replace(`[projects.${side}]\n`, `[projects.${side}]\ndatabase_url = "${pair[side].databaseUrl}"\n${secret}`);
  }
  return text;
}

/** Runs the command; returns its exit code and what it printed, as JSON if `--json` is among the arguments (it is by default). */
function doctor(text = settings(stack), ...args) {
  const config = join(directory, 'config.toml');
  writeFileSync(config, text);
  secretsOf(text);
  const all = ['doctor', '--config', config, ...(args.length ? args : ['--json'])];
  return new Promise((resolve) => {
    execFile(paths.cutoverBinary(), all, { env: { PATH: process.env.PATH }, cwd: directory }, (error, stdout, stderr) => {
      keep('doctor', stdout, stderr);
      const said = all.includes('--json') ? JSON.parse(stdout) : undefined;
      resolve({ code: error?.code ?? 0, stdout, stderr, ...said });
    });
  });
}

const failed = ({ findings }) => findings.filter(({ status }) => status === 'fail');
const shown = (findings) => findings.map(({ id, side, subject, seen }) => `${id} ${side} ${subject}: ${seen}`).join('\n');

before(async () => {
  for (const side of ['old', 'new']) await sql(side, `insert into storage.buckets (id, name, public) values ('${BUCKET}', '${BUCKET}', true) on conflict do nothing`);
});

async function isClean(text) {
  const report = await doctor(text);
  assert.equal(shown(failed(report)), '');
  // postrust writes no OpenAPI document; the databases say the same.
  assert.equal(shown(report.findings.filter(({ id, status }) => status === 'skip' && id !== 'rest.openapi')), '', 'everything can be asked here');
  assert.equal(report.code, 0);
  assert.equal(report.ok, true);
  return report;
}

test('both projects as they are: nothing fails, and every check was made', async () => {
  const { findings, summary } = await isClean();
  assert.ok(summary.pass > 200, `${summary.pass} lines`);
  for (const id of ['reach.url', 'reach.clock', 'keys.anon', 'keys.service', 'keys.other', 'rest.exposed', 'rest.table', 'rest.function', 'rest.granted', 'rest.columns', 'rest.compat', 'tokens.jwks', 'tokens.own', 'tokens.round_trip', 'auth.health', 'storage.bucket', 'storage.folder', 'realtime.join', 'realtime.changes', 'db.connect', 'db.rls', 'db.policies', 'db.grants', 'db.publication', 'db.compat']) {
    assert.ok(findings.some((finding) => finding.id === id && finding.status === 'pass'), id);
  }
});

const NEW_KEY = stack.new.keys.anon;
// Each: what is done to the projects or to the settings, which check names it, on what, and a piece of what to do.
const FAULTS = [
  {
    name: 'a schema that is not exposed',
    make: () => hide(['billing']),
    undo: () => hide([]),
    names: { 'rest.exposed': 'billing' },
    fix: /Exposed schemas: add billing[^]*pgrst\.db_schemas[^]*notify pgrst, 'reload config'/,
  },
  {
    name: 'a missing grant',
    make: () => sql('new', 'revoke select on marketplace.orders from authenticated'),
    undo: () => sql('new', 'grant select on marketplace.orders to authenticated'),
    names: { 'rest.granted': 'marketplace.orders as authenticated', 'db.grants': 'marketplace.orders' },
    fix: /grant select, insert, update, delete on marketplace\.orders to authenticated;/,
  },
  {
    name: 'a missing table',
    make: () => sql('new', 'alter table marketplace.orders rename to orders_gone'),
    undo: () => sql('new', 'alter table marketplace.orders_gone rename to orders'),
    names: { 'rest.table': 'marketplace.orders', 'db.table': 'marketplace.orders' },
    fix: /cutover plan/,
  },
  {
    name: 'a missing column',
    make: () => sql('new', 'alter table marketplace.orders rename column status to state'),
    undo: () => sql('new', 'alter table marketplace.orders rename column state to status'),
    names: { 'rest.columns': 'marketplace.orders.status' },
    fix: /alter table marketplace\.orders add column status text;/,
  },
  {
    name: 'a missing function',
    make: () => sql('new', 'alter function security_service.match_memories rename to match_gone'),
    undo: () => sql('new', 'alter function security_service.match_gone rename to match_memories'),
    names: { 'rest.function': 'security_service.match_memories', 'db.function': 'security_service.match_memories' },
    only: ['db.function'], // a schema cache that was not reloaded goes on showing it
    fix: /see rest\.function/,
  },
  {
    name: 'row level security off',
    make: () => sql('new', 'alter table marketplace.orders disable row level security'),
    undo: () => sql('new', 'alter table marketplace.orders enable row level security'),
    names: { 'db.rls': 'marketplace.orders' },
    fix: /alter table marketplace\.orders enable row level security;/,
  },
  {
    name: 'a wrong key',
    settings: (text) => text.replace(JSON.stringify(NEW_KEY), JSON.stringify(stack.old.keys.anon)),
    names: { 'keys.anon': 'projects.new.anon_key' },
    fix: /it is a key of the old project/,
  },
  {
    name: 'a wrong JWT secret',
    settings: (text) => text.replace(new RegExp(`(\\[projects\\.new\\][^]*?jwt_secret = )"[^"]*"`), `$1${JSON.stringify(OTHER_SECRET)}`),
    names: { 'tokens.own': 'projects.new.jwt_secret', 'tokens.round_trip': 'a user of new on old' },
    fix: /copy the secret anew/,
  },
  {
    name: 'a table that is not in the publication',
    make: () => sql('new', 'alter publication supabase_realtime drop table marketplace.orders'),
    undo: () => sql('new', 'alter publication supabase_realtime add table marketplace.orders'),
    names: { 'db.publication': 'marketplace.orders' },
    fix: /alter publication supabase_realtime add table marketplace\.orders;/,
  },
  {
    name: 'a missing bucket',
    make: () => sql('new', `delete from storage.buckets where id = '${BUCKET}'`),
    undo: () => sql('new', `insert into storage.buckets (id, name, public) values ('${BUCKET}', '${BUCKET}', true)`),
    names: { 'storage.bucket': BUCKET },
    fix: /New bucket[^]*insert into storage\.buckets[^]*true/,
  },
];

const hide = (schemas) => fetch(`${stack.new.url}/__e2e/hidden-schemas`, { method: 'PUT', body: JSON.stringify(schemas) });

for (const { name, make, undo, settings: change = (text) => text, names, only = Object.keys(names), fix } of FAULTS) {
  test(`${name} is named, with what to do, and nothing else is`, async () => {
    const text = change(settings(stack));
    if (!make) assert.notEqual(text, settings(stack), 'the settings are changed');
    await make?.();
    let report;
    try {
      report = await doctor(text);
    } finally {
      await undo?.();
    }
    assert.equal(report.code, 1);
    assert.equal(report.ok, false);
    for (const id of only) {
      const finding = failed(report).find((line) => line.id === id && line.subject === names[id]);
      assert.ok(finding, `${id} ${names[id]} is among:\n${shown(failed(report))}`);
      assert.ok(finding.fix, 'it says what to do');
    }
    const others = failed(report).filter(({ id, subject }) => !(id in names) || !subject.includes(names[id]));
    assert.equal(shown(others), '', 'nothing else fails');
    assert.match(failed(report).map((line) => line.fix).join('\n'), fix);
  });
}

test('clean again without them', () => isClean());

const of = ({ findings }, id, subject) => findings.filter((line) => line.id === id && line.subject.startsWith(subject));

test('a policy that names moved and renamed tables says the same on both sides, until it does not', async () => {
  const policy = (keys, organizations, condition) => `create policy by_organization on ${keys} for select to authenticated using
    (exists (select 1 from ${organizations} o where o.id = organization_id and o.${condition})
     or organization_id in (select id from ${organizations} where tier = 'open'))`;
  await sql('old', policy('public.vendor_api_keys', 'public.vendor_organizations', 'user_id = auth.uid()'));
  await sql('new', policy('vendors.api_keys', 'vendors.organizations', 'user_id = auth.uid()'));
  try {
    const same = await doctor(settings(stack), '--json', '--only', 'db.policies');
    assert.deepEqual(of(same, 'db.policies', 'vendors.api_keys').map(({ status }) => status), ['pass'], shown(same.findings));
    await sql('new', 'drop policy by_organization on vendors.api_keys');
    const missing = await doctor(settings(stack), '--json', '--only', 'db.policies');
    const [finding] = failed(missing);
    assert.equal(finding.subject, 'vendors.api_keys: by_organization');
    // What to do is what makes it right.
    await sql('new', finding.fix.replace(/^on new: /, ''));
    const again = await doctor(settings(stack), '--json', '--only', 'db.policies');
    assert.equal(shown(failed(again)), '');
  } finally {
    await sql('old', 'drop policy if exists by_organization on public.vendor_api_keys');
    await sql('new', 'drop policy if exists by_organization on vendors.api_keys');
  }
});

test('sequences: behind their table, or giving out the same ids, until the statements are run', async () => {
  const tables = { old: 'public.orders', new: 'marketplace.orders' };
  for (const [side, table] of Object.entries(tables)) await sql(side, `alter table ${table} add column number bigserial`);
  try {
    const sequences = () => doctor(settings(stack), '--json', '--only', 'db.sequences');
    const before = await sequences();
    assert.equal(shown(failed(before)), '');
    const [warning] = before.findings.filter(({ status }) => status === 'warn');
    assert.match(warning.seen, /both sides give out the same ids for number/);
    for (const side of ['old', 'new']) await sql(side, warning.fix.match(new RegExp(`^on ${side}: (.*)$`, 'm'))[1]);
    assert.equal((await sequences()).summary.warn, 0, 'odd and even never meet');
    await sql('new', `select setval('marketplace.orders_number_seq', 2)`);
    const [behind] = failed(await sequences());
    assert.match(behind.seen, /at 2, but the table already holds 40/);
    await sql('new', behind.fix.replace(/^on new: /, ''));
    assert.equal(shown(failed(await sequences())), '');
  } finally {
    for (const [side, table] of Object.entries(tables)) await sql(side, `alter table ${table} drop column number`);
  }
});

test('what bypasses row level security, and what names a table where it was', async () => {
  await sql('new', 'alter view public.orders set (security_invoker = false)');
  await sql('new', `create function marketplace.count_orders() returns bigint language sql stable as $$\n  select count(*)\n  from public.orders $$`);
  try {
    const report = await doctor(settings(stack), '--json', '--only', 'db');
    assert.equal(shown(failed(report)), 'db.compat new public.orders: judges with its owner\'s rights: row level security of the table below is bypassed');
    const [body] = of(report, 'db.bodies', 'marketplace.count_orders()');
    assert.equal(body.status, 'warn');
    assert.match(body.seen, /line 3: public\.orders, now marketplace\.orders/);
  } finally {
    await sql('new', 'alter view public.orders set (security_invoker = true)');
    await sql('new', 'drop function marketplace.count_orders()');
  }
});

test('where new signs with a key of its own, an exchanged token is what is tried', async () => {
  const pair = await startPair('asymmetric');
  await using(async () => {
    const { findings } = await isClean(settings(pair));
    const passed = findings.find(({ id, side }) => id === 'tokens.round_trip' && side === 'new');
    assert.equal(passed.seen, 'accepted');
    assert.match(findings.find(({ id, side }) => id === 'tokens.jwks' && side === 'new').seen, /^keys /);
    const wrong = await doctor(settings(pair).replace(JSON.stringify(stack.old.signing.secret), JSON.stringify(OTHER_SECRET)));
    assert.ok(failed(wrong).some(({ id, side }) => id === 'tokens.own' && side === 'old'), shown(failed(wrong)));
  }, pair.new.databaseUrl);
});

/** The other NEW has no bucket of this file's. */
async function using(run, databaseUrl) {
  const other = postgres(databaseUrl, { max: 1 });
  try {
    await other.unsafe(`insert into storage.buckets (id, name, public) values ('${BUCKET}', '${BUCKET}', true)`);
    await run();
  } finally {
    await other.end({ timeout: 1 });
  }
}

test('for people: lines without colour and progress where there is no terminal, and no secret anywhere', async () => {
  const { code, stdout, stderr } = await doctor(settings(stack), '--all');
  assert.equal(code, 0, stdout);
  assert.match(stdout, /^rest\.table: Is each mapped table on its side\?$/m);
  assert.match(stdout, /^ {2}pass {2}new {3}marketplace\.orders: found$/m);
  assert.match(stdout, /0 failed\n$/);
  assert.equal(stderr, '');
  const secrets = ['old', 'new'].flatMap((side) => [...stack[side].keys.anon, ...stack[side].keys.service, stack[side].signing.secret, 'postgres:postgres@']);
  const { stdout: json } = await doctor();
  for (const secret of secrets) assert.ok(!`${stdout}${json}`.includes(secret), `${secret.slice(0, 12)}… is shown`);
  assert.ok(!stdout.includes('\x1b'));
});

test('on a terminal it shows how it goes on, in colour, and ends', async () => {
  const config = join(directory, 'config.toml');
  writeFileSync(config, settings(stack));
  const command = `'${paths.cutoverBinary()}' doctor --config '${config}' --only reach`;
  const { error, stdout } = await new Promise((resolve) => {
    // util-linux's script gives it a terminal. Once a second thread drew the progress, and waited for ever.
    const child = execFile('script', ['-qec', command, '/dev/null'], { timeout: 60_000, env: { PATH: process.env.PATH, TERM: 'xterm' } }, (error, stdout) => resolve({ error, stdout }));
    child.stdin.end();
  });
  keep('doctor', stdout);
  assert.equal(error, null, stdout);
  assert.match(stdout, /\x1b\[32mpass\x1b\[0m {2}new/);
  assert.match(stdout, /both projects/, 'what is asked about now');
});

test('less is asked when less is wanted, and what is not known is said', async () => {
  const some = await doctor(settings(stack), '--json', '--only', 'db.rls', '--side', 'new');
  assert.deepEqual([...new Set(some.findings.map(({ id }) => id))], ['db.rls']);
  const blind = settings(stack).replaceAll(/^(database_url|service_role_key|jwt_secret) = .*\n/gm, '');
  const report = await doctor(blind);
  assert.equal(shown(failed(report)), '');
  for (const id of ['db.connect', 'keys.service', 'rest.columns', 'storage.bucket', 'tokens.own']) {
    const skipped = report.findings.find((finding) => finding.id === id && finding.status === 'skip');
    assert.ok(skipped?.fix, `${id} says what it needs:\n${shown(report.findings)}`);
  }
  assert.equal((await doctor(settings(stack), '--only', 'nonsense')).code, 1);
  assert.equal((await doctor(settings(stack).replace('percentage = 0', 'percentage = 101'), '--json')).code, 2);
  assert.equal((await doctor(settings(stack), '--json', '--strict')).code, report.summary.warn || (await doctor()).summary.warn ? 1 : 0);
});

registered(import.meta);
