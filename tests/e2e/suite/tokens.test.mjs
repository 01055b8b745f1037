// Two projects that do not trust each other's tokens: different HS256 secrets, and one HS256 beside one ES256 project. First that they
// really refuse each other (else the rest proves nothing), then that Cutover makes of a user's token what their side honours, and of a
// bad token nothing at all.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { claimsOf, signJwt, userToken, verifyJwt } from '../lib/keys.mjs';
import { rest } from '../lib/rest.mjs';
import { realtimeForget, realtimeSeen, RealtimeSocket } from '../lib/socket.mjs';
import { forget, requestsSeen } from '../lib/stack.mjs';
import { cutover, registered, startPair } from '../lib/suite.mjs';
import { MEMBERS } from '../lib/users.mjs';

const [ada] = MEMBERS;
const now = () => Math.floor(Date.now() / 1000);

/** What each service says to a token: the status, and for realtime the join's (of database changes: a room would not follow the user). */
async function ask(url, key, token) {
  const headers = { apikey: key, authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  const { status, json } = await rest(url, '/subscriptions?select=id', { key, token });
  const functions = await fetch(`${url}/functions/v1/hello`, { headers });
  const storage = await fetch(`${url}/storage/v1/object/list/artifacts`, { method: 'POST', headers, body: JSON.stringify({ prefix: ada.id, limit: 10 }) });
  const socket = await new RealtimeSocket(url, key).opened;
  const joined = await socket.join(`realtime:${randomUUID()}`, { config: { postgres_changes: [{ event: '*', schema: 'public', table: 'topics' }] }, access_token: token });
  await socket.close();
  return { rest: status, rows: json?.length, functions: functions.status, storage: storage.status, realtime: joined.status, reason: joined.response.reason };
}

const honoured = { rest: 200, rows: 1, functions: 200, storage: 200, realtime: 'ok', reason: undefined };

const pairs = await Promise.all(['secrets', 'asymmetric'].map(async (name) => {
  const pair = await startPair(name);
  return { name, pair, proxy: await cutover({ pair, name: `cutover-${name}` }) };
}));

for (const { name, pair, proxy } of pairs) {
  const sides = { old: pair.old, new: pair.new };

  for (const [own, other] of [['old', 'new'], ['new', 'old']]) {
    test(`${name}: ${own} honours its own tokens, and refuses ${other}'s`, async () => {
      const { url, anonKey, signing } = sides[own];
      assert.deepEqual(await ask(url, anonKey, userToken(ada.id, {}, signing)), honoured);
      const { reason, rows, ...refused } = await ask(url, anonKey, userToken(ada.id, {}, sides[other].signing));
      assert.deepEqual([refused.rest, refused.functions, refused.realtime], [401, 401, 'error']);
      assert.ok(refused.storage >= 400 && refused.storage < 500, `storage answered ${refused.storage}`);
      assert.match(reason, /^Jwt(Signer|Signature)Error: /);
    });
  }

  for (const [from, to, percentage] of [['old', 'new', 100], ['new', 'old', 0], ['old', 'old', 0], ['new', 'new', 100]]) {
    test(`${name}: a token of ${from} is honoured on ${to} by every service`, async () => {
      await proxy.setPercentage(percentage);
      await Promise.all([forget(sides[to]), realtimeForget(sides[to])]);
      const claims = { iat: now() - 100, exp: now() + 900, email: 'ada@example.com', session_id: randomUUID(), aal: 'aal1', amr: [{ method: 'password', timestamp: 1 }], app_metadata: { provider: 'email', roles: ['Ω'] }, iss: `${sides[from].url}/auth/v1` };
      const token = userToken(ada.id, claims, sides[from].signing);
      assert.deepEqual(await ask(proxy.url, pair.old.anonKey, token), honoured);

      const arrived = await tokensAt(sides[to]);
      assert.deepEqual(Object.keys(arrived).sort(), ['functions', 'realtime', 'rest', 'storage']);
      for (const [service, got] of Object.entries(arrived)) {
        if (from === to) {
          assert.equal(got, token, `${service}: a token of the side's own was touched`);
          continue;
        }
        const { iss, iat, exp, ...kept } = verifyJwt(got, sides[to].signing);
        const { iss: _, iat: begun, exp: end, ...same } = claimsOf(token);
        assert.deepEqual(kept, same, service);
        assert.ok(exp <= end && iat <= now() && iat >= begun - 1, `${service}: times ${iat} to ${exp} of ${begun} to ${end} (trap 35)`);
      }
    });
  }

  test(`${name}: a token that does not verify is left as it is, and refused by the user's own side`, async () => {
    const forged = (side) => userToken(ada.id, {}, side.signing).replace(/[^.]+$/, (mark) => (mark[0] === 'A' ? 'B' : 'A') + mark.slice(1));
    const bad = {
      'a forged one of old': forged(sides.old),
      'one of old that has expired': userToken(ada.id, { iat: now() - 900, exp: now() - 300 }, sides.old.signing),
      'one that nobody signed': signJwt({ sub: ada.id, role: 'authenticated', exp: now() + 900 }, 'a secret of neither project, long enough to be one'),
    };
    for (const [percentage, where] of [[0, 'old'], [100, 'new']]) {
      await proxy.setPercentage(percentage);
      for (const [what, token] of Object.entries(bad)) {
        await Promise.all([forget(sides[where]), realtimeForget(sides[where])]);
        const { rest: status, functions, realtime } = await ask(proxy.url, pair.old.anonKey, token);
        assert.deepEqual([status, functions, realtime], [401, 401, 'error'], `${what}, at ${percentage} %`);
        for (const [service, got] of Object.entries(await tokensAt(sides[where]))) assert.equal(got, token, `${what}: ${service}`);
      }
    }
  });
}

test('an ES256 project shows its public key, an HS256 one shows none', async () => {
  const keysOf = async ({ url }) => (await (await fetch(`${url}/auth/v1/.well-known/jwks.json`)).json()).keys;
  const { pair } = pairs.find(({ name }) => name === 'asymmetric');
  assert.deepEqual(await keysOf(pair.old), []);
  const [key] = await keysOf(pair.new);
  assert.deepEqual([key.kty, key.crv, key.alg, key.kid, key.d], ['EC', 'P-256', 'ES256', pair.new.signing.jwk.kid, undefined]);
});

/** The user tokens that arrived at a project, by service. */
async function tokensAt(project) {
  const found = {};
  for (const { url, headers } of await requestsSeen(project)) {
    const [, service] = url.split('/');
    const bearer = headers.authorization?.replace('Bearer ', '');
    if (bearer && isUser(bearer)) found[service] = bearer;
  }
  for (const { from, frame } of (await realtimeSeen(project)).frames) {
    const token = from === 'client' && frame.payload?.access_token;
    if (token && isUser(token)) found.realtime = token;
  }
  return found;
}

function isUser(token) {
  try {
    return claimsOf(token).sub === ada.id;
  } catch {
    return false;
  }
}

registered(import.meta);
