// What stays open: a realtime subscription of supabase-js, older realtime frames, a function's WebSocket byte for byte, and
// server-sent events that arrive one by one.

import { createClient } from '@supabase/supabase-js';
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { test } from 'node:test';
import WebSocket from 'ws';
import { forget, requestsSeen } from '../lib/stack.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';
import { MEMBERS } from '../lib/users.mjs';

const key = stack.old.anonKey;
const proxy = await cutover({ percentage: 50 });

const socketUrl = (path) => proxy.url.replace('http', 'ws') + path;

test('supabase-js subscribes, broadcasts and hears itself', async () => {
  const client = createClient(proxy.url, key, { auth: { persistSession: false, autoRefreshToken: false } });
  await client.realtime.setAuth(MEMBERS[0].token);
  const channel = client.channel(`room ${randomUUID()}`, { config: { broadcast: { self: true, ack: true } } });
  const ping = new Promise((resolve) => channel.on('broadcast', { event: 'ping' }, ({ payload }) => resolve(payload)));
  const status = await new Promise((resolve) => channel.subscribe(resolve));
  assert.equal(status, 'SUBSCRIBED');
  assert.equal(await channel.send({ type: 'broadcast', event: 'ping', payload: { text: 'Ω' } }), 'ok');
  assert.deepEqual(await ping, { text: 'Ω' });
  await client.removeAllChannels();
  client.realtime.disconnect();
});

test('a client of the older protocol joins too, and its key is replaced in the address', async () => {
  await forget(stack.old);
  const socket = new WebSocket(socketUrl(`/realtime/v1/websocket?apikey=${stack.new.anonKey}&vsn=1.0.0&log_level=info`));
  await once(socket, 'open');
  socket.send(JSON.stringify({ topic: 'realtime:room', event: 'phx_join', payload: { config: {} }, ref: '1', join_ref: '1' }));
  const [first] = await once(socket, 'message');
  const reply = JSON.parse(first);
  assert.deepEqual([reply.event, reply.payload.status, reply.ref], ['phx_reply', 'ok', '1']);
  socket.close(1000);
  const [code] = await once(socket, 'close');
  assert.ok([1000, 1005].includes(code), `closed with ${code}`);
  const upgrade = (await requestsSeen(stack.old)).find((request) => request.url.startsWith('/realtime/'));
  assert.equal(upgrade.url, `/realtime/v1/websocket?apikey=${key}&vsn=1.0.0&log_level=info`);
});

test('a realtime handshake with an unknown key is refused with 401', async () => {
  const socket = new WebSocket(socketUrl('/realtime/v1/websocket?apikey=nobody&vsn=2.0.0'));
  const [, response] = await once(socket, 'unexpected-response');
  assert.equal(response.statusCode, 401);
  socket.on('error', () => {});
  socket.terminate();
});

test('a function’s WebSocket gives back every frame byte for byte', async () => {
  const socket = new WebSocket(socketUrl('/functions/v1/socket'), { headers: { apikey: key, authorization: `Bearer ${key}` } });
  await once(socket, 'open');
  const frames = [Buffer.from('grüße'), randomBytes(1), randomBytes(125), randomBytes(126), randomBytes(65_536), randomBytes(700_001)];
  for (const [index, frame] of frames.entries()) {
    const binary = index > 0;
    socket.send(frame, { binary });
    const [back, isBinary] = await once(socket, 'message');
    assert.equal(isBinary, binary);
    assert.ok(frame.equals(back), `frame of ${frame.length} bytes`);
  }
  socket.close(1000, 'done');
  await once(socket, 'close');
});

test('server-sent events arrive one by one', async () => {
  const id = randomUUID();
  const headers = { apikey: key, authorization: `Bearer ${key}` };
  const response = await fetch(`${proxy.url}/functions/v1/stream?id=${id}`, { headers });
  assert.equal(response.headers.get('content-type'), 'text/event-stream');
  const reader = response.body.getReader();
  const read = async () => Buffer.from((await reader.read()).value ?? []).toString();
  // The second event does not exist before it is released, and it is released only after the first has arrived.
  assert.equal(await read(), 'data: first\n\n');
  const released = await fetch(`${proxy.url}/functions/v1/release?id=${id}`, { method: 'POST', headers });
  assert.deepEqual(await released.json(), { released: true });
  let rest = '';
  for (let part = await read(); part; part = await read()) rest += part;
  assert.equal(rest, 'data: second\n\ndata: third\n\n');
});

registered(import.meta);
