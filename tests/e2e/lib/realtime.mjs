// The realtime service of a project, because no registry has one: what supabase-wire.md part 4 says of Supabase Realtime, to the
// letter, over Phoenix's protocol — rooms with broadcast and presence, database changes from the project's own PostgreSQL, tokens
// verified with the project's own key, and the same words when something is refused. It is used by the tests for nothing else, and
// keeps every frame it received and sent, in order, for them to read. Unlike the real one it has no rate limits but the one on
// channels, authorises private channels to anybody, and refuses at once where the real one waits some seconds first.

import { createHash, randomUUID } from 'node:crypto';
import { WebSocketServer } from 'ws';
import { TokenFault, verifyJwt } from './keys.mjs';
import { DatabaseChanges, SubscriptionFault } from './realtime-changes.mjs';
import { decodeBinary, decodeText, encodeBinary, encodeText, isV1, KIND } from './realtime-frames.mjs';

const FRAME_BYTES = 5_000_000;
const CHANNELS = 100; // per socket
const IDLE_MS = 60_000; // a client's heartbeat comes every 25 s
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const RECORD_LIMIT = 100_000;
const RAW = 0;
const JSON_ENCODED = 1;

/** `project` has name, signing, databaseUrl; `keyToken` gives the token that the gateway puts in the place of a known API key. */
export class Realtime {
  server = new WebSocketServer({ noServer: true, maxPayload: FRAME_BYTES });
  sockets = new Map(); // by number, the closed ones too
  rooms = new Map(); // topic → channels; private and public rooms of one name are two
  frames = [];
  numbered = 0;
  faults = {};

  constructor(project, keyToken) {
    Object.assign(this, { project, keyToken });
    this.changes = new DatabaseChanges(project.databaseUrl, (channel, message) => channel.changed(message));
  }

  start() {
    return this.changes.start();
  }

  /** A handshake. `role` is that of its API key, undefined for an unknown one. */
  upgrade(request, socket, head, { key, role }) {
    if (this.faults.refuse) return refuse(socket, this.faults.refuse, { error: 'refused because a test wants it' });
    if (!key) return refuse(socket, 401, { message: 'No API key found in request' });
    if (!role) return refuse(socket, 401, { message: 'Invalid API key' });
    this.server.handleUpgrade(request, socket, head, (ws) => {
      const connection = new Connection(this, ws, request, this.keyToken(role));
      this.sockets.set(connection.number, connection);
    });
  }

  room(topic, isPrivate) {
    const name = `${isPrivate ? 'private' : 'public'} ${topic}`;
    return this.rooms.get(name) ?? this.rooms.set(name, new Set()).get(name);
  }

  /** POST /realtime/v1/api/broadcast, and …/broadcast/:topic/events/:event. The token is that of Authorization, else of the API key. */
  async restBroadcast(request, response, token) {
    const answer = (status, body) => response.writeHead(status, { 'content-type': 'application/json' }).end(body && JSON.stringify(body));
    try {
      verifyJwt(token, this.project.signing);
    } catch {
      return answer(401, { message: 'Unauthorized' });
    }
    const body = Buffer.concat(await request.toArray());
    const url = new URL(request.url, 'http://x');
    const single = url.pathname.match(/^\/realtime\/v1\/api\/broadcast\/([^/]+)\/events\/([^/]+)$/);
    if (single) {
      const [topic, event] = single.slice(1).map(decodeURIComponent);
      const raw = request.headers['content-type'] === 'application/octet-stream';
      const message = { event, encoding: raw ? RAW : JSON_ENCODED, payload: raw ? body : JSON.parse(body) };
      this.broadcast(`realtime:${topic}`, url.searchParams.get('private') === 'true', message);
      return answer(202);
    }
    if (url.pathname !== '/realtime/v1/api/broadcast') return answer(404, { message: 'not found' });
    const { messages } = JSON.parse(body);
    if (!Array.isArray(messages) || !messages.every(({ topic, event, payload }) => topic && event && payload)) return answer(422, { errors: { messages: ["can't be blank"] } });
    for (const { topic, event, payload, private: isPrivate = false } of messages) this.broadcast(`realtime:${topic}`, isPrivate, { event, encoding: JSON_ENCODED, payload });
    answer(202);
  }

