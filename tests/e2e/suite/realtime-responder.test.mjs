// The suite's own realtime service is worth as much as it is like Supabase's: plain clients, directly against a project, without the
// proxy. What it says, in which order, and what it refuses follows Realtime; the SDKs are the judges.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import postgres from 'postgres';
import { OTHER_SECRET, userToken } from '../lib/keys.mjs';
import { rest } from '../lib/rest.mjs';
import { clientOf, disconnect, subscribe, VERSIONS } from '../lib/sdk.mjs';
import { realtimeFault, realtimeForget, realtimeSeen, RealtimeSocket, refusal } from '../lib/socket.mjs';
import { registered, stack } from '../lib/suite.mjs';
import { until } from '../lib/until.mjs';
import { newUsers } from '../lib/users.mjs';

const { old } = stack;
const [ada, bob] = newUsers(2);
const key = old.anonKey;
const changes = (binding) => ({ config: { broadcast: {}, presence: { key: '', enabled: false }, postgres_changes: [binding], private: false } });
const topicName = () => `realtime:${randomUUID()}`;
const open = (options) => new RealtimeSocket(old.url, key, options).opened;
let sql;

before(() => (sql = postgres(old.databaseUrl, { max: 1, onnotice: () => {} })));
after(() => sql.end());

/** A row of the user's, through the project's own REST. */
const insert = (user, table, row) => rest(old.url, `/${table}`, { key, token: user.token, method: 'POST', body: row, headers: { prefer: 'return=representation' } });

for (const version of VERSIONS) {
  test(`supabase-js ${version}: subscribed, a change of one's own arrives, others' do not, presence and broadcast`, async () => {
    const [mine, theirs] = await Promise.all([clientOf(version, old.url, key, ada.token), clientOf(version, old.url, key, bob.token)]);
    const room = randomUUID();
    const heard = { changes: [], ping: [], synced: 0 };
    const channel = mine.channel(room, { config: { broadcast: { ack: true }, presence: { key: 'ada' } } })
      .on('postgres_changes', { event: '*', schema: 'public', table: 'topics' }, (change) => heard.changes.push(change))
      .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'topics', filter: 'name=eq.wanted' }, (change) => heard.changes.push({ filtered: true, ...change }))
      .on('broadcast', { event: 'ping' }, ({ payload }) => heard.ping.push(payload))
      .on('presence', { event: 'sync' }, () => (heard.synced += 1));
    const other = theirs.channel(room, { config: { presence: { key: 'bob' } } }).on('presence', { event: 'sync' }, () => {});
    const [{ settled, faults }, their] = [subscribe(channel), subscribe(other)];
    assert.deepEqual([await settled, await their.settled, faults], ['SUBSCRIBED', 'SUBSCRIBED', []]);
    await until('the subscription to be reported', async () => (await realtimeSeen(old)).frames.some(({ from, frame }) => from === 'server' && frame.topic === `realtime:${room}` && frame.event === 'system' && frame.payload.status === 'ok'));

    assert.equal(await other.track({ mood: 'fine' }), 'ok');
    await until('bob to be seen', () => channel.presenceState().bob?.[0].mood === 'fine');
    assert.equal(await other.send({ type: 'broadcast', event: 'ping', payload: { text: 'grüße' } }), 'ok');
    await until('the broadcast', () => heard.ping.length);
    assert.deepEqual(heard.ping, [{ text: 'grüße' }]);

    await insert(bob, 'topics', { name: 'wanted' });
    const { json: [row] } = await insert(ada, 'topics', { name: 'wanted' });
    await until('both bindings', () => heard.changes.length >= 2);
    for (const change of heard.changes) assert.deepEqual([change.eventType, change.schema, change.table, change.new.id, change.errors], ['INSERT', 'public', 'topics', row.id, null]);
    assert.equal(heard.changes.length, 2);
    await Promise.all([disconnect(mine), disconnect(theirs)]);
  });

  test(`supabase-js ${version}: a reply that differs from what was asked is CHANNEL_ERROR`, async (t) => {
    t.after(() => realtimeFault(old, { spoil: false }));
    await realtimeFault(old, { spoil: true });
    const client = await clientOf(version, old.url, key, ada.token);
    const channel = client.channel(randomUUID()).on('postgres_changes', { event: '*', schema: 'public', table: 'topics' }, () => {});
    const { settled, faults } = subscribe(channel);
    assert.equal(await settled, 'CHANNEL_ERROR');
    assert.match(faults[0], /mismatch between server and client bindings/);
    await disconnect(client);
  });
}

