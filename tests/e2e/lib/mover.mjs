// A realtime client that stays: it joins its channels, checks each reply as the SDKs do, and when its socket is closed it comes back
// by itself and joins again. It keeps count of what happened to it, so that a test can say whose sockets were touched.

import { setTimeout as pause } from 'node:timers/promises';
import { RealtimeSocket } from './socket.mjs';

const BACK_OFF_MS = [50, 100, 200, 400, 1000];

export class Mover {
  closes = []; // { code, reason } of each socket, in order
  faults = []; // what no client should ever see
  joined = 0; // how often all channels were in force
  away = []; // from the close of a socket until all channels were in force again, in milliseconds

  /** `channels` maps a topic to its bindings: none for a room. */
  constructor({ url, key, user, vsn, channels }) {
    Object.assign(this, { url, key, user, vsn, channels });
  }

  start() {
    this.running = this.run();
  }

  async run() {
    let closed;
    for (let tries = 0; !this.stopped; tries++) {
      try {
        this.socket = new RealtimeSocket(this.url, this.key, { vsn: this.vsn });
        await this.socket.opened;
        await this.joinAll();
        this.joined += 1;
        if (closed) this.away.push(performance.now() - closed);
        tries = 0;
      } catch (error) {
        if (!this.stopped && !/has closed|ECONNREFUSED/.test(error.message)) this.faults.push(error.message);
        this.socket.ws.terminate();
      }
      const close = await this.socket.closed;
      if (this.stopped) return;
      if (!tries) closed = performance.now();
      this.closes.push(close);
      const most = BACK_OFF_MS[Math.min(tries, BACK_OFF_MS.length - 1)];
      await pause(most / 2 + (Math.random() * most) / 2);
    }
  }

  async joinAll() {
    for (const [topic, bindings] of Object.entries(this.channels)) {
      const config = { broadcast: { self: true }, presence: { key: '', enabled: false }, postgres_changes: bindings, private: false };
      const { status, response } = await this.socket.join(topic, { config, access_token: this.user.token });
      if (status !== 'ok') throw new Error(`${topic}: ${JSON.stringify(response)}`);
      const told = response.postgres_changes ?? [];
      const same = bindings.length === told.length && bindings.every((binding, index) => ['event', 'schema', 'table', 'filter'].every((name) => binding[name] === told[index][name]));
      if (!same) throw new Error(`${topic}: mismatch between server and client bindings: ${JSON.stringify(told)}`);
      if (!bindings.length) continue;
      const { payload } = await this.socket.event(topic, 'system');
      if (payload.status !== 'ok') throw new Error(`${topic}: ${payload.message}`);
    }
  }

  async stop() {
    this.stopped = true;
    this.socket.ws.close(1000);
    await this.running;
  }
}

/** The same for a real supabase-js client: it does all this by itself; here it is only counted. `connect` makes one. */
export class SdkMover {
  closes = [];
  faults = [];
  away = [];
  joins = 0;

  constructor({ version, connect, user, channels }) {
    Object.assign(this, { version, connect, user, channels });
  }

  get joined() {
    return Math.floor(this.joins / Object.keys(this.channels).length);
  }

  async start() {
    const client = await this.connect();
    if (this.stopped) return;
    this.client = client;
    const current = () => !this.stopped && this.client === client;
    const closed = ({ code, reason }) => {
      if (!current()) return;
      this.closes.push({ code, reason });
      this.closed ??= performance.now();
      // 2.49 connects again after a lost socket but never joins its channels again, directly or through Cutover: whoever uses it has to
      // begin anew.
      if (this.version === '2.49') setTimeout(() => (client.realtime.disconnect(), this.start()), BACK_OFF_MS[0]);
    };
    client.realtime.stateChangeCallbacks.close.push(this.version === 'current' ? ['mover', closed] : closed); // Phoenix keeps pairs
    for (const [topic, bindings] of Object.entries(this.channels)) {
      const channel = client.channel(topic.replace('realtime:', ''));
      for (const binding of bindings) channel.on('postgres_changes', binding, () => {});
      channel.subscribe((status, error) => {
        if (!current()) return;
        if (status === 'SUBSCRIBED') this.count();
        // A closed socket is told as an error without words of the server's; a mismatch has them.
        if (error && /mismatch|binding/.test(error.message)) this.faults.push(`${status}: ${error.message}`);
      });
    }
  }

  count() {
    this.joins += 1;
    if (!this.closed || this.joins % Object.keys(this.channels).length) return;
    this.away.push(performance.now() - this.closed);
    this.closed = undefined;
  }

  stop() {
    this.stopped = true;
    this.client?.realtime.disconnect();
  }
}
