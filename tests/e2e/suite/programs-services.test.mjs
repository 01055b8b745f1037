// Whole applications, one per SDK, that use every service at once and know nothing of Cutover: through it they see what they see
// directly, at 0, 50 and 100 %, whether the two projects share a secret, have one each, or differ in the very kind of their keys.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { side } from '../lib/bucket.mjs';
import { claimsOf } from '../lib/keys.mjs';
import { runProgram } from '../lib/programs.mjs';
import { realtimeForget, realtimeSeen } from '../lib/socket.mjs';
import { forget, requestsSeen } from '../lib/stack.mjs';
import { cutover, registered, stack, startPair } from '../lib/suite.mjs';

const PROGRAMS = [
  ['supabase-js 2.39', 'whole-app.mjs', 'supabase-js-2-39'],
  ['supabase-js 2.49', 'whole-app.mjs', 'supabase-js-2-49'],
  ['supabase-js', 'whole-app.mjs', ''],
  ['supabase-py', 'whole_app.py', ''],
];
// It joins with its API key and says who its user is after the reply. So its channel begins on the side of nobody, who goes by address,
// and is joined again where its user belongs; the first join stays as the channel's room, its bindings unheard.
const JOINS_AS_NOBODY = PROGRAMS[1];
const nobody = (percentage) => side('127.0.0.1', percentage);
const MOST_RUNS = 20; // sign-up gives random ids: that in one of the 12 tests all of 20 fall on one side of 50 % happens once in forty thousand times
const STORAGE = `
[storage]
fallback = true
mark_key = "a-key-for-marks-that-all-replicas-of-the-proxy-share"
[storage.buckets]
artifacts = "artifacts/growth"
`;

const run = ([, program, sdk], url) => runProgram(program, { url, anonKey: stack.old.anonKey, sdk });
const direct = new Map();

const pairs = await Promise.all(['shared', 'secrets', 'asymmetric'].map(async (name) => {
  const pair = await startPair(name);
  return { name, pair, proxy: await cutover({ pair, name: `cutover-${name}`, sections: STORAGE }) };
}));

test('each application directly, against OLD', async () => {
  await Promise.all(PROGRAMS.map(async (program) => direct.set(program, await run(program, stack.old.url))));
  for (const { steps } of direct.values()) {
    assert.ok(steps.length > 25);
    const { data } = steps.find(({ step }) => step === 'live: heard after the refresh');
    assert.deepEqual(Object.values(data).map((heard) => heard.length), [4, 1, 2, 1, 4, 1], 'the reference itself has not heard everything');
  }
});

for (const { name, pair, proxy } of pairs) {
  for (const percentage of [0, 50, 100]) {
    test(`${name}: each application at ${percentage} %`, { timeout: 120_000 }, async (t) => {
      await proxy.setPercentage(percentage);
      await Promise.all([pair.old, pair.new].flatMap((project) => [forget(project), realtimeForget(project)]));
      const sides = percentage === 50 ? ['old', 'new'] : [percentage === 100 ? 'new' : 'old'];
      await Promise.all(PROGRAMS.map((program) => t.test(program[0], async () => {
        const seen = new Set();
        for (let runs = 0; runs < MOST_RUNS && seen.size < sides.length; runs++) {
          const through = await run(program, proxy.url);
          assertSame(through.steps, direct.get(program).steps);
          const mine = side(through.user, percentage);
          const joined = program === JOINS_AS_NOBODY ? { asNobody: [nobody(percentage)], asUser: [mine].filter((one) => one !== nobody(percentage)) } : { asNobody: [], asUser: [mine] };
          assert.deepEqual(await whoServed(pair, through.user), { auth: ['old'], rest: [mine], storage: [mine], functions: [mine], ...joined, room: ['old'] });
          seen.add(mine);
        }
        assert.deepEqual([...seen].sort(), [...sides].sort());
      })));
    });
  }
}

/** Step by step, so that a difference is reported with its name. */
function assertSame(actual, expected) {
  for (const [index, step] of expected.entries()) assert.deepEqual(actual[index], step, `step “${step.step}”`);
  assert.equal(actual.length, expected.length);
}

/** Which projects saw this user, by service, as their own records have it; `asNobody` and `asUser` are where the database changes were
 * joined, by the token of the join. */
async function whoServed(pair, user) {
  const served = { auth: [], rest: [], storage: [], functions: [], asNobody: [], asUser: [], room: [] };
  for (const name of ['old', 'new']) {
    const requests = (await requestsSeen(pair[name])).filter(({ headers }) => subject(headers.authorization?.replace('Bearer ', '')) === user);
    for (const service of ['auth', 'rest', 'storage', 'functions']) if (requests.some(({ url }) => url.startsWith(`/${service}/v1/`))) served[service].push(name);
    const frames = (await realtimeSeen(pair[name])).frames.filter(({ from }) => from === 'client');
    const who = ({ frame }) => subject(frame.payload?.access_token);
    const sockets = new Set(frames.filter((one) => who(one) === user).map(({ socket }) => socket));
    const joins = (topic) => frames.filter(({ socket, frame }) => sockets.has(socket) && frame.event === 'phx_join' && frame.topic === topic);
    const changes = joins('realtime:changes').filter(({ frame }) => frame.payload.config.postgres_changes?.length);
    if (changes.some((join) => !who(join))) served.asNobody.push(name);
    if (changes.some(who)) served.asUser.push(name);
    if (joins(`realtime:lobby-${user}`).length) served.room.push(name);
  }
  return served;
}

function subject(token) {
  try {
    return claimsOf(token).sub;
  } catch {
    return undefined;
  }
}

registered(import.meta);
