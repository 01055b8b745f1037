// The demo: two real Supabase-compatible projects, forty real supabase-js users who only know Cutover's address, and one number.
// It goes 0 → 10 → 50 → 100 → 0 while they work; a table tells who served whom. Then two of them sign in again, subscribe and upload,
// and are moved while they listen (services.mjs). Then it stays up for the reader to try.

import { randomUUID } from 'node:crypto';
import { bucket, side } from '../tests/e2e/lib/bucket.mjs';
import { watchedClient } from '../tests/e2e/lib/clients.mjs';
import { startCutover } from '../tests/e2e/lib/cutover.mjs';
import { lastOldDecision, Load, Timeline } from '../tests/e2e/lib/load.mjs';
import { cutoverBinary } from '../tests/e2e/lib/paths.mjs';
import { startStack } from '../tests/e2e/lib/stack.mjs';
import { pause } from '../tests/e2e/lib/until.mjs';
import { SECTIONS, showServices } from './services.mjs';

const USERS = 40;
const PRODUCTS = 40; // rows of a table that everybody may read, the same on both projects
const PAUSE_MS = 200; // between two requests of one user
const STEP_SECONDS = 4;
const STEPS = [0, 10, 50, 100, 0];
const PREFERRED_PORTS = [8000, 8001];
const leave = process.env.DEMO_EXIT === '1';

const coloured = process.stdout.isTTY && !process.env.NO_COLOR;
const paint = (code) => (text) => (coloured ? `\x1b[${code}m${text}\x1b[0m` : String(text));
const [bold, dim, red, green] = [1, 2, 31, 32].map(paint);
const say = (text = '') => console.log(text);

/** One user: signs up through Cutover, then reads and writes in the old dialect until told to stop. */
class User {
  constructor(proxy, key, watch) {
    this.client = watchedClient(proxy.url, key, (sample) => sample.path.startsWith('/rest/') && watch({ ...sample, user: this.id }));
  }

  async signUp() {
    this.credentials = { email: `demo-${randomUUID()}@example.com`, password: randomUUID() };
    const { data, error } = await this.client.auth.signUp(this.credentials);
    if (error) throw error;
    this.id = data.user.id;
    this.token = data.session.access_token;
  }

  async work(running, complain) {
    const calls = [
      () => this.client.from('products').select('id,name').order('name'),
      () => this.client.from('vendor_organizations').select('name,vendor_api_keys(name)'),
      () => this.client.from('usage_tracking').insert({ event: 'demo' }),
      () => this.client.rpc('match_memories', { query_embedding: '[1,0,0]', match_threshold: 0.1, match_count: 3 }),
    ];
    for (let turn = 0; running(); turn++) {
      const { data, error } = await calls[turn % calls.length](); // an error is in the samples already
      if (turn % calls.length === 0 && !error && data.length !== PRODUCTS) complain(`user ${this.id} was shown ${data.length} products, not ${PRODUCTS}`);
      await pause(PAUSE_MS);
    }
  }
}

/** What has gone wrong so far; the demo's exit code. */
const faults = [];
let samples = [];

say(bold('Cutover: two projects, forty users, one number'));
const stack = await startStack();
stack.processes.exitOnSignal = leave ? undefined : 0;

const proxy = await startCutover(stack.processes, stack, { ports: PREFERRED_PORTS, sections: SECTIONS });
const key = stack.old.anonKey;
say(`  OLD      ${stack.old.url}   everything in one schema, public`);
say(`  NEW      ${stack.new.url}   the same rows in a schema per domain, some tables renamed`);
say(`  Cutover  ${proxy.url}   ${dim('the only address that the users know')}`);

const timeline = new Timeline(0);
const users = Array.from({ length: USERS }, () => new User(proxy, key, (sample) => samples.push(sample)));
for (let i = 0; i < USERS; i += 8) await Promise.all(users.slice(i, i + 8).map((user) => user.signUp()));
say(`  ${USERS} users have signed up through Cutover with supabase-js and are at work\n`);

let working = true;
const work = users.map((user) => user.work(() => working, (fault) => faults.push(fault)));
const ruler = new Load({ url: proxy.url, key, users });

say(dim('  rollout   users old  users new   req/s old  req/s new   errors   last old decision after the change'));
let at = 0;
for (const percentage of STEPS) await step(percentage);
await showServices({ proxy, key, users, move, say, bold, dim, faults });
judge();
conclude();

