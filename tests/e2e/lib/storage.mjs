// The storage service of one project: Supabase Lite keeps the objects and judges who may touch them, and this stands before it and
// makes the rest of what hosted Supabase Storage does on the wire (github.com/supabase/storage; resumable uploads: storage-tus.mjs).
// Each repair names what Lite 0.10 does instead. Nothing here is shared between projects: each has its own signing key and uploads.

import Busboy from '@fastify/busboy';
import { createHmac, timingSafeEqual } from 'node:crypto';
import { Agent, request as httpRequest } from 'node:http';
import { Transform } from 'node:stream';
import { json } from 'node:stream/consumers';
import { signJwt } from './keys.mjs';
import { resumableUploads } from './storage-tus.mjs';

const UPLOAD_TOKEN_SECONDS = 7200;
const LIST_PAGE = 1000; // hosted's largest page of list-v2
const EVERYTHING = 100_000;

/** What storage answers when it refuses: HTTP 400 (or 500) whatever the reason, which is in the body's own statusCode. */
export class StorageError extends Error {
  constructor(statusCode, code, message) {
    super(message);
    this.body = { statusCode: String(statusCode), error: code, message, code };
  }
}

/** The parts of storage that need more than one of its requests: signatures, and talking to Lite. Given to storage-tus.mjs too. */
class Lite {
  constructor({ ports, urlSigningKey, jwtSecret, liteKeys }) {
    Object.assign(this, { port: ports.lite, urlSigningKey, jwtSecret, liteKeys, agent: new Agent({ keepAlive: true, maxSockets: 64 }) });
  }

  turn = Promise.resolve();

  /** One exchange with Lite; `body` is a stream, a string, or nothing. They go one after the other, each until the head of its answer:
   * Lite judges requests of several users at once under each other's claims. */
  ask(...exchange) {
    const answer = this.turn.then(() => this.askNow(...exchange));
    this.turn = answer.catch(() => {});
    return answer;
  }

  askNow(method, path, headers, body) {
    return new Promise((resolve, reject) => {
      const options = { host: '127.0.0.1', port: this.port, agent: this.agent, method, path: `/storage/v1${path}`, headers };
      const upstream = httpRequest(options, resolve).on('error', reject).on('close', () => reject(new Error('Lite did not answer')));
      if (typeof body?.pipe !== 'function') return upstream.end(body);
      body.pipe(upstream);
      body.once('close', () => body.readableEnded || upstream.destroy()); // who goes away in the middle must not hold the others up
    });
  }

  /** The same for JSON. An answer that is no success becomes a StorageError. */
  async askJson(method, path, headers, value) {
    const text = value === undefined ? undefined : JSON.stringify(value);
    const answer = await this.ask(method, path, { ...bare(headers), ...(text && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }) }, text);
    return success(answer);
  }

  /** Headers that let Lite act for `owner` (whose right was judged before), or as the service if there is none. */
  actingFor(owner) {
    const token = owner ? signJwt({ sub: owner, role: 'authenticated', exp: 2100000000 }, this.jwtSecret) : this.liteKeys.service;
    return { apikey: owner ? this.liteKeys.anon : this.liteKeys.service, authorization: `Bearer ${token}` };
  }

  signUrl(claims, seconds) {
    const now = Math.floor(Date.now() / 1000);
    return signJwt({ ...claims, iat: now, exp: now + seconds }, this.urlSigningKey);
  }

  /** The claims of a token that this project made for just this object and purpose; the order of the faults is storage's. */
  verifyUrl(token, url, scope) {
    const [head, body, signature] = String(token ?? '').split('.');
    const expected = createHmac('sha256', this.urlSigningKey).update(`${head}.${body}`).digest();
    const given = Buffer.from(signature ?? '', 'base64url');
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) throw new StorageError(400, 'InvalidJWT', 'signature verification failed');
    const claims = JSON.parse(Buffer.from(body, 'base64url'));
    if (claims.exp * 1000 < Date.now()) throw new StorageError(400, 'InvalidJWT', '"exp" claim timestamp check failed');
    if (claims.scope !== scope) throw new StorageError(400, 'InvalidSignature', `Token is not scoped for ${scope}`);
    if (claims.url !== url) throw new StorageError(400, 'InvalidSignature', 'Invalid signature');
    return claims;
  }
}

