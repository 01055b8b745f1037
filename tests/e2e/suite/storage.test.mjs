// Storage through Cutover: who serves whom, in which words, and what must stay where it began. OLD keeps artifacts at the top of its
// bucket and calls another bucket `reports`; NEW keeps the first below `growth/` and calls the second `documents`. Clients may speak
// the words of either; most of these speak OLD's.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { side } from '../lib/bucket.mjs';
import { raw } from '../lib/rest.mjs';
import { objectsOf, resumable, sha256, storageClient } from '../lib/storage-client.mjs';
import { forget, requestsSeen } from '../lib/stack.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';
import { until } from '../lib/until.mjs';
import { newUsers } from '../lib/users.mjs';

const STORAGE = `
[storage]
fallback = true
mark_key = "one-key-for-all-replicas-of-the-proxy"
[storage.buckets]
artifacts = "artifacts/growth"
reports = "documents"
[storage.owners]
avatars = "old"
`;
const proxy = await cutover({ sections: STORAGE });
const key = stack.old.anonKey;
const api = `${proxy.url}/storage/v1`;

const [user] = newUsers(1);
/** The two private buckets, and the folder in them, as each side's clients say it. */
const WORDS = { old: [['artifacts', ''], ['reports', '']], new: [['artifacts', 'growth/'], ['documents', '']] };
const client = (who = user) => storageClient(proxy.url, key, who.token);
const headersOf = (who = user) => ({ apikey: key, authorization: `Bearer ${who.token}` });
const named = (name, who = user) => `${who.id}/${name}`;
const fetched = async (url, options) => {
  const response = await fetch(url, options);
  return { status: response.status, bytes: Buffer.from(await response.arrayBuffer()), headers: response.headers, project: response.headers.get('x-e2e-project') };
};
const innerStatus = ({ bytes }) => JSON.parse(bytes).statusCode;
/** Edits the configuration and waits until it holds. */
const change = async (edit) => {
  const { epoch } = await proxy.rollout();
  proxy.editFile(edit);
  await until('the file to be read', async () => (await proxy.rollout()).epoch > epoch);
};

/** One user at each percentage, and at 50 % one of each side. */
function* everybody() {
  for (const percentage of [0, 50, 100]) {
    const users = newUsers(50);
    for (const where of ['old', 'new']) {
      const who = users.find(({ id }) => side(id, percentage) === where);
      if (who) yield { percentage, where, who };
    }
  }
}