test('bindings come back in order with equal ids for equal parameters, and the subscription is confirmed later', async () => {
  const socket = await open();
  const bindings = [{ event: 'INSERT', schema: 'public', table: 'topics' }, { event: '*', schema: 'public', table: 'topics', filter: 'name=eq.x' }, { event: 'INSERT', schema: 'public', table: 'topics' }];
  const topic = topicName();
  const { status, response, ref } = await socket.join(topic, { config: { postgres_changes: bindings }, access_token: ada.token });
  assert.equal(status, 'ok');
  assert.deepEqual(response.postgres_changes.map(({ id, ...binding }) => binding), bindings);
  const ids = response.postgres_changes.map(({ id }) => id);
  assert.ok(ids[0] === ids[2] && ids[0] !== ids[1] && ids.every(Number.isInteger));
  const system = await socket.event(topic, 'system');
  assert.deepEqual(system.payload, { extension: 'postgres_changes', status: 'ok', message: 'Subscribed to PostgreSQL', channel: topic.replace('realtime:', '') });
  assert.ok(socket.frames.indexOf(system) > socket.frames.findIndex((frame) => frame.ref === ref));
  await socket.close();
});

for (const [what, binding, words] of [
  ['a table outside the publication', { event: '*', schema: 'public', table: 'usage_tracking' }, /^Unable to subscribe .*schema: public, table: usage_tracking, filters: \[\]/],
  ['a schema that does not exist', { event: '*', schema: 'nowhere' }, /^Unable to subscribe .*schema: nowhere, table: \*/],
  ['a column that does not exist', { event: '*', schema: 'public', table: 'topics', filter: 'colour=eq.red' }, /invalid column for filter colour/],
  ['an operator that does not exist', { event: '*', schema: 'public', table: 'topics', filter: 'name=foo.red' }, /^Error parsing `filter` params/],
  ['a value that is not of the column’s type', { event: '*', schema: 'public', table: 'topics', filter: 'id=eq.red' }, /invalid input syntax for type uuid/],
]) {
  test(`${what} is told after an ok join (trap 27)`, async () => {
    const socket = await open();
    const topic = topicName();
    const { status } = await socket.join(topic, { ...changes(binding), access_token: ada.token });
    const { payload } = await socket.event(topic, 'system');
    assert.deepEqual([status, payload.extension, payload.status], ['ok', 'postgres_changes', 'error']);
    assert.match(payload.message, words);
    await socket.close();
  });
}

test('updates and deletions, wildcards, and a name whose underscore is LIKE’s (trap 48)', async (t) => {
  t.after(() => sql.unsafe('drop schema appxdemo cascade'));
  await sql.unsafe(`
    create schema appxdemo; create table appxdemo.widgets (id uuid primary key, user_id uuid, label text);
    grant usage on schema appxdemo to authenticated; grant select on appxdemo.widgets to authenticated; alter publication supabase_realtime add table appxdemo.widgets`).simple();
  const socket = await open();
  const [named, any] = [topicName(), topicName()];
  await socket.join(named, { ...changes({ event: '*', schema: 'app_demo', table: 'widgets' }), access_token: ada.token });
  await socket.join(any, { ...changes({ event: 'DELETE', schema: '*', table: '*' }), access_token: ada.token });
  await Promise.all([socket.event(named, 'system'), socket.event(any, 'system')]);

  const id = randomUUID();
  await sql`insert into appxdemo.widgets values (${id}, ${ada.id}, 'x')`;
  await sql`update appxdemo.widgets set label = 'y' where id = ${id}`;
  await sql`delete from appxdemo.widgets where id = ${id}`;
  const seen = () => socket.frames.filter(({ event }) => event === 'postgres_changes').map(({ topic, payload }) => [topic === any ? 'any' : 'named', payload.data.type, payload.data.schema, payload.data.record, payload.data.old_record]);
  await until('four messages', () => seen().length === 4);
  const row = (label) => ({ id, label, user_id: ada.id });
  assert.deepEqual(seen(), [
    ['named', 'INSERT', 'appxdemo', row('x'), undefined],
    ['named', 'UPDATE', 'appxdemo', row('y'), { id }],
    ['named', 'DELETE', 'appxdemo', undefined, { id }],
    ['any', 'DELETE', 'appxdemo', undefined, { id }],
  ]);
  const { payload: { data } } = socket.frames.find(({ event }) => event === 'postgres_changes');
  assert.deepEqual(data.columns, [{ name: 'id', type: 'uuid' }, { name: 'user_id', type: 'uuid' }, { name: 'label', type: 'text' }]);
  assert.ok(Math.abs(Date.parse(data.commit_timestamp) - Date.now()) < 10_000);
  await socket.close();
});