/**
 * The service. `handle` answers everything below /storage/v1; `headers` are the request's, with the keys that Lite knows.
 * `tusPrefix` is what stands before /upload/resumable in the Location of a new upload, and can be changed while it runs.
 */
export function storageService(config) {
  const lite = new Lite(config);
  const uploads = resumableUploads(lite, config);

  async function handle(request, response, headers) {
    try {
      await route(request, response, headers);
    } catch (error) {
      if (!(error instanceof StorageError)) console.error(error);
      if (response.headersSent) return response.destroy();
      refuse(response, error);
    }
  }

  async function route(request, response, headers) {
    const { pathname, searchParams } = new URL(request.url, 'http://x');
    const path = pathname.replace(/^\/storage\/v1/, '');
    const reads = request.method === 'GET' || request.method === 'HEAD';
    if (path.startsWith('/upload/resumable')) return uploads.handle(request, response, headers);

    let found;
    const is = (methods, pattern) => methods.includes(request.method) && (found = pattern.exec(path)) !== null;
    if (is('POST', /^\/object\/sign\/([^/]+)$/)) return signMany(request, response, headers, decodeURIComponent(found[1]));
    if (is('POST', /^\/object\/sign\/([^/]+)\/(.+)$/)) return signOne(request, response, headers, path, target(found));
    if (is('POST', /^\/object\/upload\/sign\/([^/]+)\/(.+)$/)) return signUpload(request, response, headers, path, target(found));
    if (is('PUT', /^\/object\/upload\/sign\/([^/]+)\/(.+)$/)) return uploadSigned(request, response, headers, searchParams.get('token'), target(found));
    if (is('POST', /^\/object\/list\/([^/]+)$/)) return list(request, response, headers, found[1]);
    if (is('POST', /^\/object\/list-v2\/([^/]+)$/)) return listV2(request, response, headers, found[1]);
    if (is('POST', /^\/object\/copy$/)) return copy(request, response, headers);
    if (reads && (found = /^\/object\/sign\/([^/]+)\/(.+)$/.exec(path))) {
      const { exp } = lite.verifyUrl(searchParams.get('token'), target(found).url, 'download');
      return serve(request, response, target(found), lite.actingFor(), searchParams, { expires: new Date(exp * 1000).toUTCString() });
    }
    if (reads && (found = /^\/object\/info\/(?:public\/|authenticated\/)?([^/]+)\/(.+)$/.exec(path))) return info(response, target(found), headers);
    if (reads && (found = /^\/object\/public\/([^/]+)\/(.+)$/.exec(path))) return serve(request, response, target(found), undefined, searchParams);
    if (reads && (found = /^\/object\/(?:authenticated\/)?([^/]+)\/(.+)$/.exec(path))) return serve(request, response, target(found), headers, searchParams);
    if (is('DELETE', /^\/object\/([^/]+)\/(.+)$/)) return removeOne(response, target(found), headers);
    if (is(['POST', 'PUT'], /^\/object\/([^/]+)\/(.+)$/)) return upload(request, response, headers, path);
    await pass(response, await lite.ask(request.method, request.url.replace(/^\/storage\/v1/, ''), headers, request));
  }

  // Lite answers `signedUrl` with the whole path, and a token whose claims are its own; supabase-js reads a relative `signedURL`.
  // Lite is asked all the same: it knows whether this user may see the object.
  async function signOne(request, response, headers, path, { url }) {
    const { expiresIn } = await json(request);
    await lite.askJson('POST', path, headers, { expiresIn });
    send(response, 200, { signedURL: signedPath(url, expiresIn) });
  }

  // Lite takes the path of this request for an object without a name; so each name is asked for on its own.
  async function signMany(request, response, headers, bucket) {
    const { expiresIn, paths } = await json(request);
    const message = 'Either the object does not exist or you do not have access to it';
    const visible = (url) => lite.askJson('POST', `/object/sign/${encodeURI(url)}`, headers, { expiresIn }).then(() => true, () => false);
    send(response, 200, await Promise.all(paths.map(async (path) => {
      const url = `${bucket}/${path}`;
      return (await visible(url)) ? { error: null, path, signedURL: signedPath(url, expiresIn) } : { error: message, path, signedURL: null };
    })));
  }

  const signedPath = (url, seconds) => `/object/sign/${url}?token=${lite.signUrl({ url, scope: 'download' }, seconds)}`;

  async function signUpload(request, response, headers, path, { url }) {
    request.resume();
    await lite.askJson('POST', path, headers); // judges the right to upload
    const upsert = request.headers['x-upsert'] === 'true';
    const token = lite.signUrl({ owner: subject(headers), url, upsert, scope: 'upload' }, UPLOAD_TOKEN_SECONDS);
    send(response, 200, { url: `/object/upload/sign/${url}?token=${token}`, token });
  }

  async function uploadSigned(request, response, headers, token, { url, path }) {
    const { owner, upsert } = lite.verifyUrl(token, url, 'upload');
    const answer = await put(request, `/object/${path}`, { ...headers, ...lite.actingFor(owner), 'x-upsert': String(upsert) });
    send(response, 200, { Key: (await success(answer)).Key });
  }

  /** An upload by POST or PUT: the same for Lite, but that PUT always overwrites. */
  async function upload(request, response, headers, path) {
    const upsert = request.method === 'PUT' ? 'true' : headers['x-upsert'];
    await pass(response, await put(request, path, { ...headers, ...(upsert && { 'x-upsert': upsert }) }));
  }

  // Lite takes a form's file from a field named `file` and nothing else of the form; supabase-js gives the file an empty name, and
  // hosted takes whatever field is a file, with its type, and the field `cacheControl` as seconds. So the file goes on as a raw body.
  function put(request, path, headers) {
    if (!request.headers['content-type']?.startsWith('multipart/form-data')) return lite.ask('POST', path, headers, request);
    return new Promise((resolve, reject) => {
      const form = new Busboy({ headers: { 'content-type': request.headers['content-type'] }, limits: { files: 1 } });
      let sent = false;
      const rest = bare(headers);
      form.on('field', (name, value) => name === 'cacheControl' && (rest['cache-control'] = `max-age=${value}`));
      form.on('file', (field, file, name, encoding, type) => {
        sent = true;
        lite.ask('POST', path, { ...rest, 'content-type': type }, file).then(resolve, reject);
      });
      form.on('finish', () => sent || reject(new StorageError(400, 'InvalidRequest', 'No file provided')));
      form.on('error', reject);
      request.pipe(form);
    });
  }

  /**
   * An object's bytes. Lite makes type, ETag and cache-control up from the file's name and time instead of what was uploaded, ignores
   * Range, If-None-Match and If-Modified-Since, has no `authenticated` path and no `download` name, and answers HEAD without headers;
   * hosted does as S3 does. `access` undefined asks Lite's public path, which looks at the bucket alone.
   */
  async function serve(request, response, { path }, access, query, more = {}) {
    const answer = await lite.ask('GET', `${access ? '/object' : '/object/public'}/${path}`, access ? bare(access) : {});
    if (answer.statusCode !== 200) throw await fault(answer);
    const { metadata } = await lite.askJson('GET', `/object/info/${path}`, lite.actingFor());
    const [size, etag] = [metadata.size, quoted(metadata.eTag)];
    const headers = { 'content-type': metadata.mimetype, etag, 'last-modified': new Date(metadata.lastModified).toUTCString(), 'accept-ranges': 'bytes', 'x-robots-tag': 'none' };
    Object.assign(headers, more.expires ? { expires: more.expires } : { 'cache-control': metadata.cacheControl });
    if (query.has('download')) headers['content-disposition'] = disposition(query.get('download'));

    if (unchanged(request.headers, etag, headers['last-modified'])) {
      answer.destroy();
      return response.writeHead(304, headers).end();
    }
    let range;
    try {
      range = byteRange(request.headers.range, size);
    } catch (error) {
      answer.destroy();
      throw error;
    }
    headers['content-length'] = range ? range.end - range.start + 1 : size;
    if (range) headers['content-range'] = `bytes ${range.start}-${range.end}/${size}`;
    response.writeHead(range ? 206 : 200, headers);
    if (request.method === 'HEAD') {
      answer.destroy();
      return response.end();
    }
    answer.on('error', () => response.destroy());
    response.on('close', () => answer.destroy());
    (range ? answer.pipe(part(range)) : answer).pipe(response);
  }

  // Lite answers info with its own row; hosted with these fields.
  async function info(response, { path }, headers) {
    const row = await lite.askJson('GET', `/object/info/${path}`, headers);
    const { size, mimetype, cacheControl, eTag } = row.metadata; // `httpMetadata` is guessed from the file's name
    const { id, name, version, bucket_id, user_metadata, updated_at, created_at } = row;
    const shown = { id, name, version, bucket_id, size, content_type: mimetype, cache_control: cacheControl, etag: quoted(eTag), metadata: user_metadata, last_modified: updated_at, created_at };
    send(response, 200, shown);
  }

  // Lite answers `key` without the bucket; supabase-js reads `Key`, with it.
  async function copy(request, response, headers) {
    const asked = await json(request);
    await lite.askJson('POST', '/object/copy', headers, asked);
    const bucket = asked.destinationBucket ?? asked.bucketId;
    send(response, 200, { Key: `${bucket}/${asked.destinationKey}`, bucket_id: bucket, name: asked.destinationKey });
  }

  // Lite deletes only by a list of names.
  async function removeOne(response, { path, bucket, name }, headers) {
    const removed = await lite.askJson('DELETE', `/object/${path.split('/')[0]}`, headers, { prefixes: [name] });
    if (!removed.length) throw new StorageError(404, 'NoSuchKey', `Object not found: ${bucket}`);
    send(response, 200, { message: 'Successfully deleted' });
  }

  // Lite lists every name that begins with the prefix, in full; hosted what lies in that folder, by its name there, folders without id.
  async function list(request, response, headers, bucket) {
    const { prefix = '', limit = 100, offset = 0, search = '', sortBy = {} } = await json(request);
    const folder = prefix && !prefix.endsWith('/') ? `${prefix}/` : prefix;
    const shown = new Map();
    for (const object of await everything(bucket, folder, headers)) {
      const [name, ...below] = object.name.slice(folder.length).split('/');
      const nothing = { id: null, updated_at: null, created_at: null, last_accessed_at: null, metadata: null };
      if (name.toLowerCase().includes(search.toLowerCase())) shown.set(name, below.length ? { name, ...nothing } : { ...object, name });
    }
    const { column = 'name', order = 'asc' } = sortBy;
    const entries = [...shown.values()].sort((a, b) => (a[column] < b[column] ? -1 : 1) * (order === 'desc' ? -1 : 1));
    send(response, 200, entries.slice(offset, offset + limit));
  }

  // Lite has no list-v2 (it would take the path for an upload into a bucket of that name): all names with a prefix, in order, folded
  // at the delimiter, in pages whose cursor is the last name shown.
  async function listV2(request, response, headers, bucket) {
    const { prefix = '', limit = LIST_PAGE, cursor, with_delimiter: folded = false } = await json(request);
    const after = cursor && Buffer.from(cursor, 'base64url').toString();
    const shown = new Map();
    for (const object of await everything(bucket, prefix, headers)) {
      const end = folded ? object.name.indexOf('/', prefix.length) + 1 : 0;
      const entry = end ? { id: null, name: object.name.slice(0, end) } : object;
      if (!after || entry.name > after) shown.set(entry.name, entry);
    }
    const page = [...shown.values()].slice(0, Math.min(limit, LIST_PAGE));
    const hasNext = shown.size > page.length;
    const entries = { folders: page.filter(({ id }) => id === null), objects: page.filter(({ id }) => id !== null) };
    send(response, 200, { hasNext, ...(hasNext && { nextCursor: Buffer.from(page.at(-1).name).toString('base64url'), nextCursorKey: page.at(-1).name }), ...entries });
  }

  /** All objects whose full name begins with `prefix`, in order of their bytes. */
  async function everything(bucket, prefix, headers) {
    const objects = await lite.askJson('POST', `/object/list/${bucket}`, headers, { prefix, limit: EVERYTHING });
    return objects.filter(({ name }) => name.startsWith(prefix)).sort((a, b) => (a.name < b.name ? -1 : 1)); // Lite's prefix is a LIKE pattern
  }

  return { handle, uploads };
}

