// The demo's closer look: two of its users on another device, signed in with their passwords, subscribed, uploading. They are moved
// while they listen: what happens to their sockets, and who serves them the next row and each other's files?

import { randomUUID } from 'node:crypto';
import { bucket, side } from '../tests/e2e/lib/bucket.mjs';
import { watchedClient } from '../tests/e2e/lib/clients.mjs';
import { until } from '../tests/e2e/lib/until.mjs';

const SECONDS = 15; // the longest back-off of a client, and some

/** What the two need of Cutover's configuration. */
export const SECTIONS = `
[storage.buckets]
artifacts = "artifacts/growth"

[realtime]
drain = "1s"
`;

/** A signed-in device of a demo user, whose every answer and every socket is looked at. */
class Device {
  events = []; // { title, at }
  sockets = []; // { opened, closed, code }
  statuses = []; // of the subscription: { status, at }

  constructor(proxy, key, user) {
    const { sockets } = this;
    class Socket extends WebSocket {
      constructor(...args) {
        super(...args);
        const socket = { opened: performance.now() };
        sockets.push(socket);
        this.addEventListener('close', ({ code }) => Object.assign(socket, { code, closed: performance.now() }));
      }
    }
    this.user = user;
    this.client = watchedClient(proxy.url, key, ({ project }) => (this.served = project), { realtime: { transport: Socket } });
  }

  async signIn() {
    good(await this.client.auth.signInWithPassword(this.user.credentials));
    return this.served;
  }

  /** Resolves when the rows of this user are known to be watched. */
  listen() {
    return new Promise((watched) => {
      this.client
        .channel('memories')
        .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'memory_entries' }, ({ new: row }) => this.events.push({ title: row.title, at: performance.now() }))
        .on('system', {}, ({ status }) => status === 'ok' && watched(this.statuses.push({ status, at: performance.now() })))
        .subscribe();
    });
  }

  /** Writes rows until one of them is heard of. Returns the project that it was written to, and so heard from. */
  async hear() {
    const written = new Map();
    return until('a row to be heard of', async () => {
      const title = randomUUID();
      good(await this.client.from('memory_entries').insert({ title }));
      written.set(title, this.served);
      const told = () => this.events.find((event) => written.has(event.title));
      await until('its event', told, { seconds: 1 }).catch(() => {});
      return told() && written.get(told().title);
    }, { seconds: SECONDS });
  }

  async upload(text) {
    good(await this.client.storage.from('pictures').upload(`${this.user.id}/hello.txt`, new Blob([text], { type: 'text/plain' }), { upsert: true }));
    return this.served;
  }

  /** Another user's file, and who had it. */
  async read(other) {
    const text = await good(await this.client.storage.from('pictures').download(`${other.id}/hello.txt`)).text();
    return { text, from: this.served };
  }

  async leave() {
    await this.client.removeAllChannels();
    await this.client.realtime.disconnect();
  }
}

/**
 * Shows two of `users`, one of each side at 50 %. `move` sets the percentage; `say`, `bold` and `dim` print; what is not as it should be
 * goes to `faults`.
 */
export async function showServices({ proxy, key, users, move, say, bold, dim, faults }) {
  const expect = (what, found, wanted) => found === wanted || faults.push(`${what}: ${found}, not ${wanted}`);
  await move(50);
  const people = ['old', 'new'].map((where) => users.find(({ id }) => side(id, 50) === where));
  const devices = people.map((user) => new Device(proxy, key, user));
  const name = ({ user }) => `user ${user.id.slice(-4)}`;

  say(bold('\n  Two of them on a second device, at 50 %'));
  say(dim('  user        moves above   signs in   hears a row from   uploads to   reads the other’s file from'));
  const rows = [];
  for (const device of devices) {
    const row = { auth: await device.signIn() };
    await device.listen();
    row.rows = await device.hear();
    row.files = await device.upload(`from ${name(device)}`);
    rows.push(row);
  }
  for (const [index, device] of devices.entries()) {
    const [row, where, other] = [rows[index], side(device.user.id, 50), devices[1 - index]];
    const { text, from } = await device.read(other.user);
    expect(`${name(device)} signs in with`, row.auth, 'old'); // the owner of auth
    expect(`${name(device)} hears from`, row.rows, where);
    expect(`${name(device)} uploads to`, row.files, where);
    expect(`${name(device)} reads`, `${text} ${from}`, `from ${name(other)} ${side(other.user.id, 50)}`);
    const above = `${(bucket(device.user.id) / 100).toFixed(2)} %`;
    say(`  ${name(device)} ${above.padStart(13)} ${row.auth.padStart(10)} ${row.rows.padStart(18)} ${row.files.padStart(12)} ${from.padStart(29)}`);
  }

  for (const [from, to] of [[50, 100], [100, 0]]) {
    say(bold(`\n  ${from} % → ${to} %`) + dim(', while both are listening'));
    const before = devices.map(({ sockets, statuses }) => [sockets.length, statuses.length]);
    await move(to);
    for (const [index, device] of devices.entries()) await follow(device, before[index], { from, to, name: name(device), say, expect });
  }
  await Promise.all(devices.map((device) => device.leave()));
}

/** What a change did to one device: moved, with close code 1012, or not touched at all. */
async function follow(device, [sockets, statuses], { from, to, name, say, expect }) {
  const [was, is] = [side(device.user.id, from), side(device.user.id, to)];
  let told = `its socket stays where it is, on ${is}`;
  if (was !== is) {
    await until(`${name} to be subscribed on the other side`, () => device.statuses.length > statuses, { seconds: SECONDS });
    const { code, closed } = device.sockets[sockets - 1];
    expect(`close code of ${name}`, code, 1012);
    told = `its socket is closed with ${code}; subscribed on ${is} ${((device.statuses.at(-1).at - closed) / 1000).toFixed(1)} s later`;
  }
  const heard = await device.hear();
  expect(`${name} hears from`, heard, is);
  if (was === is) expect(`sockets of ${name}`, device.sockets.length, sockets);
  say(`  ${name}   ${told}; the next row is heard from ${heard}`);
}

function good({ data, error }) {
  if (error) throw error;
  return data;
}