for (const { percentage, where, who } of everybody()) {
  test(`at ${percentage} % a user of ${where} works in the words of either side, on the ${where} side only`, async () => {
    await proxy.setPercentage(percentage);
    const [there, elsewhere] = where === 'old' ? [stack.old, stack.new] : [stack.new, stack.old];
    const { storage, served } = client(who);

    for (const [index, [bucket, folder]] of [...WORDS.old, ...WORDS.new].entries()) {
      const [theirBucket, theirFolder] = WORDS[where][index % 2];
      const files = storage.from(bucket);
      const mine = `${folder}${who.id}`;
      const [name, moved, copied] = [`${mine}/tree/ä b.bin`, `${mine}/tree/moved.bin`, `${mine}/copied.bin`];
      const bytes = randomBytes(70_000);
      const up = await files.upload(name, new Blob([bytes], { type: 'image/png' }), { cacheControl: '60' });
      assert.deepEqual([up.error, up.data?.path, up.data?.fullPath], [null, name, `${bucket}/${name}`]);
      assert.deepEqual(await objectsOf(there, theirBucket, who), [`${theirFolder}${who.id}/tree/ä b.bin`]);

      const { data } = await files.download(name);
      assert.deepEqual([sha256(Buffer.from(await data.arrayBuffer())), data.type], [sha256(bytes), 'image/png']);
      const info = (await files.info(name)).data;
      assert.deepEqual([info.name, info.bucketId, info.size], [name, bucket, 70_000]);
      assert.equal((await files.exists(name)).data, true);
      const again = await files.upload(name, bytes);
      assert.equal(again.error.statusCode, '409');

      assert.equal((await files.move(name, moved)).error, null);
      assert.deepEqual((await files.copy(moved, copied)).data, { path: `${bucket}/${copied}` });
      assert.equal((await files.update(moved, Buffer.from('shorter'), { contentType: 'text/plain' })).error, null);
      assert.equal(await (await files.download(moved)).data.text(), 'shorter');
      assert.deepEqual((await files.list(mine)).data.map(({ name }) => name), ['copied.bin', 'tree']);
      assert.deepEqual((await files.list(`${mine}/tree`)).data.map(({ name }) => name), ['moved.bin']);
      const pages = [(await files.listV2({ prefix: `${mine}/`, limit: 1 })).data];
      pages.push((await files.listV2({ prefix: `${mine}/`, cursor: pages[0].nextCursor })).data);
      assert.deepEqual(pages.flatMap(({ objects }) => objects).map(({ name }) => name), [copied, moved]);
      const folded = (await files.listV2({ prefix: `${mine}/`, with_delimiter: true })).data;
      assert.deepEqual([folded.folders.map(({ name }) => name), folded.objects.map(({ name }) => name)], [[`${mine}/tree/`], [copied]]);

      const { signedUrl } = (await files.createSignedUrl(copied, 60)).data;
      assert.equal(sha256((await fetched(signedUrl)).bytes), sha256(bytes));
      assert.deepEqual((await files.remove([moved, copied])).data.map(({ name }) => name).sort(), [copied, moved]);
      assert.equal((await files.exists(copied)).data, false);
      const gone = await files.download(copied);
      assert.equal(gone.error !== null, true);
      assert.deepEqual(await objectsOf(there, theirBucket, who), []);
      assert.deepEqual(await objectsOf(elsewhere, WORDS[elsewhere.name][index % 2][0], who), []);
    }
    assert.ok(served.length > 20);
    // Only reads may have asked the other side, when theirs had said that there is nothing.
    const strangers = served.filter((one) => one.endsWith(` ${elsewhere.name}`) && !/^(GET|HEAD) /.test(one));
    assert.deepEqual(strangers, []);
  });
}

test('a bucket with an owner stays there at 100 %', async () => {
  await proxy.setPercentage(100);
  const { storage, served } = client();
  assert.equal((await storage.from('avatars').upload(named('me.txt'), Buffer.from('me'))).error, null);
  const face = await fetched(storage.from('avatars').getPublicUrl(named('me.txt')).data.publicUrl);
  assert.deepEqual([face.bytes.toString(), face.project, served], ['me', 'old', ['POST old']]);
});

test('what only OLD has is found at 100 %, and no longer when the fallback is off', async () => {
  await proxy.setPercentage(0);
  const { storage } = client();
  await storage.from('pictures').upload(named('old.txt'), Buffer.from('from old'));
  await storage.from('artifacts').upload(named('old.txt'), Buffer.from('from old'));
  await proxy.setPercentage(100);
  const reads = [
    [`${api}/object/public/pictures/${named('old.txt')}`, {}],
    [`${api}/object/artifacts/${named('old.txt')}`, { headers: headersOf() }],
    [`${api}/object/authenticated/artifacts/${named('old.txt')}`, { headers: headersOf() }],
  ];
  for (const [url, options] of reads) {
    const found = await fetched(url, options);
    assert.deepEqual([found.status, found.bytes.toString(), found.project], [200, 'from old', 'old'], url);
    const head = await fetched(url, { ...options, method: 'HEAD' });
    assert.deepEqual([head.status, head.headers.get('content-length'), head.project], [200, '8', 'old'], `HEAD ${url}`);
    const part = await fetched(url, { headers: { ...options.headers, range: 'bytes=5-' } });
    assert.deepEqual([part.status, part.bytes.toString()], [206, 'old'], `part of ${url}`);
  }
  assert.equal((await storage.from('artifacts').info(named('old.txt'))).data.size, 8);

  await change((text) => text.replace('fallback = true', 'fallback = false'));
  for (const [url, options] of reads) {
    const missing = await fetched(url, options);
    assert.deepEqual([missing.status, innerStatus(missing), missing.project], [400, '404', 'new'], url);
  }
  await change((text) => text.replace('fallback = false', 'fallback = true'));
});

