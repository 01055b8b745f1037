// The public face of one project, in the place of Supabase's own gateway: checks the API key, answers CORS preflights, sends each
// path to its service, passes WebSockets through, and keeps a record of what arrived for the tests to look at.
//   node gateway.mjs '<json: project, port, signing, jwtSecret (Lite's), databaseUrl, keys, liteKeys, rest: "postrust"|"lite", ports: {lite, postrust, functions}>'
// Own paths: GET /__e2e/requests (the record), DELETE the same (forget it), PUT /__e2e/tus-prefix (the body, see
// storage-tus.mjs), PUT /__e2e/hidden-schemas (the body, a JSON list), /__e2e/realtime (see realtime.mjs). Every response carries x-e2e-project.

import { Agent, createServer, request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { claimsOf, jwks, signJwt, verifyJwt } from './keys.mjs';
import { OpenApi } from './openapi.mjs';
import { Realtime } from './realtime.mjs';
import { secretsIn } from './said.mjs';
import { storageService } from './storage.mjs';

const config = JSON.parse(process.argv[2]);
const RECORD_LIMIT = 20000;
const agent = new Agent({ keepAlive: true, maxSockets: 64 });
const roleTokens = {
  anon: signJwt({ role: 'anon', exp: 2100000000 }, config.signing),
  service: signJwt({ role: 'service_role', exp: 2100000000 }, config.signing),
};
const realtime = new Realtime({ name: config.project, signing: config.signing, databaseUrl: config.databaseUrl }, (role) => roleTokens[role]);
const storage = storageService(config);
const openApi = new OpenApi(config.databaseUrl);
let record = [];
let hidden = []; // schemas that REST does not expose, for a test of what is said then

// Paths that browsers, other servers or signed links open without a key; functions, realtime and resumable uploads check for themselves.
const KEYLESS = [
  /^\/auth\/v1\/(verify|callback|authorize|\.well-known\/)/,
  /^\/storage\/v1\/(object\/(info\/)?public|object\/(upload\/)?sign|upload\/resumable|s3)(\/|\?|$)/,
  /^\/upload\/resumable/, // where a Location without the prefix leads
  /^\/functions\/v1\//,
];

const server = createServer((request, response) => {
  response.setHeader('x-e2e-project', config.project);
  const [path] = request.url.split('?', 1);
  if (path === '/__e2e/requests') return showRecord(request, response);
  if (path === '/__e2e/realtime') return realtime.inspect(request, response);
  if (path === '/__e2e/tus-prefix') return text(request).then((prefix) => response.end(storage.uploads.setPrefix(prefix)));
  if (path === '/__e2e/hidden-schemas') return text(request).then((list) => response.end(JSON.stringify((hidden = JSON.parse(list)))));
  remember(request);
  if (request.method === 'OPTIONS' && request.headers.origin && request.headers['access-control-request-method']) return preflight(request, response);

  const key = clientKey(request);
  const role = roleOf(key);
  const keyless = KEYLESS.some((pattern) => pattern.test(request.url));
  if (!keyless && !key) return refuse(response, 401, 'No API key found in request');
  if (!keyless && !role) return refuse(response, 401, 'Invalid API key');
  response.setHeader('access-control-allow-origin', '*');

  if (path === '/auth/v1/.well-known/jwks.json') return response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'public, max-age=600' }).end(JSON.stringify(jwks(config.signing)));
  if (path === '/rest/v1/' && request.method === 'GET') return describe(request, response, role);
  if (path.startsWith('/rest/v1/') || path === '/rest/v1') return config.rest === 'postrust' ? toPostrust(request, response, role) : toLite(request, response, role);
  if (path.startsWith('/auth/v1/')) {
    const said = [];
    request.on('data', (bytes) => said.push(bytes)).on('end', () => secretsIn({ body: Buffer.concat(said).toString() }));
    return toLite(request, response, role);
  }
  if (path.startsWith('/storage/v1/') || path.startsWith('/upload/resumable')) return storage.handle(request, response, liteHeaders(request, role));
  if (path.startsWith('/functions/v1/')) return toFunctions(request, response);
  if (path.startsWith('/realtime/v1/api/broadcast')) return realtime.restBroadcast(request, response, userBearer(request) ?? roleTokens[role]);
  refuse(response, 404, 'no Route matched with those values');
});

