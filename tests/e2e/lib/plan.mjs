// `cutover plan` and its like, as an operator runs them before any proxy is up: the map, and both databases.

import { execFile } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { SCHEMA } from './cutover.mjs';
import * as paths from './paths.mjs';
import { keep, secretsOf } from './said.mjs';

const run = promisify(execFile);

/** Runs a command that asks the databases; `databases` are { old, new }, `schema` the part of the settings about the map. Returns
 * { code, stdout, stderr }; fails on another exit code than `code`. */
export async function command(processes, databases, args, { schema = SCHEMA, code = 0 } = {}) {
  const dir = mkdtempSync(join(processes.dir, 'settings-'));
  const config = join(dir, 'config.toml');
  const project = (name) => `[projects.${name}]\nurl = "http://${name}.invalid"\n`; // the API is never asked
  writeFileSync(config, `${project('old')}${project('new')}${schema}`);
  const env = { PATH: process.env.PATH, SUPABASE_DB_URL_OLD: databases.old, SUPABASE_DB_URL_NEW: databases.new ?? '' };
  if (!databases.new) delete env.SUPABASE_DB_URL_NEW;
  const [name, ...rest] = args;
  const ended = await run(paths.cutoverBinary(), [name, '--config', config, ...rest], { env, cwd: dir, maxBuffer: 1 << 26 })
    .then((said) => ({ code: 0, ...said }), (error) => ({ code: error.code, stdout: error.stdout, stderr: error.stderr }));
  for (const url of [databases.old, databases.new, ...args]) secretsOf(`database_url = ${JSON.stringify(url ?? '')}`);
  keep(name, ended.stdout, ended.stderr);
  if (ended.code !== code) throw new Error(`cutover ${args.join(' ')} ended with ${ended.code}, not ${code}:\n${ended.stdout}\n${ended.stderr}`);
  return ended;
}

export const plan = (processes, databases, args = [], options = {}) => command(processes, databases, ['plan', ...args], options);