test('a change that replication tells before it can be seen is judged when it can', async (t) => {
  // PostgreSQL flushes a commit, and replication sends it, a moment before it makes it visible. Waiting for a standby that never
  // comes makes that moment as long as a test wants.
  const waiting = postgres(old.databaseUrl, { max: 1, onnotice: () => {} });
  const standby = async (name) => {
    await sql.unsafe(`alter system set synchronous_standby_names = '${name}'`);
    await sql`select pg_reload_conf()`;
  };
  t.after(async () => (await standby(''), await waiting.end()));
  const socket = await open();
  const topic = topicName();
  await socket.join(topic, { ...changes({ event: 'INSERT', schema: 'public', table: 'topics' }), access_token: ada.token });
  await socket.event(topic, 'system');

  await standby('nobody');
  const [{ pid }] = await waiting`select pg_backend_pid() as pid`;
  let inserted, committed;
  await until('a commit that waits', async () => {
    if (!inserted || committed) {
      [inserted, committed] = [randomUUID(), false]; // the setting may come into force after the first ones
      waiting`insert into topics (id, user_id, name) values (${inserted}, ${ada.id}, 'early')`.then(() => (committed = true));
    }
    const [{ held }] = await sql`select wait_event = 'SyncRep' as held from pg_stat_activity where pid = ${pid}`;
    return held;
  });
  await until('replication to have told it', async () => (await sql`select 1 from pg_stat_replication where sent_lsn < pg_current_wal_flush_lsn()`).length === 0);
  const heard = ({ event, payload }) => event === 'postgres_changes' && payload.data.record.id === inserted;
  assert.ok(!(await sql`select 1 from topics where id = ${inserted}`).length && !socket.frames.some(heard), 'it is visible already');
  await standby('');
  await socket.next('the change', heard);
  await socket.close();
});

test('values are PostgreSQL’s JSON of them; a row without a grant is an error', async (t) => {
  t.after(() => sql.unsafe('drop table app_demo.kinds'));
  await sql.unsafe(`
    create table app_demo.kinds (id int primary key, big bigint, num numeric, yes boolean, at timestamptz, tags text[], extra jsonb, none text);
    alter publication supabase_realtime add table app_demo.kinds; grant select on app_demo.kinds to authenticated; revoke all on app_demo.kinds from anon`).simple();
  const [socket, anonymous] = await Promise.all([open(), open()]);
  const [topic, other] = [topicName(), topicName()];
  const binding = { event: 'INSERT', schema: 'app_demo', table: 'kinds' };
  await socket.join(topic, { ...changes(binding), access_token: ada.token });
  await anonymous.join(other, changes(binding));
  await Promise.all([socket.event(topic, 'system'), anonymous.event(other, 'system')]);
  await sql`insert into app_demo.kinds values (7, 9007199254740991, 1.50, true, '2026-01-02 03:04:05.6+00', '{a,"b,c"}', '{"deep": [1]}', null)`;
  const { payload } = await socket.event(topic, 'postgres_changes');
  assert.deepEqual(payload.data.record, { id: 7, big: 9007199254740991, num: 1.5, yes: true, at: '2026-01-02T03:04:05.6+00:00', tags: ['a', 'b,c'], extra: { deep: [1] }, none: null });
  const refused = await anonymous.event(other, 'postgres_changes');
  assert.deepEqual([refused.payload.data.errors, refused.payload.data.record], [['Error 401: Unauthorized'], undefined]);
  await Promise.all([socket.close(), anonymous.close()]);
});