/** Bucket and object of a path, in the forms that are needed: `url` as a token names it, `path` as Lite reads it. */
function target([, rawBucket, rawName]) {
  const [bucket, name] = [decodeURIComponent(rawBucket), decodeURIComponent(rawName)];
  return { bucket, name, url: `${bucket}/${name}`, path: `${rawBucket}/${rawName}` };
}

/** Who the request's token is of; only after Lite has accepted it. */
export function subject(headers) {
  const [, body] = headers.authorization?.split('.') ?? [];
  return body ? JSON.parse(Buffer.from(body, 'base64url')).sub : undefined;
}

/** Headers without those that describe a body or a connection, for a request with another body. */
function bare(headers) {
  const { authorization, apikey, 'x-upsert': upsert, 'cache-control': cache } = headers;
  return Object.fromEntries(Object.entries({ authorization, apikey, 'x-upsert': upsert, 'cache-control': cache }).filter(([, value]) => value !== undefined));
}

async function success(answer) {
  if (answer.statusCode >= 300) throw await fault(answer);
  return json(answer);
}

// Lite's 401 for a bad token is hosted's 400 with the inner statusCode 403; its bodies lack `code`.
const CODES = { not_found: 'NoSuchKey', 'Bucket not found': 'NoSuchBucket', Duplicate: 'ResourceAlreadyExists', Unauthorized: 'AccessDenied', InvalidJWT: 'AccessDenied' };
async function fault(answer) {
  const body = await json(answer).catch(() => ({}));
  const error = new StorageError(body.statusCode ?? answer.statusCode, body.error ?? 'Error', body.message ?? 'storage failed');
  error.body.code = CODES[body.error] ?? body.error;
  if (answer.statusCode === 401) Object.assign(error.body, { statusCode: '403', error: 'Unauthorized' });
  return error;
}