  /** To everybody in the room but `except`. */
  broadcast(topic, isPrivate, message, except) {
    for (const channel of this.room(topic, isPrivate)) if (channel !== except) channel.heard(message);
  }

  remember(connection, from, binary, frame) {
    this.frames.push({ n: ++this.numbered, socket: connection.number, from, binary, frame });
    if (this.frames.length > RECORD_LIMIT) this.frames = this.frames.slice(-RECORD_LIMIT / 2);
  }

  /** GET /__e2e/realtime?since=n: the sockets, and the frames after number n. DELETE forgets frames, closed sockets and faults. POST:
   * { close: { code, reason } } or { kill: true }, of all sockets or of those in `sockets`; { refuse: 403 } for handshakes to come;
   * { spoil: true } for join replies to come, whose bindings then differ from what was asked. */
  async inspect(request, response) {
    if (request.method === 'DELETE') {
      this.frames = [];
      this.faults = {};
      for (const [number, connection] of this.sockets) if (connection.closed) this.sockets.delete(number);
    }
    if (request.method === 'POST') {
      const { close, kill, sockets, ...faults } = JSON.parse(Buffer.concat(await request.toArray()));
      Object.assign(this.faults, faults);
      const meant = [...this.sockets.values()].filter(({ number, closed }) => !closed && (!sockets || sockets.includes(number)));
      if (close) for (const { ws } of meant) ws.close(close.code, close.reason);
      if (kill) for (const { ws } of meant) ws.terminate();
    }
    const since = Number(new URL(request.url, 'http://x').searchParams.get('since') ?? 0);
    const told = { sockets: [...this.sockets.values()].map((connection) => connection.told()), frames: this.frames.filter(({ n }) => n > since) };
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(told));
  }
}

function refuse(socket, status, body) {
  const text = JSON.stringify(body);
  socket.end(`HTTP/1.1 ${status} Refused\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n${text}`);
}

/** One WebSocket, with its channels by topic. */
class Connection {
  static count = 0;
  channels = new Map();
  number = ++Connection.count;

  constructor(realtime, ws, request, keyToken) {
    Object.assign(this, { realtime, ws, url: request.url, headers: request.headers, keyToken });
    this.vsn = new URL(request.url, 'http://x').searchParams.get('vsn') ?? '1.0.0';
    this.idle = setTimeout(() => ws.close(1000), IDLE_MS);
    ws.on('message', (data, binary) => this.message(data, binary));
    ws.on('close', (code, reason) => this.ended(code, String(reason)));
    ws.on('error', () => {}); // told by `close`
  }

  ended(code, reason) {
    clearTimeout(this.idle);
    this.closed = { code, reason };
    for (const channel of [...this.channels.values()]) channel.end();
  }

  told() {
    const channels = [...this.channels.values()].map(({ topic, claims, bindings }) => ({ topic, sub: claims.sub, role: claims.role, bindings: bindings.length }));
    return { number: this.number, url: this.url, headers: this.headers, vsn: this.vsn, closed: this.closed, channels };
  }

  message(data, binary) {
    this.idle.refresh();
    let frame;
    try {
      frame = binary ? decodeBinary(data, { fromClient: true }) : decodeText(this.vsn, String(data));
    } catch (error) {
      return this.ws.close(1011, error.message.slice(0, 100)); // Phoenix's process ends on what it cannot decode
    }
    this.realtime.remember(this, 'client', binary, binary ? { ...frame, hex: data.toString('hex') } : frame);
    this.take(frame);
  }

  take(frame) {
    const { topic, event, ref } = frame;
    if (topic === 'phoenix') return event === 'heartbeat' && this.send({ join_ref: null, ref, topic, event: 'phx_reply', payload: { status: 'ok', response: {} } });
    const channel = this.channels.get(topic);
    if (event === 'phx_join') {
      // Phoenix: the new join wins, and its socket sends itself the closing of the first, which comes behind the answer.
      channel?.end();
      this.replaced = channel;
      return this.join(frame);
    }
    if (!channel) return this.reply(frame, ...(event === 'phx_leave' ? ['ok', {}] : ['error', { reason: 'unmatched topic' }]));
    channel.take(frame);
  }