test('trap_30_only_a_real_not_found_asks_the_other_side', async () => {
  await proxy.setPercentage(100);
  const { storage } = client();
  await storage.from('artifacts').upload(named('here.txt'), Buffer.from('here'));
  const [stranger] = newUsers(1);
  const asked = async (request) => {
    await forget(stack.old);
    await request();
    return (await requestsSeen(stack.old)).filter(({ url }) => url.startsWith('/storage/')).map(({ method }) => method);
  };
  assert.deepEqual(await asked(() => fetched(`${api}/object/artifacts/${named('nowhere.txt')}`, { headers: headersOf() })), ['GET']);
  assert.deepEqual(await asked(() => fetched(`${api}/object/artifacts/${named('here.txt')}`, { headers: { ...headersOf(), range: 'bytes=100-' } })), []); // 400, 416
  assert.deepEqual(await asked(() => storage.from('artifacts').upload(named('here.txt'), Buffer.from('again'))), []); // 400, 409
  assert.deepEqual(await asked(() => storage.from('artifacts').upload(named('x', stranger), Buffer.from('x'))), []); // 400, 403
  assert.deepEqual(await asked(() => storage.from('artifacts').move(named('nowhere.txt'), named('there.txt'))), []); // 400, 404, but a write
});

for (const [made, used] of [[100, 0], [0, 100]]) {
  test(`a signed URL made at ${made} % works at ${used} %`, async () => {
    await proxy.setPercentage(made);
    const where = made ? 'new' : 'old';
    const { storage } = client();
    const files = storage.from('artifacts');
    const names = [`signed/${made}/one & ü.txt`, `signed/${made}/two.txt`].map((name) => named(name));
    for (const name of names) assert.equal((await files.upload(name, Buffer.from(`${made} ${name}`), { contentType: 'text/plain' })).error, null);
    const one = (await files.createSignedUrl(names[0], 600, { download: 'save as.txt' })).data.signedUrl;
    const many = (await files.createSignedUrls([...names, named('nothing')], 600)).data;
    assert.deepEqual(many.map(({ path, error }) => [path, error !== null]), [[names[0], false], [names[1], false], [named('nothing'), true]]);
    const { path, token } = (await files.createSignedUploadUrl(named(`signed/${made}/upload.bin`))).data;
    assert.equal(path, named(`signed/${made}/upload.bin`));
    for (const url of [one, many[0].signedUrl]) assert.ok(url.startsWith(`${api}/object/sign/artifacts/${user.id}/`), url);

    await proxy.setPercentage(used);
    await proxy.restart();
    for (const [url, name] of [[one, names[0]], [many[0].signedUrl, names[0]], [many[1].signedUrl, names[1]]]) {
      const found = await fetched(url);
      assert.deepEqual([found.status, found.bytes.toString(), found.project], [200, `${made} ${name}`, where], url);
    }
    const part = await fetched(one, { headers: { range: 'bytes=0-1' } });
    assert.deepEqual([part.status, part.bytes.length], [206, 2]);
    assert.match(part.headers.get('content-disposition'), /save%20as\.txt/);
    const etag = part.headers.get('etag');
    assert.equal((await fetched(one, { headers: { 'if-none-match': etag } })).status, 304);

    const bytes = randomBytes(50_000);
    const uploaded = await files.uploadToSignedUrl(path, token, new Blob([bytes]));
    assert.equal(uploaded.error, null);
    assert.equal(sha256(Buffer.from(await (await files.download(path)).data.arrayBuffer())), sha256(bytes));
    const [there, prefix] = made ? [stack.new, 'growth/'] : [stack.old, ''];
    assert.ok((await objectsOf(there, 'artifacts', user)).includes(prefix + path));

    // Another object's name, or another token, opens nothing on either side.
    for (const url of [one.replace(encodeURIComponent('one'), 'two'), one.replace(/token=.{20}/, 'token=xxxxxxxxxxxxxxxxxxxx')]) {
      const refused = await fetched(url);
      assert.equal(refused.status, 400, `${url}: ${refused.bytes}`);
    }
  });
}

