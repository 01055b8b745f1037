// One formula, three implementations: the binary, PostgreSQL and this suite put every user into the same bucket.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import postgres from 'postgres';
import { bucket, SALT, side, VECTORS } from '../lib/bucket.mjs';
import { configText } from '../lib/cutover.mjs';
import { cutoverBinary } from '../lib/paths.mjs';
import { Processes } from '../lib/processes.mjs';
import { keep } from '../lib/said.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';

const run = promisify(execFile);
const PERCENTAGE = 30;
const processes = new Processes();
after(() => processes.stop());

async function explain(config, user) {
  const { stdout } = await run(cutoverBinary(), ['explain', '--json', '--config', config, '--user', user], { env: { PATH: process.env.PATH } });
  keep('explain', stdout);
  return JSON.parse(stdout);
}

function configFile(name, rollout) {
  const path = join(processes.dir, `${name}.toml`);
  writeFileSync(path, configText(stack, { port: 8000, adminPort: 8001, percentage: PERCENTAGE, rollout }));
  return path;
}

const hashes = [
  { name: 'default-salt', rollout: { salt: 'cutover' }, bucketOf: ([, withDefault]) => withDefault },
  { name: 'onasis-salt', rollout: { salt: SALT }, bucketOf: ([, , withOnasis]) => withOnasis },
  { name: 'md5', rollout: { hash: 'md5' }, bucketOf: ([, , , md5]) => md5 * 100 },
];

for (const { name, rollout, bucketOf } of hashes) {
  test(`cutover explain gives the published vectors (${name})`, async () => {
    const config = configFile(name, rollout);
    for (const vector of VECTORS) {
      const told = await explain(config, vector[0]);
      const expected = bucketOf(vector);
      assert.equal(told.bucket, expected, vector[0]);
      assert.equal(told.side, expected < PERCENTAGE * 100 ? 'new' : 'old', vector[0]);
      assert.equal(told.reason, 'percentage');
    }
  });
}

test('cutover explain tells at which percentage a user moves', async () => {
  const told = await explain(configFile('moves', {}), '5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11');
  assert.deepEqual([told.side, told.bucket, told.reason], ['new', 711, 'percentage']);
  const moves = Number(told.moves_at);
  assert.ok(bucket('5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11') < moves * 100 && moves <= 7.12, `moves_at is ${told.moves_at}`);
});

const USERS = Array.from({ length: 10_000 }, () => randomUUID());

test('PostgreSQL agrees over 10,000 users', async () => {
  const sql = postgres(stack.new.databaseUrl, { max: 1 });
  const rows = await sql`
    select key, ((('x' || encode(substring(sha256(convert_to(${SALT} || ':' || key, 'UTF8')) from 1 for 4), 'hex'))::bit(32)::bigint & 4294967295) * 10000) >> 32 as bucket
    from unnest(${[...USERS, ...VECTORS.map(([key]) => key)]}::text[]) key`;
  await sql.end();
  for (const row of rows) assert.equal(Number(row.bucket), bucket(row.key), row.key);
  const share = USERS.filter((user) => bucket(user) < PERCENTAGE * 100).length / USERS.length;
  assert.ok(Math.abs(share - PERCENTAGE / 100) < 0.02, `share of new is ${share}`);
});

const proxy = await cutover({ percentage: PERCENTAGE });

test('the running proxy agrees, over the first 1,000 of them', async () => {
  for (const user of USERS.slice(0, 1000)) {
    const told = await (await fetch(`${proxy.adminUrl}/explain?user=${user}`)).json();
    assert.deepEqual([told.bucket, told.side], [bucket(user), side(user, PERCENTAGE)], user);
  }
});

registered(import.meta);
