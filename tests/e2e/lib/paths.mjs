// Where things are: this folder, and what setup.sh brought into the cache.

import { existsSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const E2E = dirname(dirname(fileURLToPath(import.meta.url)));
export const REPOSITORY = dirname(dirname(E2E));

const cache = process.env.CUTOVER_CACHE ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'cutover');
const packages = join(E2E, 'node_modules');

export const postrust = join(cache, 'postrust', 'bin', 'postrust');
export const python = join(cache, 'python', 'bin', 'python');
export const lite = join(packages, '@supabase', 'lite', 'dist', 'cli', 'index.js');

/** The pg0 program inside its Python wheel. */
export function pg0() {
  const lib = join(cache, 'python', 'lib');
  const [version] = readdirSync(lib).filter((name) => name.startsWith('python3'));
  return join(lib, version, 'site-packages', 'pg0', 'bin', 'pg0');
}

/** Deno comes as one package per platform; on a platform that npm has none for, the one on PATH. */
export function deno() {
  const folder = join(packages, '@deno');
  const found = existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name, 'deno')).find(existsSync) : undefined;
  return found ?? 'deno';
}

/** A Chromium; setup.sh installs Debian's. */
export function chromium() {
  const named = process.env.CUTOVER_CHROMIUM ?? 'chromium';
  const found = named.includes('/') ? [named] : process.env.PATH.split(':').map((folder) => join(folder, named));
  const program = found.find((path) => existsSync(path));
  if (!program) throw new Error(`no ${named}: as root, apt-get install chromium; or name a Chromium or Chrome in CUTOVER_CHROMIUM`);
  return program;
}

/** A program of Prometheus; tests/observability/setup.sh unpacks Debian's. */
export function prometheus(name) {
  const folder = process.env.CUTOVER_PROMETHEUS ?? join(cache, 'prometheus', 'usr', 'bin');
  const program = join(folder, name);
  if (!existsSync(program)) throw new Error(`no ${program}: tests/observability/setup.sh brings it`);
  return program;
}

/** The binary under test. */
export function cutoverBinary() {
  const candidates = [process.env.CUTOVER_BIN, join(REPOSITORY, 'target/release/cutover'), join(REPOSITORY, 'target/debug/cutover')];
  const found = candidates.find((path) => path && existsSync(path));
  if (!found) throw new Error('no cutover binary: build one with cargo build, or name it in CUTOVER_BIN');
  return resolve(found);
}