for (const [begun, finished] of [[0, 100], [100, 0]]) {
  test(`a resumable upload begun at ${begun} % finishes at ${finished} % after a restart of the proxy`, async () => {
    await proxy.setPercentage(begun);
    const bytes = randomBytes(1_500_000);
    const path = named(`resumable/from ${begun}.bin`);
    const at = { url: proxy.url, bucket: 'artifacts', path, bytes, headers: headersOf(), chunkSize: 256 * 1024, type: 'video/x-test' };
    const url = await resumable({ ...at, pauseAfter: 512 * 1024 }).paused;
    assert.ok(url.startsWith(`${api}/upload/resumable/`), url);

    await proxy.setPercentage(finished);
    await proxy.restart();
    await forget(stack.old);
    await forget(stack.new);
    const ask = (method) => raw(proxy.url, new URL(url).pathname, { method, headers: { 'tus-resumable': '1.0.0' } });
    const head = await ask('HEAD');
    assert.deepEqual([head.status, head.headers['upload-offset'], head.headers['upload-length']], [200, '524288', '1500000']);
    assert.ok(head.headers['upload-expires'] || head.headers['tus-resumable']);
    assert.equal(await resumable({ ...at, uploadUrl: url }).finished, url);

    const [there, other, prefix] = begun ? [stack.new, stack.old, 'growth/'] : [stack.old, stack.new, ''];
    assert.ok((await objectsOf(there, 'artifacts', user)).includes(prefix + path));
    assert.deepEqual((await requestsSeen(other)).filter(({ url: seen }) => seen.includes('resumable')), []);
    const { data, error } = await client().storage.from('artifacts').download(path); // the fallback finds it on the side it went to
    assert.equal(error, null);
    assert.deepEqual([sha256(Buffer.from(await data.arrayBuffer())), data.type], [sha256(bytes), 'video/x-test']);
  });
}

test('a resumable upload can be given up, asked about, signed, and refused', async () => {
  await proxy.setPercentage(100);
  const at = { url: proxy.url, bucket: 'artifacts', bytes: randomBytes(1000), headers: headersOf() };
  const url = await resumable({ ...at, path: named('resumable/given up'), chunkSize: 100, pauseAfter: 100 }).paused;
  await proxy.setPercentage(0);
  const ask = (method, path, headers = headersOf()) => raw(proxy.url, path, { method, headers: { ...headers, 'tus-resumable': '1.0.0' } });
  const { pathname } = new URL(url);
  assert.equal((await ask('DELETE', pathname)).status, 204);
  assert.ok([404, 410].includes((await ask('HEAD', pathname)).status));
  const forged = await ask('HEAD', pathname.replace(/.{6}$/, 'xxxxxx'));
  assert.ok(forged.status >= 400 && forged.status < 500, `a changed upload URL: ${forged.status}`);

  const options = await ask('OPTIONS', '/storage/v1/upload/resumable', {}); // not a preflight: it asks what the server can do
  assert.deepEqual([options.status, options.headers['tus-version']], [204, '1.0.0']);
  assert.match(options.headers['tus-extension'], /creation/);

  await proxy.setPercentage(100);
  const { token } = (await client().storage.from('artifacts').createSignedUploadUrl(named('resumable/signed'))).data;
  await proxy.setPercentage(0);
  await resumable({ ...at, path: named('resumable/signed'), signed: true, headers: { 'x-signature': token } }).finished;
  assert.ok((await objectsOf(stack.new, 'artifacts', user)).includes(`growth/${named('resumable/signed')}`));

  const refused = await resumable({ ...at, path: named('x', newUsers(1)[0]) }).finished.then(() => assert.fail('it was accepted'), (error) => error.originalResponse.getStatus());
  assert.equal(refused, 403);
});

