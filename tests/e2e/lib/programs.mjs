// Runs a client program of programs/ against a URL and returns the document that it prints.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import * as paths from './paths.mjs';

const run = promisify(execFile);

/** { user, steps }: the id of the user that the program signed up, and what each of its calls answered. `sdk` names the supabase-js. */
export async function runProgram(name, { url, anonKey, sdk = '' }) {
  const interpreter = name.endsWith('.py') ? paths.python : process.execPath;
  const env = { PATH: process.env.PATH, HOME: process.env.HOME, SUPABASE_URL: url, SUPABASE_ANON_KEY: anonKey, SUPABASE_JS: sdk, PYTHONDONTWRITEBYTECODE: '1' };
  const { stdout } = await run(interpreter, [join(paths.E2E, 'programs', name)], { env, timeout: 60_000, maxBuffer: 1 << 24 });
  return JSON.parse(stdout);
}
