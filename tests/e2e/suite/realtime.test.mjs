// Realtime through Cutover, frame by frame: whoever watches the wire sees OLD's words at any percentage, each project hears its own, rooms
// are never split, and no end of a connection is told in a way that makes a client stay away.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { afterEach, test } from 'node:test';
import { side } from '../lib/bucket.mjs';
import { rest } from '../lib/rest.mjs';
import { clientOf, disconnect, subscribe, VERSIONS } from '../lib/sdk.mjs';
import { realtimeFault, realtimeForget, realtimeSeen, RealtimeSocket } from '../lib/socket.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';
import { until } from '../lib/until.mjs';
import { newUsers } from '../lib/users.mjs';

const key = stack.old.anonKey;
const proxy = await cutover({ sections: '[realtime]\nidentify_timeout = "1s"\ndrain = "100ms"' });

const [ofOld, ofNew] = ['old', 'new'].map((wanted) => newUsers(50).find(({ id }) => side(id, 50) === wanted));
const PEOPLE = [['old', ofOld], ['new', ofNew]];
const open = (options) => new RealtimeSocket(proxy.url, key, options).opened;
const topicName = () => `realtime:${randomUUID()}`;
const config = (...bindings) => ({ broadcast: { ack: true, self: false }, presence: { key: '', enabled: false }, postgres_changes: bindings, private: false });
const insert = async (user, table, row) => {
  const { status, text } = await rest(stack[side(user.id, 50)].url, `/${table}`, { key: stack[side(user.id, 50)].anonKey, token: user.token, method: 'POST', body: row, headers: { 'content-profile': 'public' } });
  assert.equal(status, 201, text);
};

/** What a project was sent by the socket that carries this topic, or has a topic that matches. */
async function heardBy(name, topic) {
  const { frames } = await realtimeSeen(stack[name]);
  return frames.filter(({ from, frame }) => from === 'client' && (topic.test ? topic.test(frame.topic) : frame.topic === topic)).map(({ frame }) => frame);
}

await proxy.setPercentage(50);
afterEach(() => Promise.all([realtimeForget(stack.old), realtimeForget(stack.new)]));

for (const vsn of ['1.0.0', '2.0.0']) {
  for (const [where, user] of PEOPLE) {
    test(`vsn ${vsn}: bindings of a user of ${where} are said in ${where}'s words and come back as they were asked (trap_23)`, async () => {
      const socket = await open({ vsn });
      const topic = topicName();
      const bindings = [
        { event: 'INSERT', schema: 'public', table: 'vendor_organizations', filter: `user_id=eq.${user.id}` },
        { event: '*', schema: 'public', table: 'topics' },
        { event: 'UPDATE', schema: 'app_demo', table: 'widgets' },
      ];
      const { status, response } = await socket.join(topic, { config: config(...bindings), access_token: user.token });
      assert.equal(status, 'ok');
      assert.deepEqual(response.postgres_changes.map(({ id, ...binding }) => binding), bindings);
      assert.deepEqual((await socket.event(topic, 'system')).payload, { extension: 'postgres_changes', status: 'ok', message: 'Subscribed to PostgreSQL', channel: topic.replace('realtime:', '') });

      const joins = (await heardBy(where, topic)).filter(({ event, payload }) => event === 'phx_join' && payload.config.postgres_changes.length);
      const names = joins[0].payload.config.postgres_changes.map(({ schema, table }) => `${schema}.${table}`);
      assert.deepEqual(names, where === 'old' ? ['public.vendor_organizations', 'public.topics', 'app_demo.widgets'] : ['vendors.organizations', 'security_service.topics', 'app_demo.widgets']);

      await insert(user, 'vendor_organizations', { name: `Acme ${vsn}` });
      const change = await socket.event(topic, 'postgres_changes');
      assert.deepEqual(change.payload.ids, [response.postgres_changes[0].id]);
      const { schema, table, type, record, errors } = change.payload.data;
      assert.deepEqual([schema, table, type, record.name, errors], ['public', 'vendor_organizations', 'INSERT', `Acme ${vsn}`, null]);
      await socket.close();
    });

    test(`vsn ${vsn}: any table of a schema, for a user of ${where}: one binding, each change once (n:1)`, async () => {
      const socket = await open({ vsn });
      const topic = topicName();
      const { response } = await socket.join(topic, { config: config({ event: 'INSERT', schema: 'public' }, { event: 'INSERT', schema: 'public', table: '*' }), access_token: user.token });
      const ids = response.postgres_changes.map(({ id }) => id);
      assert.deepEqual(response.postgres_changes.map(({ id, ...binding }) => binding), [{ event: 'INSERT', schema: 'public' }, { event: 'INSERT', schema: 'public', table: '*' }]);
      assert.equal((await socket.event(topic, 'system')).payload.status, 'ok');
      for (const [table, row] of [['topics', { name: 'one' }], ['vendor_organizations', { name: 'two' }], ['smart_recall_notes', { note: 'three' }]]) await insert(user, table, row);
      const changes = () => socket.frames.filter(({ event }) => event === 'postgres_changes').map(({ payload }) => payload);
      await until('three changes', () => changes().flatMap((change) => change.ids).length >= 6);
      assert.deepEqual(changes().map(({ data }) => `${data.schema}.${data.table}`), ['public.topics', 'public.vendor_organizations', 'public.smart_recall_notes']);
      for (const change of changes()) assert.deepEqual([...change.ids].sort(), [...ids].sort());
      await socket.close();
    });
  }
}

