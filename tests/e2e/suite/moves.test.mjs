// 100 sockets with 300 channels are open while the percentage changes 50 times. After each change exactly the sockets of the users whose
// side changed are closed, with 1012; they come back by themselves and are served by the right side; no other socket is touched.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bucket, side } from '../lib/bucket.mjs';
import { Mover, SdkMover } from '../lib/mover.mjs';
import { clientOf, VERSIONS } from '../lib/sdk.mjs';
import { realtimeForget, realtimeSeen } from '../lib/socket.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';
import { until } from '../lib/until.mjs';
import { newUsers } from '../lib/users.mjs';

const SOCKETS = 100;
const CHANGES = 50;
const SDK_CLIENTS_EACH = 2;
const FAR_EVERY = 10; // real clients come back after a second of their own: their users are moved by every tenth change only
const LOW = [4, 60]; // between these percentages go the other changes
const DRAIN_MS = 200;

const key = stack.old.anonKey;
const proxy = await cutover({ sections: `[realtime]\ndrain = "${DRAIN_MS}ms"` });

const room = 'realtime:lobby';
const channelsOf = (user) => ({
  'realtime:rows': [{ event: '*', schema: 'public', table: 'topics' }, { event: 'INSERT', schema: 'public', table: 'vendor_organizations', filter: `user_id=eq.${user.id}` }],
  'realtime:all': [{ event: 'DELETE', schema: 'public', table: '*' }],
  [room]: [],
});

/** Users of the real clients lie above what most changes cross, the others anywhere. */
const candidates = newUsers(SOCKETS * 10);
const sdkUsers = candidates.filter(({ id }) => bucket(id) > LOW[1] * 100 + 500).slice(0, SDK_CLIENTS_EACH * VERSIONS.length);
const rawUsers = candidates.filter((user) => !sdkUsers.includes(user)).slice(0, SOCKETS - sdkUsers.length);

/** The next percentage: by a fixed rule, small and large steps both ways, and now and then all the way. */
function next(step) {
  if (step % FAR_EVERY === FAR_EVERY - 1) return [100, 0][Math.floor(step / FAR_EVERY) % 2];
  const [from, to] = LOW;
  return from + ((step * 37) % (to - from));
}

/** Which side serves each user's channels, as the projects' own records have it: user → topic → sides. A channel with database changes is
 * served by the side that has its bindings: its broadcasts may be with the rooms. */
async function servedBy() {
  const served = new Map();
  for (const name of ['old', 'new']) {
    for (const { closed, channels } of (await realtimeSeen(stack[name], Number.MAX_SAFE_INTEGER)).sockets) {
      if (closed) continue;
      for (const { topic, sub, bindings } of channels) {
        if (!bindings && topic !== room) continue;
        if (!served.has(sub)) served.set(sub, {});
        (served.get(sub)[topic] ??= []).push(name);
      }
    }
  }
  return served;
}

async function assertServed(movers, percentage) {
  const faults = async () => {
    const served = await servedBy();
    return movers.flatMap(({ user, channels }) => Object.keys(channels).filter((topic) => String(served.get(user.id)?.[topic]) !== (topic === room ? 'old' : side(user.id, percentage)))
      .map((topic) => `${topic} of a user of ${side(user.id, percentage)} is served by ${served.get(user.id)?.[topic]}`));
  };
  // An upstream socket ends a moment after its client's.
  const end = performance.now() + 5000;
  let found = await faults();
  while (found.length && performance.now() < end) found = await faults();
  assert.deepEqual(found.slice(0, 5), [], `${found.length} channels at ${percentage} %`);
}

test(`${CHANGES} changes move exactly the sockets of the users whose side changed`, { timeout: 180_000 }, async (t) => {
  const raw = rawUsers.map((user, index) => new Mover({ url: proxy.url, key, user, vsn: index % 2 ? '1.0.0' : '2.0.0', channels: channelsOf(user) }));
  const sdks = sdkUsers.map((user, index) => {
    const version = VERSIONS[index % VERSIONS.length];
    return new SdkMover({ version, connect: () => clientOf(version, proxy.url, key, user.token), user, channels: channelsOf(user) });
  });
  const movers = [...raw, ...sdks];
  t.after(() => Promise.all(movers.map((mover) => mover.stop())));
  assert.equal(movers.reduce((sum, { channels }) => sum + Object.keys(channels).length, 0), 3 * SOCKETS);

  for (const mover of movers) mover.start();
  await until('all channels to be in force', () => movers.every(({ joined, faults }) => joined === 1 || faults.length));
  await assertServed(movers, 0);

  let [percentage, moves] = [0, 0];
  for (let step = 0; step < CHANGES; step++) {
    const before = movers.map(({ closes, joined }) => ({ closes: closes.length, joined }));
    const to = next(step);
    const moved = movers.map(({ user }) => side(user.id, percentage) !== side(user.id, to));
    await proxy.setPercentage(to);
    const back = (mover, index) => mover.closes.length > before[index].closes && mover.joined > before[index].joined;
    const away = () => movers.filter((mover, index) => moved[index] && !back(mover, index) && !mover.faults.length);
    await until(`everybody to be back after ${percentage} → ${to} %`, () => !away().length, { seconds: 15, everyMs: 5 }).catch((error) => {
      const told = away().map((mover) => `${mover.constructor.name} ${mover.version ?? mover.vsn} of bucket ${bucket(mover.user.id)}: ${JSON.stringify(mover.closes)}, joined ${mover.joined} times`);
      throw new Error(`${error.message}; away are:\n${told.slice(0, 10).join('\n')}`);
    });
    for (const [index, mover] of movers.entries()) {
      const closes = mover.closes.slice(before[index].closes).map(({ code }) => code);
      assert.deepEqual(closes, moved[index] ? [1012] : [], `${percentage} → ${to} %: a user of bucket ${bucket(mover.user.id)}`);
    }
    percentage = to;
    moves += moved.filter(Boolean).length;
    if (step % 5 === 4) await assertServed(movers, percentage);
    await Promise.all([realtimeForget(stack.old), realtimeForget(stack.new)]);
  }
  assert.deepEqual(movers.flatMap(({ faults }) => faults), []);
  assert.ok(sdks.every(({ closes }) => closes.length), 'a real client was never moved');
  t.diagnostic(`${moves} sockets moved, each back on its side; ${movers.length * CHANGES - moves} times one was left alone`);
  for (const [who, some] of [['bare sockets', raw], ['supabase-js', sdks]]) {
    const away = some.flatMap((mover) => mover.away).sort((a, b) => a - b);
    t.diagnostic(`${who}, closed → all channels in force again: median ${away[Math.floor(away.length / 2)].toFixed(0)} ms, max ${away.at(-1).toFixed(0)} ms (${away.length} times)`);
  }
});

registered(import.meta);
