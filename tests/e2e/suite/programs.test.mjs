// Whole applications that know nothing of Cutover get the same answers through it as directly, whatever the percentage.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { side } from '../lib/bucket.mjs';
import { runProgram } from '../lib/programs.mjs';
import { forget, requestsSeen } from '../lib/stack.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';

const PROGRAMS = [
  { program: 'app-old-dialect.mjs', home: 'old' },
  { program: 'app-new-dialect.mjs', home: 'new' }, // written for NEW: its reference is NEW, its key is NEW's
  { program: 'app_old_dialect.py', home: 'old' },
];
const MOST_RUNS = 20; // sign-up gives random ids; that all of 20 fall on one side of 50 % happens once in half a million times

const proxy = await cutover();

for (const { program, home } of PROGRAMS) {
  test(`${program}: directly and through Cutover at 0, 50 and 100 %`, async (t) => {
    const { anonKey } = stack[home];
    const direct = await runProgram(program, { url: stack[home].url, anonKey });
    assert.ok(direct.steps.length > 20);

    for (const percentage of [0, 50, 100]) {
      const sides = percentage === 50 ? ['old', 'new'] : [percentage === 100 ? 'new' : 'old'];
      await t.test(`${percentage} %`, async () => {
        await proxy.setPercentage(percentage);
        const seen = new Set();
        for (let run = 0; run < MOST_RUNS && seen.size < sides.length; run++) {
          await Promise.all([forget(stack.old), forget(stack.new)]);
          const through = await runProgram(program, { url: proxy.url, anonKey });
          assertSame(through.steps, direct.steps);
          const expected = side(through.user, percentage);
          assert.deepEqual(await projectsThatServed(through.user), [expected]);
          seen.add(expected);
        }
        assert.deepEqual([...seen].sort(), [...sides].sort());
      });
    }
  });
}

/** Step by step, so that a difference is reported with its name. */
function assertSame(actual, expected) {
  for (const [index, step] of expected.entries()) assert.deepEqual(actual[index], step, `step “${step.step}”`);
  assert.equal(actual.length, expected.length);
}

/** The projects whose REST service saw this user's token. */
async function projectsThatServed(user) {
  const seen = await Promise.all(['old', 'new'].map(async (name) => [name, await requestsSeen(stack[name])]));
  return seen.filter(([, requests]) => requests.some((request) => request.url.startsWith('/rest/v1/') && subject(request) === user)).map(([name]) => name);
}

function subject({ headers }) {
  const payload = headers.authorization?.split('.')[1];
  return payload && JSON.parse(Buffer.from(payload, 'base64url')).sub;
}

registered(import.meta);
