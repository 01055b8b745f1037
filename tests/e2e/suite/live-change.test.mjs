// The number changes while 200 users are served: 100 times by an edit of the file, 100 times through the admin API, with 100 writes
// of garbage to the file between them. No request fails, nobody is on the wrong side once a change is acknowledged, and every piece
// of garbage is refused and reported. How long changes take is printed, not asserted.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { distribution, lastOldDecision, Load, resolution, Timeline } from '../lib/load.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';
import { until } from '../lib/until.mjs';
import { newUsers } from '../lib/users.mjs';

const ROUNDS = 100;
const USERS = 200;
const PER_SECOND = 250;
const BETWEEN_CHANGES = 15; // requests of the steady load that meet each number undisturbed
const PERCENTAGES = [0, 1, 10, 12.5, 25, 33.33, 50, 66, 75, 90, 99.99, 100];
const GARBAGE = [
  ['letters', setTo('"abc"')],
  ['below the range', setTo('-1')],
  ['above the range', setTo('101')],
  ['not a number', setTo('nan')],
  ['an empty value', setTo('""')],
  ['no value', setTo('')],
  ['three decimals', setTo('10.125')],
  ['broken TOML', (text) => text.replace('[rollout]', '[rollout')],
  ['an unknown key', (text) => text.replace('[rollout]', '[rollout]\npercent = 10')],
  ['an empty file', () => ''],
];

function setTo(value) {
  return (text) => text.replace(/^percentage = [^#\n]*/m, `percentage = ${value} `);
}

const proxy = await cutover();
const load = new Load({ url: proxy.url, key: stack.old.anonKey, users: newUsers(USERS), perSecond: PER_SECOND });
const timeline = new Timeline(0);

const gaps = [];

/** Makes one change under probing; returns ms from its beginning to the last request sent that was decided by the number before. */
async function measured(percentage, begin) {
  const change = timeline.begin(percentage);
  let over = false;
  const probing = load.probe(() => over);
  const epoch = await begin(change).finally(() => (over = true));
  change.acknowledged = performance.now();
  const probes = await probing;
  gaps.push(resolution(probes));
  await load.settle(BETWEEN_CHANGES);
  return lastOldDecision(change, probes, epoch);
}

const byFile = (percentage, rename) => measured(percentage, async (change) => {
  proxy.editFile(setTo(percentage), { rename });
  return until(`${percentage} % from the file`, async () => {
    const now = await proxy.rollout();
    return now.percentage === change.percentage && now.epoch;
  }, { everyMs: 1 });
});

const byAdmin = (percentage) => measured(percentage, async () => {
  const current = await proxy.rollout();
  const { status, etag, body } = await proxy.put({ percentage, reason: 'live change test' }, current.etag);
  assert.equal(status, 200, JSON.stringify(body));
  assert.notEqual(etag, current.etag);
  return (await proxy.rollout()).epoch;
});

/** Reloads refused so far, as the metrics tell. */
async function refusals() {
  const line = (await proxy.metrics()).split('\n').find((text) => text.startsWith('cutover_config_reloads_total{result="failure"}'));
  assert.ok(line, 'no metric of refused reloads');
  return Number(line.split(' ').at(-1));
}

const faultsTold = async () => (await proxy.status()).reload.faults;

/** Writes garbage, waits until it is reported, checks that nothing changed, and puts the good file back. */
async function garbage([what, spoil], rename) {
  const good = readFileSync(proxy.configPath, 'utf8');
  const before = await proxy.rollout();
  const refused = await refusals();
  proxy.editFile(spoil, { rename });
  await until(`a report of ${what}`, async () => (await refusals()) > refused, { everyMs: 2 });
  assert.notEqual((await faultsTold()).length, 0, `status does not tell of ${what}`);
  const now = await proxy.rollout();
  assert.deepEqual([now.percentage, now.epoch, now.etag], [before.percentage, before.epoch, before.etag], what);
  proxy.editFile(() => good, { rename });
  await until('the fault to be over', async () => !(await faultsTold()).length, { everyMs: 2 });
}

test(`${ROUNDS} changes by file, ${ROUNDS} through the admin API, ${ROUNDS} garbage writes, ${USERS} users`, { timeout: 180_000 }, async (t) => {
  load.start();
  t.after(() => load.stop());
  const delays = { file: [], admin: [] };
  let previous = 0;
  const next = (step) => {
    const choices = PERCENTAGES.filter((percentage) => percentage !== previous);
    previous = choices[(step * 7) % choices.length];
    return previous;
  };
  for (let round = 0; round < ROUNDS; round++) {
    delays.file.push(await byFile(next(2 * round), round % 2 === 1));
    await garbage(GARBAGE[round % GARBAGE.length], round % 3 === 0);
    delays.admin.push(await byAdmin(next(2 * round + 1)));
  }
  await load.stop();

  const faults = load.samples.map((sample) => [timeline.fault(sample), sample]).filter(([fault]) => fault);
  assert.deepEqual(faults.slice(0, 5), [], `${faults.length} of ${load.samples.length} requests went wrong`);
  for (const [source, values] of Object.entries(delays)) {
    const { count, p50, p90, max } = distribution(values);
    t.diagnostic(`change by ${source} → last request decided by the old number: p50 ${p50.toFixed(1)} ms, p90 ${p90.toFixed(1)} ms, max ${max.toFixed(1)} ms (${count} changes)`);
  }
  t.diagnostic(`a probe was sent every ${distribution(gaps).p50.toFixed(1)} ms while a change was made`);
  t.diagnostic(`${load.samples.length} requests, none failed, none on the wrong side`);
  const served = new Set(load.samples.map((sample) => sample.side));
  assert.deepEqual([...served].sort(), ['new', 'old']);
});

test('a change on the ground of an outdated state is refused with 412', async () => {
  const stale = (await proxy.rollout()).etag;
  await proxy.setPercentage((await proxy.rollout()).percentage === 40 ? 41 : 40);
  const { status } = await proxy.put({ percentage: 60, reason: 'stale' }, stale);
  assert.equal(status, 412);
  assert.notEqual((await proxy.rollout()).percentage, 60);
});

test('the admin API writes the number into the file and leaves the rest of it alone', async () => {
  const before = readFileSync(proxy.configPath, 'utf8');
  await proxy.setPercentage(37.25);
  assert.equal(readFileSync(proxy.configPath, 'utf8'), before.replace(/^percentage = \S+/m, 'percentage = 37.25'));
});

registered(import.meta);
