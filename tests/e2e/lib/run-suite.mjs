// Starts the stack once and runs the test files of suite/ against it, one after the other, on node's own test runner.
//   node run-suite.mjs [part of a file name …]

import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as paths from './paths.mjs';
import { beginKeeping } from './said.mjs';
import { lookThrough } from './secrets.mjs';
import { startStack } from './stack.mjs';

const wanted = process.argv.slice(2);
const suite = join(paths.E2E, 'suite');
const files = readdirSync(suite).filter((name) => name.endsWith('.test.mjs') && (!wanted.length || wanted.some((part) => name.includes(part)))).sort();
if (!files.length) throw new Error(`no test file is named like ${wanted.join(', ')}`);

const started = performance.now();
console.log(`cutover under test: ${paths.cutoverBinary()}`);
const kept = mkdtempSync(join(tmpdir(), 'cutover-e2e-said-'));
process.once('exit', () => process.env.CUTOVER_E2E_KEEP || rmSync(kept, { recursive: true, force: true }));
beginKeeping(kept);
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

const looked = performance.now();
const { found, ...all } = lookThrough(kept);
for (const leak of found.slice(0, 20)) console.error(`a secret was said: ${leak}`);
console.log(`${all.secrets} secrets in ${all.forms} forms, looked for in ${(all.bytes / 1e6).toFixed(1)} MB of ${all.files} logs, answers and pages: ${found.length} found (of ${all.planted} planted ones all), ${((performance.now() - looked) / 1000).toFixed(1)} s`);
process.exit(unfinished.length || found.length ? 1 : code ?? 1);
