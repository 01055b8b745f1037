// The wire forms of PostgREST, request by request: the same status, headers and body from OLD directly and through the proxy on
// either side — vector search, counts, ranges, CSV, single objects, upserts, bulk inserts, HEAD, Location.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rest } from '../lib/rest.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';
import { MEMBERS } from '../lib/users.mjs';

const [member] = MEMBERS;
const key = stack.old.anonKey;
const COMPARED = ['content-type', 'content-range', 'content-profile', 'content-location', 'location', 'preference-applied'];
const proxy = await cutover();

/** What a client can tell: status, the headers that matter, the body. */
async function seen(url, path, options) {
  const { status, headers, text, json } = await rest(url, path, { key, token: member.token, ...options });
  return { status, headers: Object.fromEntries(COMPARED.map((name) => [name, headers.get(name)])), body: json ?? text };
}

/** Sends a request to OLD directly, then through the proxy at 0 and at 100 %; all three must be alike. Returns what was seen. */
async function sameEverywhere(path, options = {}) {
  const direct = await seen(stack.old.url, path, options);
  for (const percentage of [0, 100]) {
    await proxy.setPercentage(percentage);
    assert.deepEqual(await seen(proxy.url, path, options), direct, `at ${percentage} %`);
  }
  return direct;
}

const publicly = { 'accept-profile': 'public' };
const search = { query_embedding: '[1,1,2]', match_threshold: 0.5, match_count: 3 };

test('vector search by rpc', async () => {
  const { status, body } = await sameEverywhere('/rpc/match_memories', { method: 'POST', body: search, headers: { 'content-profile': 'public' } });
  assert.deepEqual([status, body.length, body[0].title], [200, 3, 'memory 1']);
});

test('vector search by GET', async () => {
  const { body } = await sameEverywhere(`/rpc/match_memories?${new URLSearchParams(search)}`, { headers: publicly });
  assert.equal(body.length, 3);
});

test('a page with an exact count is 206 with its range', async () => {
  const { status, headers } = await sameEverywhere('/memory_entries?select=id,title&order=title&limit=2&offset=1', { headers: { ...publicly, prefer: 'count=exact' } });
  assert.deepEqual([status, headers['content-range']], [206, '1-2/5']);
});

test('a page by the Range header', async () => {
  const { headers, body } = await sameEverywhere('/memory_entries?select=title&order=title', { headers: { ...publicly, 'range-unit': 'items', range: '0-1' } });
  assert.deepEqual([headers['content-range'], body.length], ['0-1/*', 2]);
});

test('HEAD counts without a body', async () => {
  const { status, headers, body } = await sameEverywhere('/vendor_api_keys?select=id', { method: 'HEAD', headers: { ...publicly, prefer: 'count=exact' } });
  assert.deepEqual([status, headers['content-range'], body], [200, '0-0/1', '']);
});

test('CSV', async () => {
  const { headers, body } = await sameEverywhere('/memory_entries?select=title,importance&order=title', { headers: { ...publicly, accept: 'text/csv' } });
  assert.match(headers['content-type'], /^text\/csv/);
  assert.match(body, /^title,importance\n/);
});

test('one object, or 406', async () => {
  const headers = { ...publicly, accept: 'application/vnd.pgrst.object+json' };
  const { body } = await sameEverywhere('/vendor_organizations?select=name,vendor_api_keys(name)', { headers });
  assert.deepEqual(body.vendor_api_keys, [{ name: 'vendor key' }]);
  assert.equal((await sameEverywhere('/memory_entries?select=title', { headers })).status, 406);
});

test('an upsert of what is there already', async () => {
  const headers = { 'content-profile': 'public', prefer: 'resolution=merge-duplicates,return=representation' };
  const { body } = await sameEverywhere('/user_settings?on_conflict=user_id,key', { method: 'POST', headers, body: [{ key: 'theme', value: 'dark' }] });
  assert.deepEqual(body, [{ user_id: member.id, key: 'theme', value: 'dark' }]);
});

// Writes that add rows would meet themselves on OLD, so they are made once per side and looked at on their own.
for (const [percentage, where] of [[0, 'old'], [100, 'new']]) {
  test(`a bulk insert on ${where}`, async () => {
    await proxy.setPercentage(percentage);
    const rows = [1, 2, 3].map((n) => ({ organization_id: null, name: `bulk ${n} ${where}` }));
    const [organization] = (await rest(proxy.url, '/vendor_organizations?select=id', { key, token: member.token })).json;
    const body = rows.map((row) => ({ ...row, organization_id: organization.id }));
    const columns = encodeURIComponent('"organization_id","name"');
    const inserted = await rest(proxy.url, `/vendor_api_keys?columns=${columns}&select=name`, { key, token: member.token, method: 'POST', body, headers: { 'content-profile': 'public', prefer: 'return=representation' } });
    assert.deepEqual([inserted.status, inserted.json.map((row) => row.name)], [201, rows.map((row) => row.name)]);
    assert.equal(inserted.headers.get('x-e2e-project'), where);
    const removed = await rest(proxy.url, '/vendor_api_keys?name=like.bulk*', { key, token: member.token, method: 'DELETE', headers: { prefer: 'return=representation' } });
    assert.equal(removed.json.length, 3);
  });

  test(`the Location of a new row on ${where} names the table as the client did`, async () => {
    await proxy.setPercentage(percentage);
    for (const [profile, table] of [['public', 'vendor_organizations'], ['vendors', 'organizations']]) {
      const made = await rest(proxy.url, `/${table}`, { key, token: member.token, method: 'POST', body: { name: `located ${where}` }, headers: { 'content-profile': profile, prefer: 'return=headers-only' } });
      assert.equal(made.status, 201);
      assert.match(made.headers.get('location'), new RegExp(`^/${table}\\?id=eq\\.`));
      await rest(proxy.url, `/${table}?name=like.located*`, { key, token: member.token, method: 'DELETE', headers: { 'content-profile': profile } });
    }
  });
}

test('without a profile header the table is looked for in public', async () => {
  for (const [percentage, where] of [[0, 'old'], [100, 'new']]) {
    await proxy.setPercentage(percentage);
    const answer = await rest(proxy.url, '/vendor_api_keys?select=name', { key, token: member.token });
    assert.deepEqual([answer.headers.get('x-e2e-project'), answer.json], [where, [{ name: 'vendor key' }]]);
  }
});

test('a domain’s own names work on either side, and come back as asked', async () => {
  for (const percentage of [0, 100]) {
    await proxy.setPercentage(percentage);
    const answer = await rest(proxy.url, '/api_keys?select=name,organizations(name)', { key, token: member.token, headers: { 'accept-profile': 'vendors' } });
    assert.deepEqual(answer.json, [{ name: 'vendor key', organizations: { name: 'Vendor 1' } }]);
    assert.equal(answer.headers.get('content-profile'), 'vendors');
  }
});

test('an unknown schema gives 406 and no list of the schemas that are exposed', async () => {
  for (const percentage of [0, 100]) {
    await proxy.setPercentage(percentage);
    const answer = await rest(proxy.url, '/memory_entries', { key, token: member.token, headers: { 'accept-profile': 'zzz_nowhere' } });
    assert.deepEqual([answer.status, answer.json.code], [406, 'PGRST106']);
    assert.doesNotMatch(answer.text, /security_service|app_demo/);
  }
});

registered(import.meta);