server.on('upgrade', (request, socket, head) => {
  socket.on('error', () => socket.destroy());
  remember(request);
  if (request.url.startsWith('/realtime/v1/websocket')) {
    const key = clientKey(request);
    return realtime.upgrade(request, socket, head, { key, role: roleOf(key) });
  }
  const upstream = connect(config.ports.functions, '127.0.0.1', () => {
    const lines = [`${request.method} ${request.url} HTTP/1.1`];
    for (let i = 0; i < request.rawHeaders.length; i += 2) lines.push(`${request.rawHeaders[i]}: ${request.rawHeaders[i + 1]}`);
    upstream.write(`${lines.join('\r\n')}\r\n\r\n`);
    upstream.write(head);
    socket.pipe(upstream).pipe(socket);
  });
  upstream.on('error', () => socket.destroy());
});

function clientKey(request) {
  return request.headers.apikey ?? new URL(request.url, 'http://x').searchParams.get('apikey') ?? undefined;
}

function roleOf(key) {
  return config.keys.anon.includes(key) ? 'anon' : config.keys.service.includes(key) ? 'service' : undefined;
}

/** A Bearer value that is a user's token, not a key repeated. */
function userBearer(request) {
  const bearer = request.headers.authorization?.replace(/^Bearer /i, '');
  return bearer && !bearer.startsWith('sb_') && !roleOf(bearer) ? bearer : undefined;
}

// Lite compares the key literally, so each accepted key becomes the one key it knows for that role.
function liteHeaders(request, role) {
  const headers = { ...request.headers };
  if (role) {
    headers.apikey = config.liteKeys[role];
    const user = userBearer(request);
    if (headers.authorization && !user) headers.authorization = `Bearer ${config.liteKeys[role]}`;
    // Lite knows one HS256 secret and nothing else. Where the project signs with ES256, the gateway verifies the user's token and hands
    // on the same claims under Lite's own secret, which nobody else knows; what does not verify goes on as it is, for Lite to refuse.
    if (user && config.signing.alg !== 'HS256' && verifies(user)) headers.authorization = `Bearer ${signJwt(claimsOf(user), config.jwtSecret)}`;
  }
  return headers;
}

function toLite(request, response, role) {
  forward(request, response, config.ports.lite, request.url, liteHeaders(request, role), request.url.startsWith('/auth/') ? isoTimes : undefined);
}

// Workaround: Lite's auth writes times as PostgreSQL prints them (`2026-11-21 09:49:39.36+00`), which supabase-py cannot read.
const isoTimes = {
  applies: (answer) => answer.headers['content-type']?.includes('json'),
  repair(answer) {
    const text = answer.body.toString().replace(/"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d[.\d]*)\+00"/g, '"$1T$2Z"');
    secretsIn({ body: text });
    answer.body = Buffer.from(text);
    answer.headers['content-length'] = String(answer.body.length);
  },
};

/** Does this project's own key stand behind the token? */
function verifies(token) {
  try {
    return Boolean(verifyJwt(token, config.signing));
  } catch {
    return false;
  }
}

// A token that is no user's of this project is refused before the function runs, as with verify_jwt; without one (a webhook) it runs.
function toFunctions(request, response) {
  const user = userBearer(request);
  if (user && !verifies(user)) return response.writeHead(401, { 'content-type': 'application/json' }).end(JSON.stringify({ code: 401, message: 'Invalid JWT' }));
  forward(request, response, config.ports.functions, request.url, request.headers);
}

function profile(request) {
  const writes = ['POST', 'PATCH', 'PUT', 'DELETE'].includes(request.method);
  return request.headers[writes ? 'content-profile' : 'accept-profile'] ?? 'public';
}

