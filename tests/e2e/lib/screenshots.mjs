// The pictures of docs/console.md: both projects, forty users at work, and a number that goes up while the charts fill.
//   node screenshots.mjs [seconds of traffic, 290]

import { statSync } from 'node:fs';
import { join } from 'node:path';
import { watchedClient } from './clients.mjs';
import { openBrowser, openConsole, signIn } from './console.mjs';
import { startCutover } from './cutover.mjs';
import { REPOSITORY } from './paths.mjs';
import { writeSmall } from './png.mjs';
import { startStack } from './stack.mjs';
import { pause } from './until.mjs';
import { MEMBERS } from './users.mjs';

const SECONDS = Number(process.argv[2] ?? 290);
const TOKEN = 'a-token-for-the-pictures';
const PAUSE_MS = 450;
const LARGEST = 200_000;
const STEPS = [[0.2, 10, 'week 1: vendors have agreed'], [0.6, 50, 'week 2: a week at 10 % without a complaint']];
const PICTURES = {
  'console-light': { viewport: { width: 1360, height: 1240 } },
  'console-dark': { viewport: { width: 1360, height: 1240 }, colorScheme: 'dark' },
  'console-phone': { viewport: { width: 360, height: 1240 }, hasTouch: true },
};

const stack = await startStack();
const proxy = await startCutover(stack.processes, stack, { name: 'config', adminToken: TOKEN, rollout: { 'pins.new': [MEMBERS[3].id] } });
const browser = await openBrowser();
let working = true;
const work = [...MEMBERS.map(atWork), robot()];
const operator = await openConsole(browser, proxy);
await signIn(operator.page, TOKEN);
try {
  const begun = performance.now();
  const until = (share) => pause(Math.max(0, begun + share * SECONDS * 1000 - performance.now()));
  for (const [share, percentage, reason] of STEPS) {
    await until(share);
    await changeTo(percentage, reason);
  }
  await until(1);
  const taken = [];
  for (const [name, options] of Object.entries(PICTURES)) taken.push([name, await picture(name, options)]);
  for (const [name, png] of taken) write(name, png); // at the end: it is work, and would show in the traffic
} finally {
  working = false;
  await Promise.all(work);
  await browser.close();
  await proxy.stop();
  await stack.stop();
}

/** One user: reads and writes in the old dialect, each at a pace of their own. */
async function atWork({ token }, index) {
  const client = watchedClient(proxy.url, stack.old.anonKey, () => {});
  client.rest.headers.set ? client.rest.headers.set('authorization', `Bearer ${token}`) : (client.rest.headers.authorization = `Bearer ${token}`);
  const calls = [
    () => client.from('products').select('id,name').order('name'),
    () => client.from('memory_entries').select('id').limit(5),
    () => client.from('vendor_organizations').select('name,vendor_api_keys(name)'),
    () => client.from('memory_entries').select('id').limit(1),
    () => client.from('usage_tracking').insert({ event: 'picture' }),
    () => client.rpc('match_memories', { query_embedding: '[1,0,0]', match_threshold: 0.1, match_count: 3 }),
  ];
  await pause((index * PAUSE_MS) / MEMBERS.length);
  for (let turn = index; working; turn++) {
    await calls[turn % calls.length]();
    await pause(PAUSE_MS * (0.7 + 0.3 * Math.sin(performance.now() / 20_000)));
  }
}

/** Whoever is no user of the percentage: a back end with a service key, a visitor, and auth, which has an owner. */
async function robot() {
  const service = watchedClient(proxy.url, stack.old.serviceKey, () => {});
  const visitor = watchedClient(proxy.url, stack.old.anonKey, () => {});
  while (working) {
    await service.from('usage_tracking').select('id').limit(1);
    await visitor.from('products').select('id').limit(1);
    await fetch(`${proxy.url}/auth/v1/settings`, { headers: { apikey: stack.old.anonKey } });
    await pause(PAUSE_MS);
  }
}

/** As an operator does it. */
async function changeTo(percentage, reason) {
  const { page } = operator;
  await page.getByLabel('Percentage on New').fill(String(percentage));
  await page.locator('#change-open').click();
  await page.locator('#change-reason').fill(reason);
  await page.locator('#change-confirm').click();
}

async function picture(name, options) {
  const { page, close } = await openConsole(browser, proxy, options);
  await signIn(page, TOKEN);
  await page.getByLabel('Percentage on New').fill('100');
  await page.getByLabel('User id').fill(MEMBERS[0].id);
  await page.getByLabel(/^Path/).fill('/rest/v1/vendor_organizations?select=name,vendor_api_keys(name)');
  await page.getByRole('button', { name: 'Explain' }).click();
  await page.locator('.answer').waitFor();
  await page.mouse.move(0, 0);
  await page.evaluate(() => {
    document.activeElement.blur();
    scrollTo(0, 0);
  });
  const clip = name.endsWith('phone') ? undefined : { x: 0, y: 0, width: options.viewport.width, height: await page.evaluate(() => document.documentElement.scrollHeight) };
  const png = await page.screenshot({ fullPage: !name.endsWith('phone'), clip });
  await close();
  return png;
}

function write(name, png) {
  const file = join(REPOSITORY, 'docs', `${name}.png`);
  writeSmall(file, png);
  const { size } = statSync(file);
  console.log(`docs/${name}.png: ${Math.round(size / 1000)} kB`);
  if (size > LARGEST) throw new Error(`${file} is larger than ${LARGEST} bytes`);
}