async function pass(response, answer) {
  if (answer.statusCode >= 400) throw await fault(answer);
  const { connection, 'keep-alive': alive, ...headers } = answer.headers;
  response.writeHead(answer.statusCode, headers);
  answer.pipe(response);
  answer.on('error', () => response.destroy());
}

function send(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' }).end(JSON.stringify(value));
}

function refuse(response, error) {
  if (error instanceof StorageError) return send(response, error.body.statusCode === '500' ? 500 : 400, error.body);
  send(response, 500, { statusCode: '500', error: 'Internal', message: 'Internal Server Error', code: 'InternalError' });
}

const quoted = (etag) => (etag && !etag.startsWith('"') && !etag.startsWith('W/') ? `"${etag}"` : etag);

function unchanged(headers, etag, modified) {
  const tags = headers['if-none-match'];
  if (tags) return tags.trim() === '*' || tags.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag);
  const since = Date.parse(headers['if-modified-since'] ?? '');
  return Boolean(since && modified && Date.parse(modified) <= since);
}

/** The one range of a Range header, inclusive; undefined when there is none or its form is unknown. */
function byteRange(header, size) {
  const [, first, last] = /^bytes=(\d*)-(\d*)$/.exec(header ?? '') ?? [];
  if (!first && !last) return undefined;
  const start = first ? Number(first) : Math.max(0, size - Number(last));
  const end = first && last ? Math.min(Number(last), size - 1) : size - 1;
  if (start >= size || start > end) throw new StorageError(416, 'InvalidRange', 'The requested range is not satisfiable');
  return { start, end };
}

/** Lets through the bytes of the range only. */
function part({ start, end }) {
  let at = 0;
  return new Transform({
    transform(chunk, encoding, done) {
      const from = Math.max(0, start - at);
      const to = Math.min(chunk.length, end + 1 - at);
      at += chunk.length;
      done(null, from < to ? chunk.subarray(from, to) : undefined);
    },
  });
}

function disposition(name) {
  const encoded = encodeURIComponent(name);
  return name ? `attachment; filename=${encoded}; filename*=UTF-8''${encoded}` : 'attachment;';
}
