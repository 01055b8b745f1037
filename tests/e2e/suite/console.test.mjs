// The console in a real browser: an operator signs in, sees the number, changes it and sees a user move, aborts and resumes; with the
// keyboard alone; on a phone and in the dark; with nothing for axe to complain about; and no other page can do any of it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { createClient } from '@supabase/supabase-js';
import { openBrowser, openConsole, otherOrigin, PHONE, signIn, violations } from '../lib/console.mjs';
import { Load } from '../lib/load.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';
import { until } from '../lib/until.mjs';
import { membersOn, newUsers } from '../lib/users.mjs';

const TOKEN = 'a-token-for-the-console-5b1e';
const proxy = await cutover({ adminToken: TOKEN, percentage: 10 });
const browser = await openBrowser();
after(() => browser.close());

const load = new Load({ url: proxy.url, key: stack.old.anonKey, users: newUsers(40), perSecond: 60 });
load.start();
after(() => load.stop());

/** A user who is on old at 10 % and on new at 50 %, with a supabase-js client of his own that tells who answered. */
const mover = membersOn('old', 10, 40).find(({ bucket }) => bucket < 5000);
async function servedBy({ token }) {
  let served;
  const client = createClient(proxy.url, stack.old.anonKey, {
    auth: { persistSession: false },
    global: {
      headers: { authorization: `Bearer ${token}` },
      fetch: async (...request) => {
        const response = await fetch(...request);
        served = response.headers.get('x-e2e-project');
        return response;
      },
    },
  });
  const { error } = await client.from('products').select('id');
  assert.equal(error, null);
  return served;
}

const percentageOf = (page) => page.locator('#percentage').innerText();
const shows = (page, text) => until(`${text} %`, async () => (await percentageOf(page)) === text);

async function explained(page, id) {
  await page.getByLabel('User id').fill(id);
  await page.getByRole('button', { name: 'Explain' }).click();
  const answer = page.locator(`.answer[data-user="${id}"]`);
  await answer.waitFor();
  return answer;
}

async function changeTo(page, percentage, reason) {
  await page.getByLabel('Percentage on New').fill(String(percentage));
  await page.locator('#change-open').click();
  await page.locator('#change-reason').fill(reason);
  await page.locator('#change-confirm').click();
  await shows(page, String(percentage));
}

test('a wrong token is refused, the right one signs in, and signing out ends it', async () => {
  const { page, faults, close } = await openConsole(browser, proxy, { expected: /401/ });
  await page.getByLabel('Admin token').fill('wrong');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').filter({ hasText: 'CUTA401' }).waitFor();
  assert.equal(await page.locator('#console').isVisible(), false);
  await signIn(page, TOKEN);
  assert.equal(await percentageOf(page), '10');
  const [cookie] = await page.context().cookies();
  assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.path], [true, 'Strict', '/']);
  await page.reload();
  await page.locator('#now tr').first().waitFor(); // the session outlives the page
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByLabel('Admin token').waitFor();
  assert.equal((await page.context().cookies()).length, 0);
  await page.reload();
  await page.getByLabel('Admin token').waitFor();
  assert.deepEqual(faults, []);
  assert.ok(!proxy.log().includes(TOKEN) && proxy.log().includes('login refused'));
  await close();
});