if (leave) {
  await end();
  process.exit(faults.length ? 1 : 0);
}
invite();
await follow();

/** Sets the percentage through the admin API, lets the users work for a while, prints a line. */
async function step(percentage) {
  const delay = percentage === at ? undefined : await move(percentage);
  await observe(percentage, delay);
}

/** Sets the percentage. Returns the time from there to the last request that the old one decided, in milliseconds. */
async function move(percentage) {
  const change = timeline.begin(percentage);
  let over = false;
  const probing = ruler.probe(() => over);
  await proxy.setPercentage(percentage);
  change.acknowledged = performance.now();
  over = true;
  const { epoch } = await proxy.rollout();
  at = percentage;
  return lastOldDecision(change, await probing, epoch);
}

/** What is wrong with the requests since it was asked last; adds it to the faults. */
function judge() {
  const wrong = [...samples, ...ruler.samples].map((sample) => timeline.fault(sample)).filter(Boolean);
  faults.push(...wrong);
  samples = [];
  ruler.samples = [];
  return wrong;
}

/** Watches the users for one step and judges every request of it and of the change before it. */
async function observe(percentage, delay) {
  const begun = performance.now();
  await pause(STEP_SECONDS * 1000);
  const steady = samples.filter((sample) => sample.sent >= begun);
  const seconds = (performance.now() - begun) / 1000;
  const wrong = judge();
  const count = { old: 0, new: 0 };
  const home = { old: new Set(), new: new Set() };
  for (const sample of steady.filter(({ side: served }) => served in count)) {
    count[sample.side]++;
    home[sample.side].add(sample.user);
  }
  for (const user of users) {
    if (!home[side(user.id, percentage)].has(user.id)) faults.push(`user ${user.id} was not served by ${side(user.id, percentage)} at ${percentage} %`);
  }
  const cells = [
    bold(`${percentage} %`.padStart(8)),
    String(home.old.size).padStart(11),
    String(home.new.size).padStart(11),
    (count.old / seconds).toFixed(0).padStart(12),
    (count.new / seconds).toFixed(0).padStart(11),
    (wrong.length ? red : green)(String(wrong.length).padStart(9)),
    delay === undefined ? '' : `   ${delay.toFixed(1)} ms`,
  ];
  say(cells.join(''));
}

function conclude() {
  if (faults.length) {
    say(red(`\n  ${faults.length} expectations did not hold:`));
    for (const fault of faults.slice(0, 10)) say(`    ${fault}`);
  } else {
    say(green('\n  Everybody was served by the side that the hash says, at every step, and no request failed.'));
  }
}

function invite() {
  const [first] = [...users].sort((a, b) => bucket(a.id) - bucket(b.id)); // the one who moves at the lowest percentage
  say(`
${bold('It is yours now')} (Ctrl-C ends everything and leaves nothing behind)
  SUPABASE_URL        ${proxy.url}
  SUPABASE_ANON_KEY   ${key}
  console, metrics    ${proxy.adminUrl}/   ${proxy.adminUrl}/metrics

  Ask as one of the users, who moves above ${(bucket(first.id) / 100).toFixed(2)} % (bucket and side are in the headers):
    curl -i '${proxy.url}/rest/v1/products?select=name&limit=3' -H 'apikey: ${key}' -H 'Authorization: Bearer ${first.token}'

  Move them, in any of these ways; a line appears here:
    ${cutoverBinary()} rollout set 25 --reason 'trying it' --config ${proxy.configPath}
    curl -X PUT ${proxy.adminUrl}/rollout -d '{"percentage":25,"reason":"trying it"}'
    edit "percentage" in ${proxy.configPath}
`);
}

/** Prints a line whenever the reader has moved the number. */
async function follow() {
  for (;;) {
    await pause(300);
    const now = (await proxy.rollout()).percentage;
    if (now === at) {
      samples = [];
      continue;
    }
    at = now;
    Object.assign(timeline.begin(now), { begun: -Infinity, acknowledged: performance.now() });
    await observe(now);
  }
}

async function end() {
  working = false;
  await Promise.all(work);
  await ruler.stop();
  await proxy.stop();
  await stack.stop();
}