for (const [what, token, reason] of [
  ['of another project', () => userToken(ada.id, {}, OTHER_SECRET), 'JwtSignatureError: Failed to validate JWT signature'],
  ['that has expired', () => userToken(ada.id, { exp: Math.floor(Date.now() / 1000) - 5 }), /^InvalidJWTToken: Token has expired \d+ seconds ago$/],
  ['without a role', () => userToken(ada.id, { role: undefined }), 'InvalidJWTToken: Fields `role` and `exp` are required in JWT'],
  ['that is none', () => 'nonsense', 'MalformedJWT: The token provided is not a valid JWT'],
]) {
  test(`a token ${what}: refused at the join, and on a live channel the channel is closed`, async () => {
    const socket = await open({ vsn: '1.0.0' });
    const topic = topicName();
    const refused = await socket.join(topic, { config: {}, access_token: token() });
    assert.equal(refused.status, 'error');
    if (typeof reason === 'string') assert.equal(refused.response.reason, reason);
    else assert.match(refused.response.reason, reason);

    const { ref } = await socket.join(topic, { config: {}, access_token: ada.token });
    socket.send(topic, 'access_token', { access_token: token() }, ref);
    const { payload } = await socket.event(topic, 'system');
    assert.deepEqual([payload.extension, payload.status], ['system', 'error']);
    const close = await socket.event(topic, 'phx_close');
    assert.deepEqual([close.ref, close.payload], [ref, {}]);
    await socket.close();
  });
}

test('a key of the new kind inside a frame is ignored; the handshake’s key counts', async () => {
  const socket = await open();
  const topic = topicName();
  const { status, ref } = await socket.join(topic, { config: {}, access_token: 'sb_publishable_whatever' });
  assert.equal(status, 'ok');
  socket.send(topic, 'access_token', { access_token: 'sb_publishable_other' }, ref);
  const beat = socket.send('phoenix', 'heartbeat', {});
  assert.deepEqual((await socket.reply(beat)).payload, { status: 'ok', response: {} });
  const { sockets } = await realtimeSeen(old);
  assert.deepEqual(sockets.at(-1).channels.map(({ role }) => role), ['anon']);
  await socket.close();
});

test('the old API: the topic says what is wanted, events carry the change’s own name', async () => {
  const socket = await open({ vsn: '1.0.0', query: '' }); // no vsn is 1.0.0
  const topic = `realtime:public:topics:user_id=eq.${ada.id}`;
  const { status, response } = await socket.join(topic, { user_token: ada.token });
  assert.deepEqual([status, response.postgres_changes.map(({ id, ...binding }) => binding)], ['ok', [{ schema: 'public', table: 'topics', filter: `user_id=eq.${ada.id}` }]]);
  await socket.event(topic, 'system');
  await insert(bob, 'topics', { name: 'of bob' });
  await insert(ada, 'topics', { name: 'of ada' });
  const { payload } = await socket.event(topic, 'INSERT');
  assert.deepEqual([payload.type, payload.schema, payload.table, payload.record.name], ['INSERT', 'public', 'topics', 'of ada']);
  await socket.close();
});

test('joining again closes the first; leaving is answered and closed; a topic nobody joined is unmatched', async () => {
  const socket = await open();
  const topic = topicName();
  const first = await socket.join(topic, { config: {} });
  const second = await socket.join(topic, { config: {} });
  assert.equal((await socket.event(topic, 'phx_close')).ref, first.ref);
  const left = socket.send(topic, 'phx_leave', {}, second.ref);
  assert.deepEqual((await socket.reply(left)).payload, { status: 'ok', response: {} });
  await socket.next('the second close', ({ event, ref }) => event === 'phx_close' && ref === second.ref);
  const stray = socket.send(topic, 'broadcast', { type: 'broadcast', event: 'x', payload: {} });
  assert.deepEqual((await socket.reply(stray)).payload, { status: 'error', response: { reason: 'unmatched topic' } });
  socket.send('realtime:nothing', 'some_event', {});
  await socket.close();
});

