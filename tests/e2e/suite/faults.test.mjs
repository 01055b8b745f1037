// One project's parts are killed (kill -9) and started again while both projects are under load: its PostgreSQL, its REST server, its
// gateway. Only its own users are affected, each of their requests gets an answer, and nobody has to help: as soon as the part is back
// they are served. A write that was acknowledged is there, and none is there twice.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import postgres from 'postgres';
import { side } from '../lib/bucket.mjs';
import { Load } from '../lib/load.mjs';
import { Processes } from '../lib/processes.mjs';
import { buildNew, startProject } from '../lib/project.mjs';
import { rest } from '../lib/rest.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';
import { pause, until } from '../lib/until.mjs';
import { newUsers } from '../lib/users.mjs';

const USERS = 60;
const PER_SECOND = 120;
const WRITE_EVERY_MS = 40;
const AWAY_MS = 1000; // from the kill to the new start
const PERCENTAGE = 50;
const AFTER = 40; // requests that have to go well when all is over

const processes = new Processes();
after(() => processes.stop());
// A NEW of its own: what is killed here is nobody else's.
const label = 'new-faults';
const neu = await startProject(processes, 'new', buildNew(processes, stack.old), { label });
const proxy = await cutover({ pair: { old: stack.old, new: neu }, percentage: PERCENTAGE });
const users = newUsers(USERS);
const sides = new Map(users.map(({ id }) => [id, side(id, PERCENTAGE)]));
const run = `faults ${Date.now()}`;

/** Writes one row after the other, as users in turn. A write has one id, is asked for once, and is never repeated. */
class Writes {
  asked = []; // { name, side, status }

  start() {
    const began = performance.now();
    this.pending = new Set();
    this.timer = setInterval(() => {
      const due = (performance.now() - began) / WRITE_EVERY_MS;
      while (this.asked.length < due) this.write(users[this.asked.length % USERS]);
    }, WRITE_EVERY_MS);
  }

  write(user) {
    const write = { name: `${run} ${this.asked.length}`, side: sides.get(user.id) };
    this.asked.push(write);
    const exchange = rest(proxy.url, '/topics', { key: stack.old.anonKey, token: user.token, method: 'POST', body: { name: write.name }, headers: { prefer: 'return=minimal' } })
      .then(({ status, text }) => Object.assign(write, { status, text }), (error) => Object.assign(write, { failure: error.message }))
      .finally(() => this.pending.delete(exchange));
    this.pending.add(exchange);
  }

  async stop() {
    clearInterval(this.timer);
    await Promise.all(this.pending);
  }
}

/** How often each of this run's rows is there. */
async function rows(databaseUrl, table) {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => {} });
  try {
    const found = await sql`select name, count(*)::int from ${sql(table)} where name like ${`${run} %`} group by name`;
    await sql`delete from ${sql(table)} where name like ${`${run} %`}`;
    return new Map(found.map(({ name, count }) => [name, count]));
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** What a request may come to while its project's part is away: an answer of 5xx, or a body that is visibly cut. */
const isOfTheFault = (sample) => sample.status >= 500 || (sample.status === undefined && /aborted|terminated/.test(sample.failure));

const PARTS = {
  'PostgreSQL': () => neu.crashDatabase(),
  'the REST server': async () => {
    const again = await processes.crash(processes.named(`postrust-${label}-public`));
    const functions = await processes.crash(processes.named(`postrust-${label}-security_service`));
    return () => (again(), functions());
  },
  'the gateway': () => processes.crash(processes.named(`gateway-${label}`)),
};

test('parts of NEW are killed and started again under load', { timeout: 120_000 }, async (t) => {
  const load = new Load({ url: proxy.url, key: stack.old.anonKey, users, perSecond: PER_SECOND });
  const writes = new Writes();
  load.start();
  writes.start();
  t.after(() => Promise.all([load.stop(), writes.stop()]));
  await load.settle(AFTER);

  const outages = [];
  for (const [part, crash] of Object.entries(PARTS)) {
    const outage = { part, begun: performance.now() };
    const again = await crash();
    await pause(AWAY_MS);
    await again();
    outage.back = performance.now();
    await until(`NEW to be served after ${part} was killed`, () => {
      const last = load.samples.slice(-100).filter(({ user, sent }) => sides.get(user) === 'new' && sent > outage.back).slice(-20);
      return last.length === 20 && last.every((sample) => !sample.failure);
    });
    outage.over = performance.now();
    outages.push(outage);
    await load.settle(AFTER);
  }
  await Promise.all([load.stop(), writes.stop()]);

  for (const outage of outages) {
    const { part, begun, back, over } = outage;
    const during = load.samples.filter(({ sent, done }) => done >= begun && sent <= over);
    const failed = during.filter(({ failure }) => failure);
    // A REST server may let its requests wait until its database is back.
    const waited = during.filter(({ user, failure, sent, done }) => !failure && sides.get(user) === 'new' && done - sent > AWAY_MS / 2);
    assert.notEqual(failed.length + waited.length, 0, `nobody noticed that ${part} was killed`);
    const last = Math.max(back, ...failed.map(({ done }) => done));
    const kinds = Object.entries(Object.groupBy(failed, ({ status, failure }) => status ?? failure)).map(([kind, { length }]) => `${length} × ${kind}`);
    t.diagnostic(`${part}: ${during.length} requests, ${failed.length} of NEW's users failed (${kinds.join(', ')}), ${waited.length} waited, the last failed ${Math.round(last - back)} ms after it was started again`);
  }
  const isMeant = ({ user, sent, done }) => sides.get(user) === 'new' && outages.some(({ begun, over }) => done >= begun && sent <= over);
  const unexplained = load.samples.filter((sample) => sample.failure && !(isMeant(sample) && isOfTheFault(sample)));
  assert.deepEqual(unexplained.slice(0, 5), [], `${unexplained.length} of ${load.samples.length} requests failed without a reason`);
  const misled = load.samples.filter(({ failure, side: told, project, user }) => !failure && (told !== project || told !== sides.get(user)));
  assert.deepEqual(misled.slice(0, 5), [], 'served by the wrong side');
  const ofOld = load.samples.filter(({ user }) => sides.get(user) === 'old');
  t.diagnostic(`${load.samples.length} reads; ${ofOld.length} of OLD's users, none failed`);

  const found = { old: await rows(stack.old.databaseUrl, 'public.topics'), new: await rows(neu.databaseUrl, 'security_service.topics') };
  const wrong = writes.asked.filter(({ name, side: own, status, failure }) => {
    const there = found[own].get(name) ?? 0;
    if (found[own === 'old' ? 'new' : 'old'].has(name) || there > 1) return true;
    if (status === 201) return there !== 1;
    return own === 'old' || !isOfTheFault({ status, failure });
  });
  assert.deepEqual(wrong.slice(0, 5), [], `${wrong.length} of ${writes.asked.length} writes are lost, double or in the wrong place`);
  const refused = writes.asked.filter(({ status }) => status !== 201);
  t.diagnostic(`${writes.asked.length} writes, ${writes.asked.length - refused.length} acknowledged and there once, ${refused.length} refused, none twice`);

  const metrics = await proxy.metrics();
  assert.match(metrics, /^cutover_requests_in_flight 0$/m);
});

registered(import.meta);
