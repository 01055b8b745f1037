// What every test file stands on: the stack that run.sh started, and a proxy of its own, stopped (and its exit code checked) at the end.

import { readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { after } from 'node:test';
import { startCutover } from './cutover.mjs';
import { Processes } from './processes.mjs';
import { startOtherNew } from './stack.mjs';

const described = process.env.CUTOVER_E2E_STACK;
if (!described) throw new Error('start the suite with tests/e2e/run.sh');

/** The last line of every test file: all its tests are registered. A file that ends before (its proxy did not start) would otherwise
 * count as one without tests, which node's runner takes for a success. At the file's end its time, in seconds, is kept there. */
export function registered(meta) {
  const mark = `${described}.${basename(meta.filename)}`;
  writeFileSync(mark, '');
  process.once('exit', () => writeFileSync(mark, process.uptime().toFixed(1)));
}

export const stack = JSON.parse(readFileSync(described, 'utf8'));

/** The pair of that name (see PAIRS in stack.mjs, or `shared`): OLD is the stack's, NEW is started for this test file. */
export async function startPair(name) {
  if (name === 'shared') return stack;
  const processes = new Processes();
  after(() => processes.stop());
  return { old: stack.old, new: await startOtherNew(processes, name, stack.old), tokens: 'exchange' };
}

/** Starts a proxy in front of the stack, or of another pair, for this test file; call it at the file's top level. */
export async function cutover({ pair = stack, ...options } = {}) {
  const processes = new Processes();
  const proxy = await startCutover(processes, pair, options).catch(async (error) => {
    await processes.stop();
    throw error;
  });
  after(async () => {
    try {
      await proxy.stop();
    } finally {
      await processes.stop();
    }
  });
  return proxy;
}