  join(frame) {
    const { topic, payload } = frame;
    const failed = (reason) => this.reply(frame, 'error', { reason });
    if (!topic.startsWith('realtime:')) return failed('unmatched topic');
    if (topic === 'realtime:') return failed('TopicNameRequired: You must provide a topic name');
    if (this.channels.size >= CHANNELS) return failed('ChannelRateLimitReached: Too many channels');
    const given = payload.user_token ?? payload.access_token;
    const token = typeof given === 'string' && !given.startsWith('sb_') ? given : this.keyToken;
    try {
      const claims = verifyJwt(token, this.realtime.project.signing);
      this.channels.set(topic, new Channel(this, frame, token, claims));
    } catch (error) {
      if (!(error instanceof TokenFault)) throw error;
      failed(`${error.code}: ${error.message}`);
    }
  }

  reply({ join_ref, ref, topic }, status, response) {
    this.send({ join_ref, ref, topic, event: 'phx_reply', payload: { status, response } });
    const replaced = this.replaced;
    this.replaced = undefined;
    replaced?.tellClosed();
  }

  send(frame) {
    if (this.ws.readyState !== this.ws.OPEN) return;
    this.realtime.remember(this, 'server', false, frame);
    this.ws.send(encodeText(this.vsn, frame));
  }

  sendBinary(kind, fields, body, encoding) {
    if (this.ws.readyState !== this.ws.OPEN) return;
    const data = encodeBinary(kind, fields, body, { encoding });
    this.realtime.remember(this, 'server', true, { ...decodeBinary(data), hex: data.toString('hex') });
    this.ws.send(data);
  }
}

/** One joined topic of one socket. */
class Channel {
  constructor(connection, { topic, join_ref, ref, payload }, token, claims) {
    const config = payload.config ?? {};
    Object.assign(this, { connection, realtime: connection.realtime, topic, join_ref, token, config });
    this.oldApi = payload.config === undefined;
    this.room = this.realtime.room(topic, config.private === true);
    this.room.add(this);
    this.presenceKey = config.presence?.key || randomUUID();
    this.accept(claims);
    this.bindings = this.oldApi ? [bindingOfTopic(topic)] : (config.postgres_changes ?? []).filter(Boolean);
    const told = this.bindings.map((binding) => ({ ...binding, id: bindingId(binding) }));
    if (this.realtime.faults.spoil) for (const binding of told) binding.schema = `${binding.schema}_spoilt`;
    connection.reply({ join_ref, ref, topic }, 'ok', { postgres_changes: told });
    // Clients before presence was optional say nothing of it, and expect it.
    if (config.presence?.enabled !== false && !this.oldApi) this.push('presence_state', presenceOf(this.room));
    this.subscribe();
  }

  /** Keeps the claims of a verified token, and looks again when it ends. */
  accept(claims) {
    this.claims = claims;
    clearTimeout(this.expiry);
    const left = claims.exp * 1000 - Date.now();
    if (left < LONGEST_TIMER_MS) this.expiry = setTimeout(() => this.confirm(this.token), left + 1000);
  }

  confirm(token) {
    try {
      this.accept(verifyJwt(token, this.realtime.project.signing));
      return true;
    } catch (error) {
      if (!(error instanceof TokenFault)) throw error;
      this.system('system', 'error', error.message);
      this.close();
      return false;
    }
  }

  /** Subscribes to the database after the join was answered; how that went is told in a message of its own. A second time waits for the
   * first: a token that follows the join at once has the last word. */
  subscribe() {
    if (this.bindings.length) this.subscribing = (this.subscribing ?? Promise.resolve()).then(() => this.subscribeNow());
  }

  async subscribeNow() {
    const { claims, realtime: { changes } } = this;
    try {
      for (const binding of this.bindings) await changes.subscribe(this, bindingId(binding), binding, claims);
      this.system('postgres_changes', 'ok', 'Subscribed to PostgreSQL');
    } catch (error) {
      changes.forget(this);
      if (!(error instanceof SubscriptionFault)) console.error('realtime: a subscription failed:', error);
      this.system('postgres_changes', 'error', error.message);
    }
  }

  take(frame) {
    const { event, payload } = frame;
    if (event === 'phx_leave') {
      // A leave of an earlier join "has raced a server close": no answer.
      if ((this.join_ref ?? null) !== (frame.join_ref ?? null)) return;
      this.connection.reply(frame, 'ok', {});
      this.close();
    } else if (event === 'access_token') {
      this.refresh(payload.access_token);
    } else if (event === 'broadcast') {
      const { kind } = frame;
      if (kind === undefined || kind === KIND.userPush) this.broadcast(frame);
    } else if (event === 'presence') {
      this.presence(frame);
    } // anything else: Realtime ignores it
  }