test('the number is changed with a reason, and a real user moves', async () => {
  const { page, faults, elsewhere, close } = await openConsole(browser, proxy);
  await signIn(page, TOKEN);
  assert.equal(await servedBy(mover), 'old');
  assert.equal(await (await explained(page, mover.id)).getAttribute('data-side'), 'old');

  await page.getByRole('button', { name: '50 percent' }).click();
  assert.match(await page.locator('#preview').innerText(), /^4,000 of 10,000 buckets: their users move from Old to New\. Then 5,000 are on New\.$/);
  await page.locator('#change-open').click();
  await page.locator('#change-reason').fill('  ');
  await page.locator('#change-confirm').click();
  await page.getByRole('alert').filter({ hasText: 'say why' }).waitFor();
  assert.equal((await proxy.rollout()).percentage, 10, 'nothing without a reason');
  await page.locator('#change-reason').fill('week 2: vendors agreed');
  await page.locator('#change-confirm').click();
  await shows(page, '50');

  assert.match(readFileSync(proxy.configPath, 'utf8'), /^percentage = 50 /m);
  assert.equal(await servedBy(mover), 'new');
  assert.equal(await (await explained(page, mover.id)).getAttribute('data-side'), 'new');
  await page.getByLabel(/^Path/).fill('/rest/v1/vendor_api_keys?select=name');
  await page.getByRole('button', { name: 'Explain' }).click();
  await page.locator('#explained pre').filter({ hasText: 'accept-profile: vendors' }).waitFor();
  const newest = page.locator('#audit li').first();
  await newest.filter({ hasText: '10 % → 50 %' }).waitFor();
  assert.match(await newest.innerText(), /week 2: vendors agreed\s+console:127\.0\.0\.1/);
  await page.locator('#replicas li').filter({ hasText: '50 %' }).filter({ hasText: `ready · epoch ${(await proxy.rollout()).epoch}` }).waitFor();
  await until('the change said aloud', async () => (await page.locator('#say').textContent()).includes('50 percent'));
  assert.deepEqual([faults, elsewhere], [[], []]);
  await close();
});

test('two pages: the second sees the change of the first, and what was confirmed is what was shown', async () => {
  const [one, two] = await Promise.all([0, 1].map(() => openConsole(browser, proxy, { expected: /412/ })));
  await Promise.all([one, two].map(({ page }) => signIn(page, TOKEN)));
  await two.page.getByLabel('Percentage on New').fill('70');
  await two.page.locator('#change-open').click();
  await changeTo(one.page, 60, 'first');
  await shows(two.page, '60');
  await two.page.locator('#change-reason').fill('second');
  await two.page.locator('#change-confirm').click();
  await two.page.getByRole('alert').filter({ hasText: 'CUTA412' }).waitFor();
  assert.equal((await proxy.rollout()).percentage, 60);
  assert.deepEqual([one.faults, two.faults], [[], []]);
  await Promise.all([one.close(), two.close()]);
});

test('abort puts everybody on old in two key strokes, and resume leaves it', async () => {
  const { page, faults, close } = await openConsole(browser, proxy);
  await signIn(page, TOKEN);
  await page.getByRole('button', { name: 'Abort', exact: true }).focus();
  await page.keyboard.press('Enter');
  await page.keyboard.press('Enter'); // the confirmation has the focus; no reason is asked
  await page.locator('#force').filter({ hasText: 'Everybody is forced to Old' }).waitFor();
  assert.deepEqual([(await proxy.rollout()).force, await servedBy(mover)], ['old', 'old']);
  await page.getByLabel('Percentage on New').fill('50');
  assert.match(await page.locator('#preview').innerText(), /^Resume: nobody is forced to Old any more\. 5,000 of 10,000/);
  await page.getByRole('button', { name: 'Resume…' }).click();
  await page.locator('#change-reason').fill('index added');
  await page.getByRole('button', { name: 'Resume at 50 %' }).click();
  await page.locator('#force').waitFor({ state: 'hidden' });
  assert.deepEqual([(await proxy.rollout()).force, await servedBy(mover)], [null, 'new']);
  assert.deepEqual(faults, []);
  await close();
});

test('with a broken file the faults are shown, and abort still works and says where it is held', async () => {
  const { page, faults, close } = await openConsole(browser, proxy, { expected: /422/ });
  await signIn(page, TOKEN);
  const good = readFileSync(proxy.configPath, 'utf8');
  proxy.editFile((text) => text.replace(/^percentage = .*/m, 'percentage = "many"'));
  await page.locator('.notice.fault').filter({ hasText: 'rollout.percentage' }).waitFor();
  await page.getByRole('button', { name: 'Abort', exact: true }).click();
  await page.locator('#abort-confirm').click();
  await page.locator('#force').filter({ hasText: 'held in the memory of this process' }).waitFor();
  assert.equal(await servedBy(mover), 'old');
  proxy.editFile(() => good);
  await page.locator('.notice.fault').waitFor({ state: 'detached' });
  await changeTo(page, 50, 'mended');
  await page.locator('#force').waitFor({ state: 'hidden' });
  assert.deepEqual(faults, []);
  await close();
});

