// Is each project's storage good enough to judge the proxy by? The real clients against the projects themselves, without Cutover:
// what fails here is a fault of lib/storage*.mjs, not of the proxy.

import { createClient } from '@supabase/supabase-js';
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { raw } from '../lib/rest.mjs';
import { resumable, sha256 } from '../lib/storage-client.mjs';
import { registered, stack } from '../lib/suite.mjs';
import { newUsers } from '../lib/users.mjs';

for (const project of [stack.old, stack.new]) {
  const other = project === stack.old ? stack.new : stack.old;
  const folder = project.name === 'new' ? 'growth/' : '';
  const [user, stranger] = newUsers(2);
  const clientOf = ({ token }, url = project.url, key = project.anonKey) => createClient(url, key, { accessToken: async () => token });
  const mine = clientOf(user).storage;
  const named = (name) => `${folder}${user.id}/${name}`;
  const on = (title, body) => test(`${project.name}: ${title}`, body);
  const headers = { apikey: project.anonKey, authorization: `Bearer ${user.token}` };

  on('a Blob and a Buffer arrive as they were sent, with their type', async () => {
    for (const [kind, wrap] of [['blob', (bytes) => new Blob([bytes], { type: 'image/png' })], ['buffer', (bytes) => bytes]]) {
      const bytes = randomBytes(300_001);
      const path = named(`${kind}/grüße und ${randomUUID()}.png`);
      const up = await mine.from('artifacts').upload(path, wrap(bytes), { contentType: 'image/png', cacheControl: '77' });
      assert.equal(up.error, null);
      assert.equal(up.data.path, path);
      const { data, error } = await mine.from('artifacts').download(path);
      assert.equal(error, null);
      assert.equal(sha256(Buffer.from(await data.arrayBuffer())), sha256(bytes));
      assert.equal(data.type, 'image/png');
      const info = (await mine.from('artifacts').info(path)).data;
      assert.deepEqual([info.name, info.size, info.contentType, info.cacheControl], [path, 300_001, 'image/png', 'max-age=77']);
      assert.equal((await mine.from('artifacts').exists(path)).data, true);
    }
  });

  on('refusals are HTTP 400 with the reason inside', async () => {
    const path = named('mine.txt');
    await mine.from('artifacts').upload(path, Buffer.from('x'));
    const inner = async (path, options) => {
      const answer = await raw(project.url, `/storage/v1/object/${path}`, { headers, ...options });
      return [answer.status, JSON.parse(answer.text).statusCode];
    };
    assert.deepEqual(await inner(`artifacts/${named('nothing.txt')}`), [400, '404']);
    assert.deepEqual(await inner('public/nowhere/x.txt'), [400, '404']);
    assert.deepEqual(await inner(`artifacts/${path}`, { headers: { ...headers, authorization: `Bearer ${stranger.token}` } }), [400, '404']);
    assert.deepEqual(await inner(`artifacts/${named('mine.txt')}`, { method: 'POST', body: 'y' }), [400, '409']);
    assert.deepEqual(await inner(`artifacts/${stranger.id}/theirs.txt`, { method: 'POST', body: 'y' }), [400, '403']);
    assert.deepEqual(await inner(`artifacts/${path}`, { method: 'POST', body: 'y', headers: { ...headers, authorization: 'Bearer a.b.c' } }), [400, '403']);
  });

  on('list, list-v2, move, copy and remove', async () => {
    const bucket = mine.from('artifacts');
    for (const name of ['a.txt', 'b.txt', 'deep/c.txt']) assert.equal((await bucket.upload(named(`tree/${name}`), Buffer.from(name))).error, null);
    const names = async () => (await bucket.list(named('tree'))).data.map(({ name }) => name);
    assert.deepEqual(await names(), ['a.txt', 'b.txt', 'deep']);
    assert.equal((await bucket.move(named('tree/b.txt'), named('tree/d.txt'))).error, null);
    assert.deepEqual((await bucket.copy(named('tree/a.txt'), named('tree/e.txt'))).data, { path: `artifacts/${named('tree/e.txt')}` });
    assert.deepEqual(await names(), ['a.txt', 'd.txt', 'deep', 'e.txt']);

    const flat = (await bucket.listV2({ prefix: named('tree/'), limit: 3 })).data;
    assert.deepEqual([flat.objects.map(({ name }) => name), flat.folders, flat.hasNext], [['a.txt', 'd.txt', 'deep/c.txt'].map((name) => named(`tree/${name}`)), [], true]);
    const rest = (await bucket.listV2({ prefix: named('tree/'), limit: 3, cursor: flat.nextCursor })).data;
    assert.deepEqual([rest.objects.map(({ name }) => name), rest.hasNext], [[named('tree/e.txt')], false]);
    const folded = (await bucket.listV2({ prefix: named('tree/'), with_delimiter: true })).data;
    assert.deepEqual([folded.objects.length, folded.folders.map(({ name }) => name)], [3, [named('tree/deep/')]]);

    assert.deepEqual((await bucket.remove([named('tree/a.txt'), named('tree/nothing')])).data.map(({ name }) => name), [named('tree/a.txt')]);
    const one = await raw(project.url, `/storage/v1/object/artifacts/${named('tree/d.txt')}`, { method: 'DELETE', headers });
    assert.deepEqual([one.status, JSON.parse(one.text)], [200, { message: 'Successfully deleted' }]);
    assert.deepEqual(await names(), ['deep', 'e.txt']);
  });

  on('ranges, ETag and conditions', async () => {
    const bytes = randomBytes(100_000);
    const path = named('ranges.bin');
    await mine.from('artifacts').upload(path, bytes, { contentType: 'application/octet-stream' });
    const get = (more, method = 'GET') => fetch(`${project.url}/storage/v1/object/artifacts/${path}`, { method, headers: { ...headers, ...more } });
    for (const [range, from, to] of [['bytes=0-9', 0, 9], ['bytes=70000-', 70000, 99_999], ['bytes=-5', 99_995, 99_999], ['bytes=99990-200000', 99_990, 99_999]]) {
      const answer = await get({ range });
      assert.deepEqual([answer.status, answer.headers.get('content-range')], [206, `bytes ${from}-${to}/100000`], range);
      assert.ok(Buffer.from(await answer.arrayBuffer()).equals(bytes.subarray(from, to + 1)), range);
    }
    const outside = await get({ range: 'bytes=100000-' });
    assert.deepEqual([outside.status, (await outside.json()).statusCode], [400, '416']);

    const head = await get({}, 'HEAD');
    const etag = head.headers.get('etag');
    assert.match(etag, /^"[^"]+"$/);
    assert.deepEqual([head.status, head.headers.get('content-length'), head.headers.get('accept-ranges')], [200, '100000', 'bytes']);
    assert.equal((await get({ 'if-none-match': etag })).status, 304);
    assert.equal((await get({ 'if-none-match': '"other"' })).status, 200);
    assert.equal((await get({ 'if-modified-since': head.headers.get('last-modified') })).status, 304);
    const saved = await fetch(`${project.url}/storage/v1/object/authenticated/artifacts/${path}?download=a b.bin`, { headers });
    assert.equal(saved.headers.get('content-disposition'), "attachment; filename=a%20b.bin; filename*=UTF-8''a%20b.bin");
  });

  on('a signed URL opens one object without a key; the other project refuses it', async () => {
    const path = named('signed/räume & more.txt');
    await mine.from('artifacts').upload(path, Buffer.from('signed'), { contentType: 'text/plain' });
    const { data } = await mine.from('artifacts').createSignedUrl(path, 60);
    const answer = await fetch(data.signedUrl, { headers: { range: 'bytes=0-2' } });
    assert.deepEqual([answer.status, await answer.text()], [206, 'sig']);
    const claims = JSON.parse(Buffer.from(new URL(data.signedUrl).searchParams.get('token').split('.')[1], 'base64url'));
    assert.deepEqual([claims.url, claims.scope, claims.exp - claims.iat], [`artifacts/${path}`, 'download', 60]);

    const refusal = async (url) => {
      const answer = await fetch(url);
      return [answer.status, await answer.json().then(({ statusCode, error }) => `${statusCode} ${error}`)];
    };
    assert.deepEqual(await refusal(data.signedUrl.replace(project.url, other.url)), [400, '400 InvalidJWT']);
    assert.deepEqual(await refusal(data.signedUrl.replace('signed/', 'other/')), [400, '400 InvalidSignature']);
    const late = await mine.from('artifacts').createSignedUrl(path, -1);
    assert.deepEqual(await refusal(late.data.signedUrl), [400, '400 InvalidJWT']);

    const many = (await mine.from('artifacts').createSignedUrls([path, named('nothing')], 60)).data;
    assert.equal(await (await fetch(many[0].signedUrl)).text(), 'signed');
    assert.deepEqual([many[1].signedUrl, many[1].path], [null, named('nothing')]);
    assert.ok(many[1].error);
    assert.ok((await clientOf(stranger).storage.from('artifacts').createSignedUrl(path, 60)).error);
  });

  on('a signed upload URL takes one upload, by whoever holds it', async () => {
    const path = named('handed-over.txt');
    const { data, error } = await mine.from('artifacts').createSignedUploadUrl(path);
    assert.equal(error, null);
    const wrong = await clientOf(stranger, other.url, other.anonKey).storage.from('artifacts').uploadToSignedUrl(path, data.token, new Blob(['no']));
    assert.equal(wrong.error.statusCode, '400');
    const put = await clientOf(stranger).storage.from('artifacts').uploadToSignedUrl(path, data.token, new Blob(['yes'], { type: 'text/plain' }));
    assert.equal(put.error, null);
    assert.equal(await (await mine.from('artifacts').download(path)).data.text(), 'yes');
    const again = await clientOf(stranger).storage.from('artifacts').uploadToSignedUrl(path, data.token, new Blob(['twice']));
    assert.equal(again.error.statusCode, '409');
    assert.ok((await mine.from('artifacts').createSignedUploadUrl(`${stranger.id}/x`)).error);
  });

  on('a public object needs no key, a private one is not found', async () => {
    await mine.from('avatars').upload(named('face.svg'), Buffer.from('<svg/>'), { contentType: 'image/svg+xml' });
    const answer = await fetch(mine.from('avatars').getPublicUrl(named('face.svg')).data.publicUrl);
    assert.deepEqual([answer.status, await answer.text(), answer.headers.get('content-type')], [200, '<svg/>', 'image/svg+xml']);
    await mine.from('artifacts').upload(named('secret.txt'), Buffer.from('x'));
    const secret = await fetch(mine.from('artifacts').getPublicUrl(named('secret.txt')).data.publicUrl);
    assert.deepEqual([secret.status, (await secret.json()).statusCode], [400, '404']);
  });

  on('tus-js-client uploads in chunks, resumes, and is stopped where the user may not write', async () => {
    const bytes = randomBytes(700_000);
    const path = named('resumable/big file.bin');
    const at = { url: project.url, headers, chunkSize: 256 * 1024 };
    const location = { old: `${project.url}/upload/resumable/`, new: `${project.url}/storage/v1/upload/resumable/` }[project.name];
    const first = resumable({ ...at, bucket: 'artifacts', path, bytes, type: 'application/x-big', pauseAfter: 256 * 1024 });
    const url = await first.paused;
    assert.ok(url.startsWith(location), url);
    const head = await raw(project.url, new URL(url).pathname, { method: 'HEAD', headers: { 'tus-resumable': '1.0.0' } });
    assert.deepEqual([head.status, head.headers['upload-offset'], head.headers['upload-length']], [200, '262144', '700000']);
    await resumable({ ...at, bucket: 'artifacts', path, bytes, uploadUrl: url }).finished;
    const { data } = await mine.from('artifacts').download(path);
    assert.equal(sha256(Buffer.from(await data.arrayBuffer())), sha256(bytes));
    assert.equal(data.type, 'application/x-big');
    const info = (await mine.from('artifacts').info(path)).data;
    assert.equal(info.cacheControl, 'max-age=3600');

    const failing = (more) => resumable({ ...at, bytes, bucket: 'artifacts', path, ...more }).finished.then(() => assert.fail('it was accepted'), ({ originalResponse }) => [originalResponse.getStatus(), originalResponse.getBody()]);
    assert.deepEqual(await failing({}), [409, 'The resource already exists']);
    assert.equal((await failing({ path: `${stranger.id}/x` }))[0], 403);
    assert.equal((await failing({ path: named('y'), headers: { apikey: project.anonKey } }))[0], 400);
    await resumable({ ...at, bucket: 'artifacts', path, bytes: Buffer.from('short'), headers: { ...headers, 'x-upsert': 'true' } }).finished;
    assert.equal(await (await mine.from('artifacts').download(path)).data.text(), 'short');
  });

  on('a resumable upload with a signature in the place of a user, and one given up', async () => {
    const path = named('resumable/signed.bin');
    const { data: { token } } = await mine.from('artifacts').createSignedUploadUrl(path);
    const at = { url: project.url, bucket: 'artifacts', path, bytes: randomBytes(1000), signed: true };
    await assert.rejects(resumable({ ...at, headers: { 'x-signature': 'a.b.c' } }).finished);
    await resumable({ ...at, headers: { 'x-signature': token } }).finished;
    assert.equal((await mine.from('artifacts').info(path)).data.size, 1000);

    const url = await resumable({ ...at, headers, signed: false, path: named('resumable/given-up'), chunkSize: 100, pauseAfter: 100 }).paused;
    const ask = async (method) => (await raw(project.url, new URL(url).pathname, { method, headers: { ...headers, 'tus-resumable': '1.0.0' } })).status;
    assert.deepEqual([await ask('DELETE'), await ask('HEAD')], [204, 404]);
  });
}

registered(import.meta);
