// Row level security seen through the proxy, for users of both sides: who owns a row reads and changes it, nobody else does; a
// service key sees everything; a key that belongs to neither project gets in nowhere.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rest } from '../lib/rest.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';
import { MEMBERS, membersOn } from '../lib/users.mjs';

const PERCENTAGE = 50;
const MEMORIES_EACH = 5;
const key = stack.old.anonKey;
const proxy = await cutover({ percentage: PERCENTAGE });

const as = (member, path, options = {}) => rest(proxy.url, path, { key, token: member.token, ...options });
const asService = (path, options = {}) => rest(proxy.url, path, { key: stack.old.serviceKey, ...options });

for (const where of ['old', 'new']) {
  const [owner] = membersOn(where, PERCENTAGE, 1);
  const others = [...membersOn('old', PERCENTAGE, 2), ...membersOn('new', PERCENTAGE, 2)].filter((member) => member !== owner);

  test(`the owner, on ${where}, reads and changes the row`, async () => {
    const read = await as(owner, '/memory_entries?select=id,user_id,importance&order=importance');
    assert.equal(read.headers.get('x-cutover-side'), where);
    assert.equal(read.headers.get('x-e2e-project'), where);
    assert.equal(read.json.length, MEMORIES_EACH);
    assert.ok(read.json.every((row) => row.user_id === owner.id));

    const [row] = read.json;
    const change = (importance) => as(owner, `/memory_entries?id=eq.${row.id}`, { method: 'PATCH', body: { importance }, headers: { prefer: 'return=representation' } });
    assert.equal((await change(77)).json[0].importance, 77);
    assert.equal((await change(row.importance)).json[0].importance, row.importance);
  });

  for (const other of others) {
    test(`another user (bucket ${other.bucket}) neither reads nor changes the row of the owner on ${where}`, async () => {
      const target = `/memory_entries?user_id=eq.${owner.id}`;
      const before = await ownRows(owner);
      assert.deepEqual((await as(other, target)).json, []);
      const patched = await as(other, target, { method: 'PATCH', body: { title: 'taken' }, headers: { prefer: 'return=representation' } });
      assert.deepEqual([patched.status, patched.json], [200, []]);
      const deleted = await as(other, target, { method: 'DELETE', headers: { prefer: 'return=representation' } });
      assert.deepEqual([deleted.status, deleted.json], [200, []]);
      const planted = await as(other, '/memory_entries', { method: 'POST', body: { title: 'planted', user_id: owner.id } });
      assert.deepEqual([planted.status, planted.json.code], [403, '42501']);
      assert.deepEqual(await ownRows(owner), before);
    });
  }
}

const ownRows = async (owner) => (await as(owner, '/memory_entries?select=*&order=id')).json;

test('a service key sees the rows of all, on the side of the user it names', async () => {
  for (const where of ['old', 'new']) {
    const [named] = membersOn(where, PERCENTAGE, 1);
    const answer = await asService('/profiles?select=user_id', { headers: { 'x-user-id': named.id } });
    assert.equal(answer.headers.get('x-e2e-project'), where);
    const seen = new Set(answer.json.map((row) => row.user_id));
    assert.ok(MEMBERS.every((member) => seen.has(member.id)));
  }
});

test('a service key without a user goes to old by default', async () => {
  const answer = await asService('/profiles?select=user_id');
  assert.deepEqual([answer.headers.get('x-cutover-reason'), answer.headers.get('x-e2e-project')], ['service', 'old']);
  assert.ok(answer.json.length >= MEMBERS.length);
});

test('the name of a user does not count without a service key', async () => {
  const [old] = membersOn('old', PERCENTAGE, 1);
  const [neu] = membersOn('new', PERCENTAGE, 1);
  const answer = await as(old, '/memory_entries?select=user_id', { headers: { 'x-user-id': neu.id } });
  assert.equal(answer.headers.get('x-e2e-project'), 'old');
  assert.ok(answer.json.every((row) => row.user_id === old.id));
});

test('nobody signed in sees nothing', async () => {
  const answer = await rest(proxy.url, '/memory_entries?select=id', { key });
  assert.deepEqual([answer.status, answer.json], [200, []]);
});

test('every key of either project is taken, and becomes the key of the same role of the side', async () => {
  const [neu] = membersOn('new', PERCENTAGE, 1);
  for (const known of [...stack.old.keys.anon, ...stack.new.keys.anon]) {
    const answer = await rest(proxy.url, '/memory_entries?select=id', { key: known, token: neu.token });
    assert.deepEqual([answer.status, answer.json.length, answer.headers.get('x-e2e-project')], [200, MEMORIES_EACH, 'new']);
  }
  for (const known of [...stack.old.keys.service, ...stack.new.keys.service]) {
    const answer = await rest(proxy.url, '/rpc/whoami', { key: known });
    assert.equal(answer.json.role, 'service_role');
  }
});

test('a key that neither project knows is refused with 401 and a JSON body', async () => {
  const headers = { apikey: 'sb_publishable_nobody_knows_this_one_00000000', authorization: `Bearer ${MEMBERS[0].token}` };
  const answer = await rest(proxy.url, '/memory_entries?select=id', { headers });
  assert.equal(answer.status, 401);
  assert.match(answer.json.code, /^CUT/);
  assert.deepEqual(Object.keys(answer.json).sort(), ['code', 'details', 'hint', 'message']);
});

test('without any key a request gets 401, as from Supabase', async () => {
  const answer = await rest(proxy.url, '/memory_entries?select=id', { headers: { authorization: `Bearer ${MEMBERS[0].token}` } });
  assert.equal(answer.status, 401);
  assert.ok(answer.json.message);
});

registered(import.meta);