test('everything can be done with the keyboard alone', async () => {
  const { page, faults, close } = await openConsole(browser, proxy);
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim());
  const press = async (...keys) => {
    for (const key of keys) await page.keyboard.press(key);
  };
  await until('the focus in the login', async () => (await focused()) === 'token');
  await page.keyboard.type(TOKEN);
  await press('Enter');
  await page.locator('#now tr').first().waitFor();
  const order = [];
  for (let i = 0; i < 40 && !order.includes('change-open'); i++) {
    await press('Tab');
    order.push(await focused());
    const outlined = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outlined, 'none', `${order.at(-1)} has the focus and does not show it`);
  }
  for (const stop of ['theme', 'logout', 'abort', '0 %', '100 %', 'target', 'change-open']) assert.ok(order.includes(stop), `${stop} is not among ${order}`);
  await press('Shift+Tab');
  await page.keyboard.type('40');
  await press('Enter');
  assert.equal(await focused(), 'change-reason');
  for (let i = 0; i < 6; i++) {
    await press('Tab');
    // A modal dialog lets the focus go to the browser's own buttons, and to nothing of the page behind it.
    assert.ok(await page.evaluate(() => document.activeElement === document.body || Boolean(document.activeElement.closest('dialog'))), 'the focus left the dialog');
  }
  await press('Escape');
  assert.equal(await focused(), 'target', 'the focus comes back');
  await press('Enter');
  await page.keyboard.type('by keyboard');
  await press('Tab', 'Tab', 'Enter');
  await shows(page, '40');
  assert.deepEqual(faults, []);
  await close();
});

test('the charts move under load, on one scale for both sides', async () => {
  const { page, faults, close } = await openConsole(browser, proxy);
  await signIn(page, TOKEN);
  const rate = async (column) => Number((await page.locator(`#now tr:first-child td:nth-child(${column})`).innerText()).replace(',', ''));
  await until('requests of both sides', async () => (await rate(2)) > 5 && (await rate(3)) > 5);
  const drawn = () => page.locator('.panel.new .line').first().getAttribute('d');
  const before = await drawn();
  await until('the line to move', async () => (await drawn()) !== before);
  const scales = await page.locator('.panel').evaluateAll((panels) => panels.map((panel) => [...panel.querySelectorAll('.tick')].slice(0, 3).map((tick) => tick.textContent).join()));
  assert.equal(scales.length, 6);
  for (const row of [0, 2, 4]) assert.equal(scales[row], scales[row + 1], 'both sides on one scale');
  assert.match(await page.locator('.panel.new svg').first().getAttribute('aria-label'), /^Requests per second, New, last five minutes\. Now \d/);
  await page.locator('#decisions tr').filter({ hasText: 'percentage' }).waitFor();
  await page.locator('#tables tr').filter({ hasText: 'vendor_api_keys' }).or(page.locator('#tables tr').filter({ hasText: 'other' })).first().waitFor();
  // A page that opens later has the past at once.
  const later = await openConsole(browser, proxy, { storageState: await page.context().storageState() });
  await later.page.locator('.panel.old .line').first().waitFor();
  assert.ok((await later.page.locator('.panel.old .line').first().getAttribute('d')).split('L').length > 3);
  assert.deepEqual([faults, later.faults], [[], []]);
  await Promise.all([close(), later.close()]);
});

