// Steady load, and the verdict over it: for every request, which percentages were in force between its sending and its answer, and
// was it served by a side that one of them gives for its user?

import { Agent, request as httpRequest } from 'node:http';
import { side } from './bucket.mjs';
import { until } from './until.mjs';

const PROBES_AT_ONCE = 16;
const PROBE_EVERY_MS = 0.25;

/** One REST request that says who served it. Never rejects: a failure is a sample with `failure`. */
export function ask(agent, baseUrl, key, user) {
  const { hostname, port } = new URL(baseUrl);
  const sample = { user: user.id, sent: performance.now() };
  return new Promise((resolve) => {
    const finish = (more) => resolve(Object.assign(sample, { done: performance.now() }, more));
    const headers = { apikey: key, authorization: `Bearer ${user.token}` };
    const request = httpRequest({ hostname, port, agent, path: '/rest/v1/rpc/which_project', headers }, async (response) => {
      try {
        const text = Buffer.concat(await response.toArray()).toString();
        const told = { status: response.statusCode, side: response.headers['x-cutover-side'], epoch: Number(response.headers['x-cutover-epoch']), project: response.headers['x-e2e-project'] };
        finish(response.statusCode === 200 ? { ...told, answered: JSON.parse(text) } : { ...told, failure: `status ${response.statusCode}: ${text}` });
      } catch (error) {
        finish({ failure: error.message });
      }
    });
    request.on('error', (error) => finish({ failure: error.message }));
    request.setTimeout(10_000, () => request.destroy(new Error('no answer in 10 s')));
    request.end();
  });
}

export class Load {
  samples = [];
  pending = new Set();
  agent = new Agent({ keepAlive: true });

  constructor({ url, key, users, perSecond }) {
    Object.assign(this, { url, key, users, perSecond });
  }

  /** All users in turn, `perSecond` requests in all, whether or not earlier ones have been answered. */
  start() {
    const began = performance.now();
    let count = 0;
    this.timer = setInterval(() => {
      const due = ((performance.now() - began) / 1000) * this.perSecond;
      for (; count < due; count++) this.send(this.users[count % this.users.length]);
    }, 5);
  }

  send(user) {
    const exchange = ask(this.agent, this.url, this.key, user).then((sample) => {
      this.samples.push(sample);
      this.pending.delete(exchange);
      return sample;
    });
    this.pending.add(exchange);
    return exchange;
  }

  /** Requests in a close row until `over()`: the fine ruler that a change is measured with. */
  async probe(over) {
    const probes = [];
    for (let waiting = 0, last = -Infinity, turn = 0; !over(); await new Promise(setImmediate)) {
      if (waiting >= PROBES_AT_ONCE || performance.now() - last < PROBE_EVERY_MS) continue;
      waiting++;
      last = performance.now();
      const probe = this.send(this.users[turn++ % this.users.length]);
      probe.then(() => waiting--);
      probes.push(probe);
    }
    return Promise.all(probes);
  }

  /** Resolves when `count` further requests have been sent and answered. */
  async settle(count) {
    const now = performance.now();
    await until(`${count} more answers`, () => this.samples.slice(-4 * count).filter((sample) => sample.sent > now).length >= count, { everyMs: 5 });
  }

  async stop() {
    clearInterval(this.timer);
    await Promise.all(this.pending);
    this.agent.destroy();
  }
}

/** The percentages over time: when each change was begun and when it was acknowledged. */
export class Timeline {
  changes = [];

  constructor(percentage) {
    this.changes.push({ percentage, begun: -Infinity, acknowledged: -Infinity });
  }

  begin(percentage) {
    const change = { percentage, begun: performance.now(), acknowledged: Infinity };
    this.changes.push(change);
    return change;
  }

  /** The percentages that a request may have met: the last acknowledged before it was sent, and every one begun before it was answered. */
  inForce({ sent, done }) {
    const first = this.changes.findLastIndex((change) => change.acknowledged <= sent);
    return this.changes.slice(first).filter((change) => change.begun <= done).map((change) => change.percentage);
  }

  /** What is wrong with a sample, or undefined. */
  fault(sample) {
    if (sample.failure) return sample.failure;
    if (sample.side !== sample.project) return `header says ${sample.side}, but ${sample.project} answered`;
    if (sample.answered && sample.answered !== sample.project) return `${sample.project} answered ${sample.answered}`;
    const percentages = this.inForce(sample);
    if (!percentages.some((percentage) => side(sample.user, percentage) === sample.side)) return `on ${sample.side} at ${percentages.join(' or ')} %`;
    return undefined;
  }
}

/** How long after `change` began was the last of these requests sent that was still decided by an older epoch? 0 if none was. */
export function lastOldDecision(change, probes, newEpoch) {
  const late = probes.filter((probe) => probe.epoch < newEpoch && probe.sent > change.begun);
  return late.length ? Math.max(...late.map((probe) => probe.sent - change.begun)) : 0;
}

/** The usual gap between two probes: a delay cannot be told more finely than this. */
export function resolution(probes) {
  const times = probes.map((probe) => probe.sent).sort((a, b) => a - b);
  return distribution(times.slice(1).map((time, index) => time - times[index])).p50;
}

export function distribution(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  return { count: sorted.length, p50: at(0.5), p90: at(0.9), max: sorted.at(-1) };
}
