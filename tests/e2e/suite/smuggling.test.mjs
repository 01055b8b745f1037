// HTTP/1 as an enemy sends it, in front of servers that read it in their own ways: nginx, Node's http, and Node's with everything allowed that
// it can allow. For each answer of the side the client gets one, of a message that it sent, and nothing that was smuggled is a message.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { cases, ofSide, send } from '../lib/corpus.mjs';
import { startCutover } from '../lib/cutover.mjs';
import { E2E } from '../lib/paths.mjs';
import { freePorts } from '../lib/ports.mjs';
import { Processes } from '../lib/processes.mjs';
import { registered, stack } from '../lib/suite.mjs';
import { answers, until } from '../lib/until.mjs';

const processes = new Processes();
after(() => processes.stop());

// Longer than this process stands still between two of its writes. Only cases that wait for an end wait for it.
const LIMITS = '[limits]\nheader_timeout = "3s"\nbody_idle_timeout = "3s"\nidle_timeout = "3s"\n';

/** A proxy whose OLD is at this address. */
const before = (name, url) => startCutover(processes, { old: { ...stack.old, url }, new: stack.new }, { name, sections: LIMITS });

/** Runs every case, some at a time; answers each with what came of it. */
async function run(proxy) {
  const left = [...cases];
  const done = [];
  const one = async () => {
    for (let next = left.shift(); next; next = left.shift()) done.push({ ...next, got: await send(proxy.url, next, next.ends === 'canary' ? next.sees.length : Infinity) });
  };
  await Promise.all(Array.from({ length: 40 }, one));
  return done;
}

/** `seen`: the messages of the side, in the order in which it answered each connection's, as `METHOD target`. */
function judge(done, seen) {
  const wrong = [];
  const strays = new Set(seen);
  for (const { class: kind, name, id, sees, ends, smuggled, canary, got } of done) {
    const mine = seen.filter((message) => message.includes(id));
    for (const message of mine) strays.delete(message);
    const theirs = got.answers.filter(ofSide);
    const fault = (what) => wrong.push(`${kind}: ${name} (${id}): ${what}; ${JSON.stringify({ got, mine, sees })}`);
    if (theirs.length !== mine.length) fault('not one answer for each message');
    if (mine.some((message) => message.endsWith(smuggled) && !sees.includes(message))) fault('what was smuggled is a message');
    if (mine.filter((message) => message === `GET ${canary}`).length > 1) fault('the canary was seen twice');
    // A side that answers without reading a body ends the connection, and the canary with it.
    const cutShort = got.hasEnded && ends === 'canary' ? sees.slice(0, mine.length) : sees;
    const isAnsweredEarly = ends === 'cut' && got.hasEnded && mine.length === 1;
    if (!isAnsweredEarly && !isSame(mine, cutShort)) fault('other messages');
    if (ends === 'refused' && !(got.hasEnded && got.answers.at(-1)?.closes)) fault('no refusal');
  }
  for (const stray of strays) wrong.push(`a stray: ${stray}`);
  assert.equal(wrong.length, 0, wrong.join('\n'));
}

const isSame = (a, b) => JSON.stringify(a) === JSON.stringify(b);

async function beforeNginx() {
  const [port] = await freePorts(1);
  const file = (name) => join(processes.dir, name);
  writeFileSync(file('nginx.conf'), `
daemon off;
worker_processes 1;
pid ${file('nginx.pid')};
error_log ${file('nginx-error.log')} warn;
events { worker_connections 1024; }
http {
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${file(`nginx-${name}`)};`).join('\n  ')}
  log_format seen escape=none '$request';
  access_log ${file('nginx-access.log')} seen;
  client_max_body_size 0;
  large_client_header_buffers 4 64k;
  server {
    listen 127.0.0.1:${port} backlog=1024;
    location / { return 200; }
  }
}
`);
  const url = `http://127.0.0.1:${port}`;
  const program = execFileSync(join(E2E, 'nginx.sh'), { encoding: 'utf8' }).trim();
  const child = processes.start('nginx', program, ['-p', processes.dir, '-c', file('nginx.conf')]);
  await processes.ready(child, () => answers(`${url}/ready`));
  const proxy = await before('smuggling-nginx', url);
  const done = await run(proxy);
  const log = () => readFileSync(file('nginx-access.log'), 'latin1').split('\n').filter((line) => line && !line.startsWith('GET /ready'));
  const count = done.flatMap(({ got }) => got.answers.filter(ofSide)).length;
  await until('the log to be written', () => log().length >= count);
  judge(done, log().map((line) => line.replace(/ HTTP\/1\.1$/, '')));
  await proxy.stop();
  await processes.end(child);
}

async function beforeNode(insecureHTTPParser) {
  const seen = [];
  const server = createServer({ insecureHTTPParser, maxHeaderSize: 65_536, keepAliveTimeout: 60_000 }, (request, response) => {
    request.resume().on('end', () => { // only then is it a message
      seen.push(`${request.method} ${request.url}`);
      response.writeHead(200, { 'content-length': 0 }).end();
    });
  });
  // What it does not read at all it refuses, and that is an answer too: a method that it does not know.
  server.on('clientError', (error, socket) => {
    if (!error.rawPacket) return socket.destroy();
    seen.push(error.rawPacket.toString('latin1').split(' ', 2).join(' '));
    socket.end('HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n');
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  const proxy = await before(`smuggling-node-${insecureHTTPParser}`, `http://127.0.0.1:${server.address().port}`);
  judge(await run(proxy), seen);
  await proxy.stop();
  server.closeAllConnections();
  await new Promise((closed) => server.close(closed));
}

test(`${cases.length} cases`, { concurrency: true }, (t) => Promise.all([
  t.test('before nginx', beforeNginx),
  t.test("before Node's http", () => beforeNode(false)),
  t.test("before Node's http, lenient", () => beforeNode(true)),
]));

registered(import.meta);