for (const [name, options] of Object.entries({ desktop: {}, dark: { colorScheme: 'dark' }, phone: { viewport: PHONE, hasTouch: true }, 'phone in the dark': { viewport: PHONE, colorScheme: 'dark' } })) {
  test(`axe finds nothing in any state: ${name}`, async () => {
    const { page, faults, elsewhere, close } = await openConsole(browser, proxy, options);
    const clean = async (state) => assert.deepEqual(await violations(page), [], state);
    await page.getByLabel('Admin token').waitFor();
    await clean('login');
    await signIn(page, TOKEN);
    await page.locator('#audit li').first().waitFor();
    await explained(page, mover.id);
    await clean('main');
    await page.getByLabel('Percentage on New').fill('12.5');
    await page.locator('#change-open').click();
    await clean('change dialog');
    await page.keyboard.press('Escape');
    await page.locator('#abort').click();
    await clean('abort dialog');
    await page.locator('#abort-confirm').click();
    await page.locator('#force:not([hidden])').waitFor();
    await clean('forced');
    await changeTo(page, 50, 'on');
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.equal(wide, 0, 'nothing is wider than the screen');
    await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
    const { y, height } = await page.locator('#abort').boundingBox();
    assert.ok(y >= 0 && y + height <= page.viewportSize().height, 'the abort stays in sight');
    assert.deepEqual([faults, elsewhere], [[], []]);
    await close();
  });
}

test('the theme is the system\'s until the button says another, which is remembered', async () => {
  const { page, faults, close } = await openConsole(browser, proxy);
  await signIn(page, TOKEN);
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await background();
  await page.emulateMedia({ colorScheme: 'dark' });
  const dark = await background();
  assert.notEqual(dark, light);
  await page.getByRole('button', { name: /theme/ }).click();
  assert.equal(await background(), light, 'light, though the system says dark');
  await page.reload();
  await page.locator('#now tr').first().waitFor();
  assert.equal(await background(), light);
  await page.getByRole('button', { name: /theme/ }).click();
  await page.emulateMedia({ colorScheme: 'light' });
  assert.equal(await background(), dark);
  assert.deepEqual([await violations(page), faults], [[], []]);
  await close();
});

test('another page of the same browser can neither change the number nor read it', async () => {
  const { page, context, close } = await openConsole(browser, proxy);
  await signIn(page, TOKEN);
  const before = await proxy.rollout();
  const evil = await otherOrigin('<!doctype html><title>x</title>');
  const stranger = await context.newPage(); // with the operator's cookies
  await stranger.goto(evil.url);
  const tried = await stranger.evaluate(async (admin) => {
    const outcome = (promise) => promise.then((response) => `${response.type} ${response.status}`, () => 'refused');
    const json = JSON.stringify({ percentage: 100, reason: 'evil' });
    return Promise.all([
      outcome(fetch(`${admin}/rollout`, { method: 'PUT', credentials: 'include', headers: { 'x-cutover-console': '1', 'content-type': 'application/json' }, body: json })),
      outcome(fetch(`${admin}/rollout/abort`, { method: 'POST', credentials: 'include', mode: 'no-cors', body: '{}' })),
      outcome(fetch(`${admin}/rollout/abort`, { method: 'POST', credentials: 'include', headers: { 'x-cutover-console': '1' }, body: '{}' })),
      outcome(fetch(`${admin}/status`, { credentials: 'include' })),
      new Promise((done) => {
        const source = new EventSource(`${admin}/events`, { withCredentials: true });
        source.onopen = () => done('open');
        source.onerror = () => done('refused');
      }),
      new Promise((done) => {
        const form = Object.assign(document.createElement('form'), { method: 'POST', action: `${admin}/rollout/abort`, target: 'frame' });
        const frame = Object.assign(document.createElement('iframe'), { name: 'frame', onload: () => done('sent') });
        document.body.append(frame, form);
        form.submit();
      }),
    ]);
  }, proxy.adminUrl);
  assert.deepEqual(tried, ['refused', 'refused', 'refused', 'refused', 'refused', 'sent']);
  assert.deepEqual(await proxy.rollout(), before);
  // Nor can it be put into a frame of another page, to be clicked unseen.
  await stranger.evaluate((admin) => new Promise((done) => {
    const frame = Object.assign(document.createElement('iframe'), { src: admin, onload: done });
    document.body.append(frame);
  }), proxy.adminUrl);
  const framed = stranger.frames().find((frame) => frame.url().startsWith(proxy.adminUrl));
  assert.ok(!framed || !(await framed.locator('#abort').count().catch(() => 0)), 'the console was framed');
  evil.close();
  await close();
});

registered(import.meta);