for (const [where, user] of PEOPLE) {
  test(`the old API, for a user of ${where}: the topic is said in ${where}'s words, events come under the client's (trap_24)`, async () => {
    const socket = await open({ vsn: '1.0.0' });
    const topic = `realtime:public:vendor_organizations:user_id=eq.${user.id}`;
    assert.equal((await socket.join(topic, { user_token: user.token })).status, 'ok');
    assert.equal((await socket.event(topic, 'system')).payload.status, 'ok');
    const there = where === 'old' ? topic : `realtime:vendors:organizations:user_id=eq.${user.id}`;
    assert.ok((await heardBy(where, there)).some(({ event }) => event === 'phx_join'), `${where} did not hear ${there}`);
    await insert(user, 'vendor_organizations', { name: 'old style' });
    const { payload } = await socket.event(topic, 'INSERT');
    assert.deepEqual([payload.schema, payload.table, payload.record.name], ['public', 'vendor_organizations', 'old style']);
    await socket.close();
  });

  test(`a subscription that fails on ${where} is told after the ok join, in the client's words (trap_27)`, async () => {
    const socket = await open();
    const topic = topicName();
    const { status } = await socket.join(topic, { config: config({ event: '*', schema: 'public', table: 'usage_tracking' }), access_token: user.token });
    const { payload } = await socket.event(topic, 'system');
    assert.deepEqual([status, payload.status], ['ok', 'error']);
    assert.match(payload.message, /schema: public, table: usage_tracking/);
    await socket.close();
  });

  test(`a bad token is refused by ${where}, its user's own side, at the join and on a live channel`, async () => {
    const socket = await open();
    const topic = topicName();
    const bad = user.token.replace(/[^.]+$/, 'AAAA');
    const refused = await socket.join(topic, { config: config({ event: '*', schema: 'public', table: 'topics' }), access_token: bad });
    assert.deepEqual([refused.status, refused.response.reason], ['error', 'JwtSignatureError: Failed to validate JWT signature']);
    const { ref } = await socket.join(topic, { config: config({ event: '*', schema: 'public', table: 'topics' }), access_token: user.token });
    socket.send(topic, 'access_token', { access_token: bad }, ref);
    assert.equal((await socket.next('the error', ({ event, payload }) => event === 'system' && payload.extension === 'system')).payload.status, 'error');
    assert.equal((await socket.event(topic, 'phx_close')).ref, ref);
    await socket.close();
  });
}

