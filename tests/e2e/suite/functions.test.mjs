// Edge functions through Cutover: each user's side runs them, under the name that they have there; whatever streams, streams.

import { createClient } from '@supabase/supabase-js';
import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { test } from 'node:test';
import WebSocket from 'ws';
import { side } from '../lib/bucket.mjs';
import { raw } from '../lib/rest.mjs';
import { forget, requestsSeen } from '../lib/stack.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';
import { newUsers } from '../lib/users.mjs';

const FUNCTIONS = `
[functions.names]
memory-create = "memory/create"
[functions.owners]
stripe-webhook = "old"
`;
const proxy = await cutover({ sections: FUNCTIONS });
const key = stack.old.anonKey;
const [user] = newUsers(1);
const headers = { apikey: key, authorization: `Bearer ${user.token}` };
const as = ({ token }) => createClient(proxy.url, key, { accessToken: async () => token }).functions;
const url = (path) => `${proxy.url}/functions/v1/${path}`;

test('each user is served by their side', async () => {
  for (const percentage of [0, 50, 100]) {
    await proxy.setPercentage(percentage);
    for (const who of newUsers(10)) {
      const { data, error } = await as(who).invoke('where');
      assert.deepEqual([error?.context?.status, data], [undefined, { project: side(who.id, percentage) }]);
    }
  }
});

for (const [percentage, where, real] of [[0, 'old', 'memory-create'], [100, 'new', 'memory/create']]) {
  test(`at ${percentage} % a function is reached by either of its names`, async () => {
    await proxy.setPercentage(percentage);
    for (const name of ['memory-create', 'memory/create']) {
      const { data, error } = await as(user).invoke(name, { body: { text: 'grüße' }, region: 'eu-central-1' });
      const expected = { project: where, path: `/functions/v1/${real}`, query: '?forceFunctionRegion=eu-central-1', method: 'POST', region: 'eu-central-1', body: '{"text":"grüße"}' };
      assert.deepEqual([error?.context?.status, data], [undefined, expected], name);
      const deeper = await raw(proxy.url, `/functions/v1/${name}/more%2Fpath?a=1&a=+`, { headers });
      assert.deepEqual(JSON.parse(deeper.text), { ...expected, path: `/functions/v1/${real}/more%2Fpath`, query: '?a=1&a=+', method: 'GET', region: null, body: '' });
    }
    for (const unknown of ['memory-creates', 'memory', 'memory-create2']) {
      const { error } = await as(user).invoke(unknown);
      assert.equal(error.context.status, 404, unknown);
    }
  });

  test(`at ${percentage} % events arrive one by one, and a reader who leaves is missed`, async () => {
    await proxy.setPercentage(percentage);
    const post = async (path) => (await fetch(url(path), { method: 'POST', headers })).json();
    const open = async (id) => {
      const reading = new AbortController();
      const response = await fetch(url(`stream?id=${id}`), { headers, signal: reading.signal });
      assert.deepEqual([response.headers.get('content-type'), response.headers.get('x-e2e-project')], ['text/event-stream', where]);
      const reader = response.body.getReader();
      // The second event does not exist before it is released, and it is released only after the first has arrived.
      assert.equal(Buffer.from((await reader.read()).value).toString(), 'data: first\n\n');
      return { reader, reading };
    };
    const id = randomUUID();
    const { reader } = await open(id);
    assert.deepEqual(await post(`release?id=${id}`), { released: true });
    let rest = '';
    for (let part = await reader.read(); !part.done; part = await reader.read()) rest += Buffer.from(part.value);
    assert.equal(rest, 'data: second\n\ndata: third\n\n');

    const left = randomUUID();
    (await open(left)).reading.abort();
    assert.deepEqual(await post(`gone?id=${left}`), { gone: true });
  });

  test(`at ${percentage} % a body without an end is answered while it is still being sent`, async () => {
    await proxy.setPercentage(percentage);
    const request = httpRequest(url('echo'), { method: 'POST', headers: { ...headers, 'content-type': 'application/octet-stream' } });
    const parts = [randomBytes(10), randomBytes(70_000), randomBytes(3)];
    request.write(parts[0]);
    const [response] = await once(request, 'response'); // though the request has no end yet
    assert.deepEqual([response.statusCode, response.headers['x-e2e-project']], [200, where]);
    const reader = response[Symbol.asyncIterator]();
    for (const [index, part] of parts.entries()) {
      let back = Buffer.alloc(0);
      while (back.length < part.length) back = Buffer.concat([back, (await reader.next()).value]);
      assert.ok(back.equals(part), `part ${index}`);
      if (parts[index + 1]) request.write(parts[index + 1]); // only now
    }
    request.end();
    assert.equal((await reader.next()).done, true);
  });

  test(`at ${percentage} % a WebSocket to a function ends on the user's side`, async () => {
    await proxy.setPercentage(percentage);
    const socket = new WebSocket(url('socket?hello').replace('http', 'ws'), { headers });
    const [[hello]] = await Promise.all([once(socket, 'message'), once(socket, 'open')]);
    assert.equal(String(hello), where);
    const frame = randomBytes(200_000);
    socket.send(frame);
    const [back, isBinary] = await once(socket, 'message');
    assert.ok(isBinary && frame.equals(back));
    socket.close(1000);
    await once(socket, 'close');
  });

  test(`at ${percentage} % a webhook without any key reaches its owner, byte for byte and once`, async () => {
    await proxy.setPercentage(percentage);
    await Promise.all([forget(stack.old), forget(stack.new)]);
    const body = Buffer.concat([Buffer.from('{ "id":  "evt_1",\r\n"text": "\u00fc" }\n'), randomBytes(20_000)]);
    const signature = `v1=${createHash('sha256').update(body).digest('hex')}`;
    const sent = { 'Stripe-Signature': signature, 'content-type': 'application/json; charset=utf-8', 'user-agent': 'Stripe/1.0', 'content-length': body.length };
    const answer = await raw(proxy.url, '/functions/v1/stripe-webhook', { method: 'POST', headers: sent, body });
    assert.deepEqual([answer.status, JSON.parse(answer.text)], [200, { project: 'old', verified: true }]);
    const seen = (await requestsSeen(stack.old)).filter((request) => request.url === '/functions/v1/stripe-webhook');
    assert.equal(seen.length, 1);
    assert.deepEqual([seen[0].headers['stripe-signature'], seen[0].headers['user-agent'], seen[0].headers.authorization], [signature, 'Stripe/1.0', undefined]);
    assert.deepEqual((await requestsSeen(stack.new)).filter((request) => request.url.startsWith('/functions/')), []);
  });
}

registered(import.meta);
