// See verify.sh.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cutoverBinary } from '../tests/e2e/lib/paths.mjs';
import { freePorts } from '../tests/e2e/lib/ports.mjs';
import { startPostgres } from '../tests/e2e/lib/postgres.mjs';
import { Processes } from '../tests/e2e/lib/processes.mjs';
import { fill, found, MAP, plant } from '../tests/e2e/lib/verify-data.mjs';

const total = Number(process.env.VERIFY_ROWS ?? 1_000_000);
const processes = new Processes();
const ports = await freePorts(2);
const [old, neu] = await Promise.all([startPostgres(processes, 'old', ports[0]), startPostgres(processes, 'new', ports[1])]);
await Promise.all([old.close(), neu.close()]);

const project = (name, url) => `[projects.${name}]\nurl = "http://127.0.0.1:9"\nanon_key = "anon-of-${name}"\ndatabase_url = "${url}"\n`;
const config = join(processes.dir, 'verify.toml');
writeFileSync(config, `${project('old', old.url)}${project('new', neu.url)}${MAP}`);

const started = performance.now();
await fill({ old: old.url, new: neu.url }, total);
console.log(`${total.toLocaleString('en')} rows on each side after ${seconds(started)} s`);

/** Runs verify; returns its report, exit code, time, and the highest resident memory that the kernel has seen. */
async function verify(...more) {
  const begun = performance.now();
  const args = ['verify', '--config', config, '--json', '--rows', 'all', '--ignore', 'updated_at', ...more];
  const child = spawn(cutoverBinary(), args, { stdio: ['ignore', 'pipe', 'inherit'], env: { PATH: process.env.PATH } });
  let peak = 0;
  const timer = setInterval(() => {
    try {
      peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1] ?? 0));
    } catch { /* it has just ended */ }
  }, 20);
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const text = Buffer.concat(await child.stdout.toArray()).toString();
  const code = await ended;
  clearInterval(timer);
  return { report: JSON.parse(text), code, time: seconds(begun), peak: `${(peak / 1024).toFixed(0)} MB` };
}

const clean = await verify();
assert.deepEqual([clean.code, clean.report.verdict], [0, 'equal'], JSON.stringify(clean.report).slice(0, 3000));
console.log(`clean: ${clean.time} s, peak memory ${clean.peak}, exit ${clean.code}`);

const expected = await plant(neu.url, total);
const planted = await verify();
assert.deepEqual(found(planted.report), expected);
assert.equal(planted.code, 1);
console.log(`7 planted differences: found ${expected.length} and no other in ${planted.time} s, peak memory ${planted.peak}, exit ${planted.code}`);
console.log('cutover verify --rows all --ignore updated_at');
await processes.stop();

function seconds(since) {
  return ((performance.now() - since) / 1000).toFixed(1);
}