test('one room for users of both sides: broadcasts in text and binary, presence, and by REST (trap_26)', async () => {
  const [one, two] = await Promise.all([open({ vsn: '1.0.0' }), open()]);
  const topic = topicName();
  const joins = [await one.join(topic, { config: { ...config(), presence: { key: 'one', enabled: true } }, access_token: ofOld.token }), await two.join(topic, { config: { ...config(), presence: { key: 'two', enabled: true } }, access_token: ofNew.token })];
  assert.deepEqual(joins.map(({ status }) => status), ['ok', 'ok']);
  const ref = two.sendUserPush(topic, 'ping', { text: 'Ω' }, joins[1].ref);
  assert.equal((await two.reply(ref)).payload.status, 'ok');
  assert.deepEqual((await one.event(topic, 'broadcast')).payload, { type: 'broadcast', event: 'ping', payload: { text: 'Ω' } });
  one.send(topic, 'presence', { type: 'presence', event: 'track', payload: { mood: 'fine' } }, joins[0].ref);
  const diff = await two.event(topic, 'presence_diff');
  assert.deepEqual(diff.payload.joins.one.metas.map(({ mood }) => mood), ['fine']);
  two.sendUserPush(topic, 'raw', Buffer.from([1, 0, 255]), joins[1].ref);

  const name = topic.replace('realtime:', '');
  for (const user of [ofOld, ofNew]) {
    const sent = await fetch(`${proxy.url}/realtime/v1/api/broadcast?apikey=${key}`, { method: 'POST', headers: { apikey: key, authorization: `Bearer ${user.token}`, 'content-type': 'application/json' }, body: JSON.stringify({ messages: [{ topic: name, event: 'rest', payload: { from: user.id } }] }) });
    assert.equal(sent.status, 202);
  }
  const single = await fetch(`${proxy.url}/realtime/v1/api/broadcast/${name}/events/rest?apikey=${key}&vsn=2.0.0`, { method: 'POST', headers: { apikey: key, 'content-type': 'application/json' }, body: '{"from":"nobody"}' });
  assert.equal(single.status, 202);
  const rested = () => two.frames.filter(({ payload }) => payload?.event === 'rest').map(({ payload }) => payload.payload.from);
  await until('three messages by REST', () => rested().length === 3);
  assert.deepEqual(rested(), [ofOld.id, ofNew.id, 'nobody']);
  await Promise.all([one.close(), two.close()]);
});

test('a room and database changes on one socket: each from where it belongs', async () => {
  const socket = await open();
  const [room, rows] = [topicName(), topicName()];
  await socket.join(room, { config: config(), access_token: ofNew.token });
  await socket.join(rows, { config: config({ event: '*', schema: 'public', table: 'topics' }), access_token: ofNew.token });
  assert.equal((await socket.event(rows, 'system')).payload.status, 'ok');
  assert.ok((await heardBy('old', room)).length && !(await heardBy('new', room)).length);
  assert.ok((await heardBy('new', rows)).some(({ payload }) => payload.config?.postgres_changes.length));
  const beat = socket.send('phoenix', 'heartbeat', {});
  assert.deepEqual((await socket.reply(beat)).payload, { status: 'ok', response: {} });
  assert.equal(socket.frames.filter(({ ref }) => ref === beat).length, 1, 'a heartbeat was answered twice');
  await socket.close();
});

for (const [where, user] of PEOPLE) {
  test(`an API key, wherever it stands in a frame, is ${where}'s own when it arrives there (trap_1)`, async () => {
    const socket = await open({ vsn: '1.0.0' });
    const topic = topicName();
    const bindings = config({ event: '*', schema: 'public', table: 'topics' });
    const { ref } = await socket.join(topic, { config: bindings, access_token: key }); // as supabase-js 2.49 does
    socket.send(topic, 'access_token', { access_token: user.token }, ref);
    await until(`the subscription to be the user's on ${where}`, async () => (await realtimeSeen(stack[where])).sockets.some(({ closed, channels }) => !closed && channels.some((channel) => channel.topic === topic && channel.sub === user.id && channel.bindings)));
    await insert(user, 'topics', { name: 'late token' });
    await socket.event(topic, 'postgres_changes');
    for (const name of ['old', 'new']) {
      const { sockets } = await realtimeSeen(stack[name]);
      for (const { url, headers } of sockets.filter(({ closed }) => !closed)) {
        assert.ok(stack[name].keys.anon.includes(new URL(url, 'http://x').searchParams.get('apikey')), `${name} was sent another project's key`);
        assert.equal(headers['x-api-key'], undefined);
      }
    }
    assert.equal(socket.ws.readyState, 1);
    await socket.close();
  });
}

test('who says nothing is nobody’s, and is served', async () => {
  const socket = await open();
  const beat = socket.send('phoenix', 'heartbeat', {});
  assert.equal((await socket.reply(beat)).payload.status, 'ok');
  await socket.close();
});

