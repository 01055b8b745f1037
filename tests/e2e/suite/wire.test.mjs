// Bytes that the proxy has no business to change, and requests that it answers itself.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { raw, rest } from '../lib/rest.mjs';
import { forget, requestsSeen } from '../lib/stack.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';
import { MEMBERS } from '../lib/users.mjs';

const key = stack.old.anonKey;
const [member] = MEMBERS;
const headers = { apikey: key, authorization: `Bearer ${member.token}` };
const proxy = await cutover();

const UNTOUCHED = [
  '/functions/v1/echo?a=1&a=2&b=x+y&c=%2F%20%2B&d=&e&f=%C3%9C',
  '/functions/v1/echo/a%2Fb/c+d//e%20f',
  '/storage/v1/object/public/artifacts/a%2Fb/c+d%20e.txt?download=&x=1&x=2',
  '/rest/v1/memory_entries?select=id,title&title=eq.a%2Cb+c&title=neq.%22x%22&id=not.is.null&order=title.asc',
  '/rest/v1/memory_entries?select=%69d&or=(title.eq.a,and(importance.gt.1,importance.lt.3))',
];

for (const [percentage, where] of [[0, 'old'], [100, 'new']]) {
  for (const path of UNTOUCHED) {
    test(`at ${percentage} % this path arrives as it was sent: ${path}`, async () => {
      await proxy.setPercentage(percentage);
      await Promise.all([forget(stack.old), forget(stack.new)]);
      await raw(proxy.url, path, { headers });
      const [mine, other] = where === 'old' ? [stack.old, stack.new] : [stack.new, stack.old];
      const seen = async (project) => (await requestsSeen(project)).map((request) => request.url);
      // The object is on neither side: it's looked for on the other one too, under the same path.
      assert.deepEqual([await seen(mine), await seen(other)], [[path], path.startsWith('/storage') ? [path] : []]);
    });
  }
}

test('what a renamed table changes is its name only', async () => {
  await proxy.setPercentage(100);
  await forget(stack.new);
  await raw(proxy.url, '/rest/v1/vendor_api_keys?select=name&name=eq.a+b%2Fc&name=neq.d', { headers });
  const [request] = await requestsSeen(stack.new);
  assert.equal(request.url, '/rest/v1/api_keys?select=name&name=eq.a+b%2Fc&name=neq.d');
  assert.equal(request.headers['accept-profile'], 'vendors');
  assert.equal(request.headers.apikey, stack.new.anonKey);
  assert.equal(request.headers.authorization, headers.authorization);
  assert.equal(request.headers.host, new URL(stack.new.url).host);
});

test('a body passes byte for byte', async () => {
  const body = Buffer.from(Array.from({ length: 300_000 }, (_, index) => (index * 7919) % 256));
  const answer = await fetch(`${proxy.url}/functions/v1/echo`, { method: 'POST', headers: { ...headers, 'content-type': 'application/octet-stream' }, body });
  assert.ok(body.equals(Buffer.from(await answer.arrayBuffer())));
});

test('a preflight is answered by the proxy and reaches no project', async () => {
  await Promise.all([forget(stack.old), forget(stack.new)]);
  const asked = { origin: 'https://app.example.com', 'access-control-request-method': 'PATCH', 'access-control-request-headers': 'authorization,apikey,content-profile,prefer' };
  const answer = await raw(proxy.url, '/rest/v1/vendor_api_keys?id=eq.1', { method: 'OPTIONS', headers: asked });
  assert.ok([200, 204].includes(answer.status), `status ${answer.status}`);
  assert.ok(['*', asked.origin].includes(answer.headers['access-control-allow-origin']));
  assert.match(answer.headers['access-control-allow-methods'], /PATCH/);
  for (const name of asked['access-control-request-headers'].split(',')) assert.match(answer.headers['access-control-allow-headers'].toLowerCase(), new RegExp(name));
  assert.deepEqual([await requestsSeen(stack.old), await requestsSeen(stack.new)], [[], []]);
});

test('a browser finds one CORS header, and may read the ones that Supabase clients need', async () => {
  const answer = await raw(proxy.url, '/rest/v1/memory_entries?select=id', { headers: { ...headers, origin: 'https://app.example.com' } });
  const names = answer.rawHeaders.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase());
  assert.equal(names.filter((name) => name === 'access-control-allow-origin').length, 1);
  assert.match(answer.headers['access-control-expose-headers'].toLowerCase(), /content-range/);
});

for (const path of ['/', '/pg/', '/analytics/v1', '/mcp', '/realtime/v1/api/tenants', '/unknown/v1']) {
  test(`${path} is not for the public: 404 in JSON`, async () => {
    const answer = await raw(proxy.url, path, { headers });
    assert.equal(answer.status, 404);
    assert.match(JSON.parse(answer.text).code, /^CUT/);
  });
}

for (const path of ['/rest/v1/../../pg/', '/rest/v1/%2e%2e/pg', '/storage/v1/object/./x', '/functions/v1/a/%2E./b']) {
  test(`dot segments are refused: ${path}`, async () => {
    assert.equal((await raw(proxy.url, path, { headers })).status, 400);
  });
}

test('a client cannot choose its side, nor pose as an address behind the proxy', async () => {
  await proxy.setPercentage(0);
  await forget(stack.old);
  const forged = { 'x-cutover-side': 'new', 'x-forwarded-for': '203.0.113.7', 'x-forwarded-host': 'evil.example.com', forwarded: 'for=203.0.113.7', 'x-real-ip': '203.0.113.7', 'sb-api-key': 'forged' };
  const answer = await rest(proxy.url, '/rpc/which_project', { key, token: member.token, headers: forged });
  assert.equal(answer.json, 'old');
  const [seen] = await requestsSeen(stack.old);
  assert.doesNotMatch(JSON.stringify(seen.headers), /203\.0\.113\.7|evil\.example\.com|forged|x-cutover-side/);
});

registered(import.meta);