// postrust has no OpenAPI document. As on hosted projects it is shown to service keys alone, one schema at a time.
async function describe(request, response, role) {
  if (role !== 'service') return refuse(response, 401, 'Access to schema is forbidden');
  const schema = profile(request);
  if (!config.ports.postrust[schema]) return toPostrust(request, response, role); // it says in PostgREST's words that there is none
  try {
    const document = await openApi.document(schema, `http://127.0.0.1:${config.port}`);
    response.writeHead(200, { 'content-type': 'application/openapi+json; charset=utf-8', 'content-profile': schema }).end(JSON.stringify(document));
  } catch (error) {
    refuse(response, 500, error.message);
  }
}

function toPostrust(request, response, role) {
  const user = userBearer(request);
  const headers = { ...request.headers, authorization: `Bearer ${user ?? roleTokens[role]}` };
  let url = request.url.slice('/rest/v1'.length) || '/';
  // Workaround: postrust takes the quotes in columns="a","b" (what supabase-js sends with every array) for part of the name.
  url = url.replace(/([?&]columns=)([^&]*)/, (_, start, list) => start + list.replace(/%22|"/gi, ''));
  // Workaround: postrust does not read `+` in a query as the space it stands for (a filter value with spaces, from supabase-js).
  const [path, query] = url.split(/\?(.*)/s);
  if (query) url = `${path}?${query.replaceAll('+', '%20')}`;
  const schema = profile(request);
  // The server of another schema does not expose this one, and says so itself.
  const isHidden = hidden.includes(schema);
  const port = (isHidden ? Object.entries(config.ports.postrust).find(([name]) => name !== schema && name !== '*')[1] : config.ports.postrust[schema]) ?? config.ports.postrust['*'];
  forward(request, response, port, url, headers, user || role === 'service' ? forbidden : undefined);
}

// Workaround: postrust answers 401 to a row level security violation of a signed-in user; PostgREST answers 403.
const forbidden = {
  applies: (answer) => answer.statusCode === 401,
  repair(answer) {
    if (!answer.body.includes('"42501"')) return;
    answer.status = 403;
    delete answer.headers['www-authenticate'];
  },
};

/** Passes the exchange through as a stream, but for an answer that `fix` applies to: that one is held and repaired. */
function forward(request, response, port, path, headers, fix) {
  const options = { host: '127.0.0.1', port, agent, method: request.method, path, headers };
  const upstream = httpRequest(options, async (answer) => {
    const answerHeaders = { ...answer.headers, 'x-e2e-project': config.project, 'access-control-allow-origin': '*' };
    for (const name of ['connection', 'keep-alive']) delete answerHeaders[name];
    if (fix?.applies(answer)) {
      const held = { status: answer.statusCode, headers: answerHeaders, body: Buffer.concat(await answer.toArray()) };
      fix.repair(held);
      response.writeHead(held.status, held.headers).end(held.body);
      return;
    }
    response.writeHead(answer.statusCode, answerHeaders);
    response.flushHeaders(); // a stream's reader sees the head before the first event
    answer.pipe(response);
    answer.on('error', () => response.destroy());
  });
  upstream.on('error', () => (response.headersSent ? response.destroy() : refuse(response, 502, 'service unavailable')));
  response.on('close', () => upstream.destroy());
  request.pipe(upstream);
}

function preflight(request, response) {
  const allow = request.headers['access-control-request-headers'] ?? '*';
  const methods = 'GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS';
  response.writeHead(204, { 'access-control-allow-origin': '*', 'access-control-allow-methods': methods, 'access-control-allow-headers': allow }).end();
}

function refuse(response, status, message) {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify({ message }));
}

function remember(request) {
  secretsIn(request);
  record.push({ method: request.method, url: request.url, headers: request.headers, rawHeaders: request.rawHeaders });
  if (record.length > RECORD_LIMIT) record = record.slice(-RECORD_LIMIT / 2);
}

function showRecord(request, response) {
  if (request.method === 'DELETE') record = [];
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(record));
}

server.keepAliveTimeout = 60_000;
await realtime.start();
server.listen(config.port, '127.0.0.1');