test('leaving, joining twice, unknown events: as directly', async () => {
  for (const user of [ofOld, ofNew]) {
    const socket = await open();
    const topic = topicName();
    const join = { config: config({ event: '*', schema: 'public', table: 'topics' }), access_token: user.token };
    const first = await socket.join(topic, join);
    const second = await socket.join(topic, join);
    assert.equal((await socket.event(topic, 'phx_close')).ref, first.ref);
    socket.send(topic, 'an_event_of_tomorrow', { deep: [1, 'Ω'] }, second.ref);
    const left = socket.send(topic, 'phx_leave', {}, second.ref);
    assert.deepEqual((await socket.reply(left)).payload, { status: 'ok', response: {} });
    await socket.next('the second close', ({ event, ref }) => event === 'phx_close' && ref === second.ref);
    assert.equal(socket.frames.filter(({ event }) => event === 'phx_close').length, 2, 'a close was told twice');
    const heard = (await Promise.all(['old', 'new'].map((name) => heardBy(name, topic)))).flat();
    assert.deepEqual(heard.filter(({ event }) => event === 'an_event_of_tomorrow').map(({ payload }) => payload), [{ deep: [1, 'Ω'] }]);
    const words = socket.frames.filter((frame) => frame.join_ref === second.ref).map(({ event }) => event);
    assert.equal(words[0], 'phx_reply', `something came before the answer to the join: ${words}`);
    await socket.close();
  }
});

for (const [where, user] of PEOPLE) {
  test(`the end of ${where}'s socket: its code is passed on, a loss or a refusal is never a clean close (trap_25)`, async () => {
    const joined = async () => {
      const socket = await open();
      await socket.join(topicName(), { config: config({ event: '*', schema: 'public', table: 'topics' }), access_token: user.token });
      return socket;
    };
    const coded = await joined();
    await realtimeFault(stack[where], { close: { code: 4321, reason: 'its own' } });
    assert.deepEqual(await coded.closed, { code: 4321, reason: 'its own' });
    const lost = await joined();
    await realtimeFault(stack[where], { kill: true });
    assert.ok([1011, 1012].includes((await lost.closed).code));
    for (const status of [401, 403, 404, 429, 500]) {
      await realtimeFault(stack[where], { refuse: status });
      const refused = await open();
      refused.send(topicName(), 'phx_join', { config: config({ event: '*', schema: 'public', table: 'topics' }), access_token: user.token }, '1');
      const { code } = await refused.closed;
      assert.ok([1011, 1012, 1013].includes(code), `${status} became ${code}`);
    }
    await realtimeFault(stack[where], { refuse: 0 });
  });
}

for (const version of VERSIONS) {
  test(`supabase-js ${version}: anonymous, then a user of new, then one of old, on one socket (trap_22)`, async () => {
    const client = await clientOf(version, proxy.url, key);
    const heard = [];
    const name = randomUUID();
    const channel = client.channel(name).on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'topics' }, (change) => heard.push(change.new.user_id));
    const { settled, faults } = subscribe(channel);
    assert.equal(await settled, 'SUBSCRIBED');
    for (const user of [ofNew, ofOld]) {
      const where = side(user.id, 50);
      await client.realtime.setAuth(user.token);
      await until(`${where} to have the subscription`, async () => (await realtimeSeen(stack[where])).sockets.some(({ closed, channels }) => !closed && channels.some(({ topic, sub, bindings }) => topic === `realtime:${name}` && sub === user.id && bindings)));
      await until('a change to be heard', async () => {
        await insert(user, 'topics', { name: `probe ${randomUUID()}` });
        return heard.includes(user.id);
      }, { everyMs: 300 });
    }
    assert.deepEqual(faults.filter((fault) => /mismatch/.test(fault)), []);
    await disconnect(client);
  });
}

test('a change of the percentage closes the moved user’s socket with 1012, and nobody else’s', async (t) => {
  t.after(() => proxy.setPercentage(50));
  const sockets = await Promise.all([ofOld, ofNew].map(async (user) => {
    const socket = await open();
    await socket.join(topicName(), { config: config({ event: '*', schema: 'public', table: 'topics' }), access_token: user.token });
    return socket;
  }));
  await proxy.setPercentage(100);
  assert.equal((await sockets[0].closed).code, 1012);
  const beat = sockets[1].send('phoenix', 'heartbeat', {});
  assert.equal((await sockets[1].reply(beat)).payload.status, 'ok');
  await sockets[1].close();
});

registered(import.meta);
