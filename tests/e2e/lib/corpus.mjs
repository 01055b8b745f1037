// The corpus of tests/it/fixtures/smuggling.json, which says itself how it is read, and a client that sends its cases byte for byte.

import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { REPOSITORY } from './paths.mjs';

const { macros, cases: rows } = JSON.parse(readFileSync(join(REPOSITORY, 'tests/it/fixtures/smuggling.json'), 'utf8'));

function fill(text, id) {
  const targets = (part) => part.replaceAll('{path}', `/rest/v1/${id}`).replaceAll('{canary}', `/rest/v1/${id}/canary`).replaceAll('{function}', `/functions/v1/${id}`);
  for (const [name, macro] of Object.entries(macros)) {
    const part = targets(macro);
    text = text.replaceAll(`{${name}}`, part).replaceAll(`{#${name}}`, String(part.length)).replaceAll(`{#x:${name}}`, part.length.toString(16));
  }
  return targets(text).replace(/\{(.)\*(\d+)\}/g, (_, what, times) => what.repeat(Number(times)));
}

/** Every case with its bytes, the canary behind it, and `{method, target}` of what the side is to see. */
export const cases = rows.map((row, index) => {
  const id = `c${String(index).padStart(3, '0')}`;
  const canary = `/rest/v1/${id}/canary`;
  const sees = [...(row.sees ?? []).map((text) => fill(text, id)), ...(row.ends === 'canary' ? [`GET ${canary} `] : [])];
  const send = Buffer.from(`${fill(row.send, id)}GET ${canary} HTTP/1.1\r\nhost: a\r\n\r\n`, 'latin1');
  return { ...row, id, canary, smuggled: `/rest/v1/${id}/smuggled`, send, sees: sees.map((text) => text.split(' ', 2).join(' ')) };
});

/** The first whole answer in `held`, and what is behind it. Answers here have a length, or chunks without extensions. */
function answerIn(held) {
  const end = held.indexOf('\r\n\r\n');
  if (end < 0) return null;
  const head = held.slice(0, end);
  const status = Number(head.split(' ', 2)[1]);
  const field = (name) => head.match(new RegExp(`^${name}: *(.*)$`, 'im'))?.[1].trim();
  let rest = held.slice(end + 4);
  const answer = { status, number: field('x-seen'), closes: field('connection') === 'close', body: '' };
  if (status === 100) return { answer, rest };
  if (field('transfer-encoding') === 'chunked') {
    for (;;) {
      const line = rest.indexOf('\r\n');
      const size = Number.parseInt(rest, 16);
      if (line < 0 || rest.length < line + size + 4) return null;
      answer.body += rest.slice(line + 2, line + 2 + size);
      rest = rest.slice(line + size + 4);
      if (size === 0) return { answer, rest };
    }
  }
  const length = Number(field('content-length') ?? 0);
  if (rest.length < length) return null;
  answer.body = rest.slice(0, length);
  return { answer, rest: rest.slice(length) };
}

/** Sends a case on a connection of its own; answers what came back before its end, or before `enough` answers of the side. */
export function send(url, { send: bytes }, enough) {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url);
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    const answers = [];
    let held = '';
    const done = (hasEnded) => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ answers, hasEnded });
    };
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new Error(`no end: ${JSON.stringify({ answers, held })} to ${bytes.toString('latin1').slice(0, 300)}`));
    }, 20_000);
    socket.on('connect', () => socket.write(bytes));
    socket.on('data', (data) => {
      held += data.toString('latin1');
      for (let found = answerIn(held); found; found = answerIn(held)) {
        held = found.rest;
        if (found.answer.status !== 100) answers.push(found.answer);
        if (answers.filter(ofSide).length === enough && !answers.at(-1).closes) return done(false);
      }
    });
    socket.on('error', () => {}); // a reset is an end
    socket.on('close', () => done(true));
  });
}

/** Whether an answer is a side's, not the proxy's own. */
export const ofSide = ({ body }) => !body.includes('"code":"CUT');
