// Starts the stack once and runs the test files of suite/ against it, one after the other, on node's own test runner.
//   node run-suite.mjs [part of a file name …]

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as paths from './paths.mjs';
import { startStack } from './stack.mjs';

const wanted = process.argv.slice(2);
const suite = join(paths.E2E, 'suite');
const files = readdirSync(suite).filter((name) => name.endsWith('.test.mjs') && (!wanted.length || wanted.some((part) => name.includes(part)))).sort();
if (!files.length) throw new Error(`no test file is named like ${wanted.join(', ')}`);

const started = performance.now();
console.log(`cutover under test: ${paths.cutoverBinary()}`);
const stack = await startStack();
console.log(`both projects are up after ${((performance.now() - started) / 1000).toFixed(1)} s`);

const described = join(stack.processes.dir, 'stack.json');
writeFileSync(described, JSON.stringify({ old: stack.old, new: stack.new }));
const env = { ...process.env, CUTOVER_E2E_STACK: described };
// Force exit: supabase-js keeps a heartbeat timer for half a minute after its socket is closed.
const args = ['--test', '--test-concurrency=1', '--test-force-exit', '--test-reporter=spec', ...files.map((name) => join(suite, name))];
const runner = stack.processes.start('suite', process.execPath, args, { env, stdio: 'inherit', detached: false });
const { code } = await runner.ended;
const unfinished = files.filter((name) => !existsSync(`${described}.${name}`));
for (const name of unfinished) console.error(`suite/${name} ended before all its tests were registered`);
const seconds = (name) => Number(existsSync(`${described}.${name}`) ? readFileSync(`${described}.${name}`, 'utf8') : 0);
for (const name of files.toSorted((a, b) => seconds(b) - seconds(a))) console.log(`${seconds(name).toFixed(1).padStart(7)} s  suite/${name}`);
await stack.stop();
process.exit(unfinished.length ? 1 : code ?? 1);