  refresh(token) {
    if (typeof token !== 'string' || token.startsWith('sb_') || token === this.token) return;
    this.token = token;
    if (this.confirm(token)) this.subscribe();
  }

  broadcast(frame) {
    const { payload, kind } = frame;
    const message = kind === undefined ? { event: payload.event, encoding: JSON_ENCODED, payload: payload.payload, whole: payload } : payload;
    this.realtime.broadcast(this.topic, this.config.private === true, message, this.config.broadcast?.self ? undefined : this);
    if (this.config.broadcast?.ack) this.connection.reply(frame, 'ok', {});
  }

  /** What somebody else said. A text broadcast stays one; what came in binary goes out in binary to those who can read it. */
  heard({ event, encoding, payload, whole }) {
    const { topic, connection } = this;
    if (!whole && !isV1(connection.vsn)) {
      connection.sendBinary(KIND.userBroadcast, { topic, event }, encoding === RAW ? payload : Buffer.from(JSON.stringify(payload)), encoding);
    } else if (encoding === JSON_ENCODED) {
      this.fast('broadcast', whole ?? { type: 'broadcast', event, payload });
    } // vsn 1.0.0 has no form for raw bytes
  }

  presence(frame) {
    const { payload } = frame;
    const answer = (status, response = {}) => this.connection.reply(frame, status, response);
    const event = String(payload.event).toLowerCase();
    if (event === 'track') {
      const state = payload.payload ?? {};
      if (typeof state !== 'object' || Array.isArray(state)) return answer('error', { reason: 'Presence track payload must be a map' });
      this.track({ ...state, phx_ref: randomUUID().slice(0, 8) });
    } else if (event === 'untrack') {
      this.track(undefined);
    } else {
      return answer('error');
    }
    answer('ok');
  }

  /** Says to the whole room who came and who went; a changed state is both. */
  track(state) {
    const left = this.tracked;
    this.tracked = state;
    const metas = (one) => (one ? { [this.presenceKey]: { metas: [one] } } : {});
    if (left || state) for (const channel of this.room) channel.fast('presence_diff', { joins: metas(state), leaves: metas(left) });
  }

  changed({ ids, data }) {
    if (this.oldApi) this.fast(data.type, data);
    else this.fast('postgres_changes', { ids, data });
  }

  system(extension, status, message) {
    if (!this.closed) this.push('system', { extension, status, message, channel: this.topic.replace('realtime:', '') });
  }

  /** From the channel's own process: carries the join's reference. */
  push(event, payload) {
    this.connection.send({ join_ref: this.join_ref, ref: null, topic: this.topic, event, payload });
  }

  /** From elsewhere, past the channel's process: carries no reference. */
  fast(event, payload) {
    this.connection.send({ join_ref: null, ref: null, topic: this.topic, event, payload });
  }

  close() {
    this.end();
    this.tellClosed();
  }

  tellClosed() {
    this.connection.send({ join_ref: this.join_ref, ref: this.join_ref, topic: this.topic, event: 'phx_close', payload: {} });
  }

  end() {
    this.closed = true;
    clearTimeout(this.expiry);
    this.realtime.changes.forget(this);
    this.connection.channels.delete(this.topic);
    this.room.delete(this);
    this.track(undefined);
  }
}

function presenceOf(room) {
  const state = {};
  for (const { presenceKey, tracked } of room) if (tracked) (state[presenceKey] ??= { metas: [] }).metas.push(tracked);
  return state;
}

/** A hash of the parameters and nothing else: equal bindings share it, whoever asks. */
function bindingId(binding) {
  const sorted = JSON.stringify(Object.entries(binding).sort());
  return createHash('sha256').update(sorted).digest().readUInt32BE(0) % 2 ** 27; // the range of Erlang's phash2
}

/** The old API: `realtime:schema:table:filter` says what a join without a config wants. */
function bindingOfTopic(topic) {
  const [schema, table, ...filter] = topic.replace('realtime:', '').split(':');
  return { schema, ...(table && { table }), ...(filter.length && { filter: filter.join(':') }) };
}
