// Looks through all that the program under test said in a run (said.mjs) for every secret of that run, in whatever form: as it is, in
// base64, percent-encoded, in hexadecimal, escaped, as a list of numbers, and cut off. Each search first finds what was planted for it.

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const PIECE = 24; // so many bytes of a secret, from its beginning or its end, are as bad as all of it
const SHORTEST = 12; // what is shorter stands by chance anywhere

/** What of a secret must not be seen: its beginning and its end; of a token what it claims and its signature, because its head says nothing. */
function pieces(secret) {
  const [head, ...rest] = secret.split('.');
  const all = head.startsWith('eyJ') && rest.length === 2 ? rest : [secret, secret.slice(-PIECE)];
  return all.map((piece) => piece.slice(0, PIECE)).filter((piece) => piece.length >= SHORTEST);
}

/** Texts that are in anything that holds this piece in one of the usual forms. */
function forms(piece) {
  const bytes = Buffer.from(piece);
  const hex = bytes.toString('hex');
  const escaped = [...bytes].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('');
  const percent = encodeURIComponent(piece);
  const json = JSON.stringify(piece).slice(1, -1);
  const all = [piece, hex, hex.toUpperCase(), escaped, escaped.toUpperCase(), percent, percent.replaceAll('%20', '+'), json, JSON.stringify(json).slice(1, -1), [...bytes].join(', '), [...bytes].join(',')];
  // Wherever it stands among the bytes that are encoded; its first and last letters are then shared with its neighbours.
  for (const before of [0, 1, 2]) {
    const encoded = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64').replace(/=+$/, '').slice(before && before + 1, -2);
    all.push(encoded, encoded.replaceAll('+', '-').replaceAll('/', '_'));
  }
  return new Set(all);
}

/** How somebody else would write it, for the search to be tried with: the encoders are not those that made the forms. */
function planted(piece) {
  const text = `a secret: ${piece} and more`;
  const bytes = new TextEncoder().encode(text);
  return [
    text,
    btoa(text),
    btoa(`x${text}`),
    btoa(`xy${text}`),
    Buffer.from(text).toString('base64url'),
    new URLSearchParams({ text }).toString(),
    bytes.reduce((all, byte) => `${all}${(byte >> 4).toString(16)}${(byte & 15).toString(16)}`, ''),
    JSON.stringify({ deep: JSON.stringify({ text }) }),
    JSON.stringify([...bytes]),
    text.slice(0, 'a secret: '.length + piece.length), // cut off
  ];
}

/** Every line of the files below `folder` that has one of the patterns, as { file, line, pattern }. GNU grep is quicker than any loop of ours. */
function search(patterns, ...files) {
  const options = ['-a', '-F', '-H', '-n', '-o', '-r', '-f', patterns, ...files];
  let out = '';
  try {
    out = execFileSync('grep', options, { encoding: 'latin1', maxBuffer: 1 << 28, env: { ...process.env, LC_ALL: 'C' } });
  } catch (error) {
    if (error.status !== 1) throw error; // 1: nothing was found
  }
  return out.split('\n').filter(Boolean).map((found) => {
    const [, file, line, pattern] = found.match(/^(.*?):(\d+):(.*)$/);
    return { file, line: Number(line), pattern };
  });
}

/** Looks through a run's folder. Returns how much there was to look through, and what was found, in words that repeat no secret. */
export function lookThrough(folder) {
  const secrets = [...new Set(readFileSync(join(folder, 'secrets'), 'utf8').trim().split('\n'))].map((line) => JSON.parse(line));
  const whose = new Map(); // form → the secret's number
  secrets.forEach((secret, index) => {
    for (const piece of pieces(secret)) for (const form of forms(piece)) if (!whose.has(form)) whose.set(form, index);
  });
  const patterns = join(folder, 'forms');
  writeFileSync(patterns, [...whose.keys()].join('\n'));

  const tried = secrets.filter((_, index) => index % Math.ceil(secrets.length / 20) === 0).flatMap(pieces).flatMap(planted);
  const canary = join(folder, 'planted');
  writeFileSync(canary, tried.map((text) => `${text}\n`).join(''));
  const said = join(folder, 'said');
  const all = search(patterns, canary, said); // at once: to make ready for so many forms takes longer than to search
  const lines = new Set(all.filter(({ file }) => file === canary).map(({ line }) => line));
  const missed = tried.findIndex((_, index) => !lines.has(index + 1));
  if (missed >= 0) throw new Error(`the search for secrets misses what was planted: ${tried[missed]}`);

  const files = readdirSync(said);
  const bytes = files.reduce((sum, name) => sum + statSync(join(said, name)).size, 0);
  const found = all.filter(({ file }) => file !== canary).map(({ file, line, pattern }) => {
    const secret = secrets[whose.get(pattern)] ?? '?';
    return `${file}:${line}: ${pattern.slice(0, 4)}…, a form of ${secret.slice(0, 12)}… (${secret.length} characters)`;
  });
  return { secrets: secrets.length, forms: whose.size, planted: tried.length, files: files.length, bytes, found: [...new Set(found)] };
}