test('what was signed or begun before there was a Cutover goes on', async () => {
  const there = (url, project) => url.replace(project.url, proxy.url).replace(`${proxy.url}/upload`, `${api}/upload`);
  const signed = [];
  for (const project of [stack.old, stack.new]) {
    const files = storageClient(project.url, project.anonKey, user.token).storage.from('pictures');
    const name = named(`before/${project.name}.txt`);
    assert.equal((await files.upload(name, Buffer.from(project.name))).error, null);
    signed.push([there((await files.createSignedUrl(name, 600)).data.signedUrl, project), project.name]);
  }
  const bytes = randomBytes(1000);
  const at = { bucket: 'pictures', path: named('before/begun.bin'), bytes, chunkSize: 400, headers: headersOf() };
  const begun = await resumable({ ...at, url: stack.old.url, pauseAfter: 400 }).paused;

  for (const percentage of [0, 100]) {
    await proxy.setPercentage(percentage);
    for (const [url, project] of signed) {
      const found = await fetched(url);
      assert.deepEqual([found.status, found.bytes.toString(), found.project], [200, project, project], `${url} at ${percentage} %`);
    }
  }
  await resumable({ ...at, url: proxy.url, uploadUrl: there(begun, stack.old) }).finished;
  assert.ok((await objectsOf(stack.old, 'pictures', user)).includes(named('before/begun.bin')));
});

test('ranges, conditions and twenty megabytes arrive unchanged on either side', async () => {
  for (const [percentage, where] of [[0, 'old'], [100, 'new']]) {
    await proxy.setPercentage(percentage);
    const bytes = randomBytes(20 * 1024 * 1024);
    const path = named(`large-${where}.bin`);
    assert.equal((await client().storage.from('artifacts').upload(path, bytes, { contentType: 'application/x-large' })).error, null);
    const url = `${api}/object/artifacts/${path}`;
    const whole = await fetched(url, { headers: headersOf() });
    assert.deepEqual([whole.status, sha256(whole.bytes), whole.project, whole.headers.get('accept-ranges')], [200, sha256(bytes), where, 'bytes']);
    const part = await fetched(url, { headers: { ...headersOf(), range: 'bytes=1000000-9999999' } });
    assert.deepEqual([part.status, part.headers.get('content-range')], [206, `bytes 1000000-9999999/${bytes.length}`]);
    assert.equal(sha256(part.bytes), sha256(bytes.subarray(1_000_000, 10_000_000)));
    const same = await fetched(url, { headers: { ...headersOf(), 'if-none-match': whole.headers.get('etag') } });
    assert.deepEqual([same.status, same.bytes.length], [304, 0]);
  }
});

test('the S3 protocol is refused, unless it has an owner', async () => {
  const headers = { authorization: 'AWS4-HMAC-SHA256 Credential=key/20261121/eu/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00', 'x-amz-date': '20261121T000000Z' };
  const ask = () => fetched(`${api}/s3/artifacts/x.txt?x-id=GetObject`, { headers });
  const refused = await ask();
  const body = JSON.parse(refused.bytes);
  assert.ok(refused.status >= 400 && refused.project === null, `${refused.status} of ${refused.project}`);
  assert.match(body.code, /^CUT/);
  assert.ok(body.message && body.hint, JSON.stringify(body));

  await change((text) => text.replace('[storage]', '[storage]\ns3 = "old"'));
  await forget(stack.old);
  assert.equal((await ask()).project, 'old');
  const [seen] = await requestsSeen(stack.old);
  assert.deepEqual([seen.url, seen.headers.authorization, seen.headers['x-amz-date']], ['/storage/v1/s3/artifacts/x.txt?x-id=GetObject', headers.authorization, headers['x-amz-date']]);
});

registered(import.meta);