test('broadcast across both versions of the wire, binary and text, self and ack', async () => {
  const [v1, v2] = await Promise.all([open({ vsn: '1.0.0' }), open()]);
  const topic = topicName();
  const [one, two] = [await v1.join(topic, { config: {} }), await v2.join(topic, { config: { broadcast: { self: true, ack: true } } })];
  const ref = v2.sendUserPush(topic, 'ping', { text: 'Ω' }, two.ref);
  assert.deepEqual((await v2.reply(ref)).payload, { status: 'ok', response: {} });
  assert.deepEqual((await v1.event(topic, 'broadcast')).payload, { type: 'broadcast', event: 'ping', payload: { text: 'Ω' } });
  const echo = await v2.event(topic, 'broadcast');
  assert.deepEqual([echo.kind, echo.payload.event, echo.payload.payload], [4, 'ping', { text: 'Ω' }]);

  v1.send(topic, 'broadcast', { type: 'broadcast', event: 'pong', payload: { n: 1 } }, one.ref);
  const pong = await v2.next('pong', ({ payload }) => payload.event === 'pong');
  assert.deepEqual([pong.binary, pong.payload.payload], [false, { n: 1 }]);
  v2.sendUserPush(topic, 'raw', Buffer.from([0, 255, 1]), two.ref);
  const raw = await v2.next('raw bytes', ({ payload }) => payload.event === 'raw');
  assert.deepEqual([raw.payload.encoding, [...raw.payload.payload]], [0, [0, 255, 1]]);
  await Promise.all([v1.close(), v2.close()]);
});

test('broadcast by REST: the bearer counts before the key, the key may stand in the address', async () => {
  const socket = await open();
  const topic = topicName();
  await socket.join(topic, { config: {} });
  const send = (path, headers, body) => fetch(`${old.url}/realtime/v1/api/broadcast${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) }).then(({ status }) => status);
  const name = topic.replace('realtime:', '');
  const many = { messages: [{ topic: name, event: 'many', payload: { n: 1 } }] };
  assert.equal(await send(`?apikey=${key}&vsn=2.0.0`, {}, many), 202);
  assert.equal(await send(`/${name}/events/one`, { apikey: key, authorization: `Bearer ${ada.token}` }, { n: 2 }), 202);
  assert.equal(await send('', { apikey: key, authorization: `Bearer ${userToken(ada.id, {}, OTHER_SECRET)}` }, many), 401);
  assert.equal(await send('', {}, many), 401);
  assert.equal(await send('', { apikey: key }, { messages: 'none' }), 422);
  await until('both', () => socket.frames.filter(({ event }) => event === 'broadcast').length === 2);
  assert.deepEqual(socket.frames.filter(({ event }) => event === 'broadcast').map(({ payload }) => [payload.event, payload.payload]), [['many', { n: 1 }], ['one', { n: 2 }]]);
  await socket.close();
});

test('a token that ends while its channel lives closes the channel', async () => {
  const socket = await open();
  const topic = topicName();
  await socket.join(topic, { config: {}, access_token: userToken(ada.id, { exp: Math.floor(Date.now() / 1000) + 1 }) });
  const { payload } = await socket.event(topic, 'system');
  assert.match(payload.message, /^Token has expired \d+ seconds ago$/);
  await socket.event(topic, 'phx_close');
  await socket.close();
});

test('handshakes are refused in JSON, and a test can close or kill what is open', async (t) => {
  t.after(() => realtimeForget(old));
  assert.deepEqual(await refusal(old.url, ''), { status: 401, body: '{"message":"No API key found in request"}' });
  assert.deepEqual(await refusal(old.url, '?apikey=nobody'), { status: 401, body: '{"message":"Invalid API key"}' });
  await realtimeFault(old, { refuse: 429 });
  assert.equal((await refusal(old.url, `?apikey=${key}`)).status, 429);
  await realtimeFault(old, { refuse: 0 });
  const [closed, killed] = [await open(), await open()];
  const { sockets } = await realtimeSeen(old);
  const live = sockets.filter(({ closed: over }) => !over).map(({ number }) => number);
  await realtimeFault(old, { close: { code: 4000, reason: 'because' }, sockets: [live.at(-2)] });
  assert.deepEqual(await closed.closed, { code: 4000, reason: 'because' });
  await realtimeFault(old, { kill: true, sockets: [live.at(-1)] });
  assert.equal((await killed.closed).code, 1006);
});

registered(import.meta);
