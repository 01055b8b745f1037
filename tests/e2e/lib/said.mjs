// Everything that the program under test writes or answers on its admin listener during a run of the suite, kept in one folder until
// all of it is looked through for secrets (secrets.mjs); and the secrets, told by whoever makes, gets or sees one. Outside of such a
// run (the demo, a bench) nothing is kept.

import { execFile } from 'node:child_process';
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { cutoverBinary } from './paths.mjs';

const SHORTEST = 12; // what is shorter stands by chance in any log

const folder = () => process.env.CUTOVER_E2E_SAID;
const admins = new Set(); // origins
const told = new Set();
let hasAsked = false;

/** From now on, in this process and those that it starts, what is said goes to this folder. */
export function beginKeeping(path) {
  mkdirSync(join(path, 'said'), { recursive: true });
  process.env.CUTOVER_E2E_SAID = path;
}

export const isKeeping = () => Boolean(folder());

/** A file that is kept to the end of the run, for each process and kind of text. */
const file = (name) => join(folder(), 'said', `${process.pid}-${name}`);

/** Where a process of ours writes, if it is the program under test: the same place for each start of one name. */
export function placeFor(command, dir, name) {
  return isKeeping() && command === cutoverBinary() ? join(folder(), 'said', `${basename(dir)}-${name}.log`) : undefined;
}

/** Keeps what was said: by a command, on a page, in a file. */
export function keep(name, ...texts) {
  if (isKeeping()) appendFileSync(file(name), `${texts.filter(Boolean).join('\n')}\n`);
}

/** From now on these must not be in anything that is kept. */
export function secret(...texts) {
  if (!isKeeping()) return;
  for (const text of texts.flat()) {
    if (typeof text !== 'string' || text.length < SHORTEST || told.has(text)) continue;
    told.add(text);
    appendFileSync(join(folder(), 'secrets'), `${JSON.stringify(text)}\n`);
  }
}

/** The secrets of a configuration's text, by the names of its keys. */
export function secretsOf(config) {
  const lines = config.matchAll(/^(anon_key|service_role_key|jwt_secret|signing_key|token|override_token|mark_key|headers|database_url)\s*=\s*(.+)$/gm);
  for (const [, name, value] of lines) {
    const texts = [...value.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([quoted]) => JSON.parse(quoted));
    if (name === 'signing_key') secret(texts.map((text) => JSON.parse(text).d ?? JSON.parse(text).k));
    else if (name === 'database_url') secret(texts.map((text) => text.match(/\/\/(.*@)/)?.[1]));
    else secret(texts);
  }
}

/** A part of a request or an answer, as JSON or as a header: the secrets in it. */
export function secretsIn({ headers = {}, url = '', body }) {
  secret(headers.authorization?.replace(/^\w+ +/, ''), headers.apikey, headers['x-api-key'], headers.cookie?.match(/=([^;]+)/)?.[1]);
  for (const [name, value] of new URLSearchParams(url.split('?')[1])) if (/^(apikey|token|token_hash|code|code_verifier)$/.test(name)) secret(value);
  if (!body) return;
  try {
    JSON.parse(body, (name, value) => {
      if (/^(access_token|refresh_token|provider_token|password|code_verifier|auth_code|token)$/.test(name)) secret(value);
      return value;
    });
  } catch {
    // no JSON
  }
}

/** Keeps every answer that `fetch` gets from this address; streams are somebody else's. */
export function listenTo(origin) {
  if (!isKeeping()) return;
  admins.add(origin);
  if (admins.size > 1) return;
  const ask = globalThis.fetch;
  globalThis.fetch = async (...request) => {
    const response = await ask(...request);
    if (admins.has(new URL(request[0]?.url ?? request[0]).origin)) await keepAnswer(response);
    return response;
  };
}

async function keepAnswer(response) {
  secret(response.headers.getSetCookie().map((cookie) => cookie.match(/=([^;]*)/)[1]));
  const headers = [...response.headers].filter(([name]) => name !== 'set-cookie').map((pair) => pair.join(': '));
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream');
  keep('answer', `${response.status} ${response.url}`, ...headers, isStream ? '' : await response.clone().text());
}

/** What the commands say that print settings, or what is wrong with them: of a good file, and of one with every secret under a key that there is not. Once for
 * each file of the suite: they say the same of every proxy. */
export async function keepCommands(config) {
  if (!isKeeping() || hasAsked) return;
  hasAsked = true;
  const bad = `${config}.bad`;
  writeFileSync(bad, readFileSync(config, 'utf8').replace(/^(anon_key|service_role_key|token|jwt_secret|signing_key) = /gm, '$1x = '));
  const commands = [['check'], ['check', '--json'], ['rollout', 'status', '--json'], ['rollout', 'history', '--json'], ['rollout', 'history', '--verify'], ['explain', '--user', 'somebody']];
  const all = [...commands.map((args) => [...args, '--config', config]), ...commands.map((args) => [...args, '--config', bad])];
  for (const args of all) {
    const said = await new Promise((ended) => execFile(cutoverBinary(), args, { env: { PATH: process.env.PATH } }, (error, stdout, stderr) => ended([stdout, stderr])));
    keep(`command-${args[0]}`, ...said);
  }
}

/** Asks a proxy for all that its admin listener shows, with its token, with a wrong one and with none. */
export async function keepPages({ adminUrl, authorized }, user) {
  if (!isKeeping()) return;
  const ways = [authorized ?? {}, { authorization: 'Bearer not-the-token-of-this-proxy' }, {}];
  const pages = ['/', '/session', '/status', '/metrics', '/rollout', '/replicas', '/audit?limit=1000', `/explain?user=${user}&path=/rest/v1/products?select=id`, '/audit?limit=x', '/nowhere'];
  for (const headers of ways) for (const page of pages) await fetch(`${adminUrl}${page}`, { headers });
  await fetch(`${adminUrl}/rollout`, { method: 'PUT', headers: { ...authorized, 'content-type': 'application/json' }, body: '{"percentage":101}' });
  const events = await fetch(`${adminUrl}/events`, { headers: authorized });
  const reader = events.body.getReader();
  keep('events', Buffer.from((await reader.read()).value ?? []).toString());
  await reader.cancel();
}
