// A bare realtime client over `ws`, for tests that look at frames rather than at a client's idea of them. It speaks both versions of
// the wire, keeps all that it received, and never reconnects by itself.

import WebSocket from 'ws';
import { decodeBinary, decodeText, encodeBinary, encodeText, KIND } from './realtime-frames.mjs';
import { until } from './until.mjs';

export class RealtimeSocket {
  frames = [];
  refs = 0;

  constructor(baseUrl, key, { vsn = '2.0.0', query = `&vsn=${vsn}`, headers } = {}) {
    this.vsn = vsn;
    this.ws = new WebSocket(`${baseUrl.replace('http', 'ws')}/realtime/v1/websocket?apikey=${encodeURIComponent(key)}${query}`, { headers });
    this.ws.on('message', (data, binary) => this.frames.push({ ...(binary ? decodeBinary(data) : decodeText(vsn, String(data))), binary }));
    this.ws.on('error', () => {}); // told by `opened` and `closed`
    this.opened = new Promise((resolve, reject) => {
      this.ws.once('open', () => resolve(this));
      this.ws.once('error', reject);
    });
    this.opened.catch(() => {});
    this.closed = new Promise((resolve) => this.ws.once('close', (code, reason) => resolve({ code, reason: String(reason) })));
  }

  send(topic, event, payload, join_ref = null) {
    const ref = String(++this.refs);
    this.ws.send(encodeText(this.vsn, { join_ref, ref, topic, event, payload }));
    return ref;
  }

  /** A broadcast as current clients send it: a binary frame of kind 3. */
  sendUserPush(topic, event, payload, join_ref) {
    const ref = String(++this.refs);
    const raw = Buffer.isBuffer(payload);
    this.ws.send(encodeBinary(KIND.userPush, { join_ref, ref, topic, event }, raw ? payload : Buffer.from(JSON.stringify(payload)), { encoding: raw ? 0 : 1 }));
    return ref;
  }

  /** Joins and returns { ref, status, response }. `payload` is the whole payload: { config, access_token }. */
  async join(topic, payload) {
    const ref = String(this.refs + 1);
    this.send(topic, 'phx_join', payload, ref);
    return { ref, ...(await this.reply(ref)).payload };
  }

  reply(ref) {
    return this.next(`a reply to ${ref}`, (frame) => frame.event === 'phx_reply' && frame.ref === ref);
  }

  /** The first frame, received already or still to come, that `matches`. */
  next(what, matches, { after = 0, seconds = 10 } = {}) {
    return until(what, () => {
      const found = this.frames.slice(after).find(matches);
      if (!found && this.ws.readyState === WebSocket.CLOSED) throw Object.assign(new Error('the socket has closed'), { final: true });
      return found;
    }, { seconds, everyMs: 5 });
  }

  event(topic, event, options) {
    return this.next(`${event} on ${topic}`, (frame) => frame.topic === topic && frame.event === event, options);
  }

  async close(code = 1000) {
    this.ws.close(code);
    return this.closed;
  }
}

/** What a refused handshake answered: { status, body }. */
export function refusal(baseUrl, query) {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(`${baseUrl.replace('http', 'ws')}/realtime/v1/websocket${query}`);
    ws.on('error', () => {});
    ws.once('open', () => reject(new Error('the handshake was accepted')));
    ws.once('unexpected-response', async (request, response) => {
      const text = Buffer.concat(await response.toArray()).toString();
      ws.terminate();
      resolve({ status: response.statusCode, body: text });
    });
  });
}

/** What the realtime service of a project has seen: { sockets, frames }. */
export const realtimeSeen = async (project, since = 0) => (await fetch(`${project.url}/__e2e/realtime?since=${since}`)).json();
export const realtimeForget = (project) => fetch(`${project.url}/__e2e/realtime`, { method: 'DELETE' }).then((response) => response.arrayBuffer());
/** Makes it fail: see Realtime.inspect. */
export const realtimeFault = (project, body) => fetch(`${project.url}/__e2e/realtime`, { method: 'POST', body: JSON.stringify(body) }).then((response) => response.arrayBuffer());
