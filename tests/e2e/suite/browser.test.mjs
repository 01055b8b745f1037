// An application in a real browser, while the percentage goes 0 → 50 → 100 → 0 under it: signed in, subscribed, writing rows, uploading
// files (one of them in parts) and reading them back, cross-origin. It must notice nothing but that its socket was moved.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { side } from '../lib/bucket.mjs';
import { openPage } from '../lib/browser.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';
import { until } from '../lib/until.mjs';

const SECTIONS = `
[storage.buckets]
artifacts = "artifacts/growth"
[realtime]
drain = "500ms"
`;
const proxy = await cutover({ sections: SECTIONS });

test('a page works on through every change of the percentage', async () => {
  const { page, exchanges, preflights, faults, close } = await openPage();
  after(close);
  const app = (expression) => page.evaluate(`app.${expression}`);
  const person = { email: `page-${randomUUID()}@example.com`, password: 'correct horse battery staple' };
  const id = await page.evaluate(([url, key, who]) => app.begin(url, key, who), [proxy.url, stack.old.anonKey, person]);

  let changes = 0;
  for (const percentage of [0, 50, 100, 0]) {
    await proxy.setPercentage(percentage);
    const changed = performance.now();
    const where = side(id, percentage);
    const [begun, written, known] = [await app('rounds'), await app('rows.length'), await app('events.length')];
    const wrong = async () => [...(await app('faults')), ...faults];
    await until(`three whole rounds at ${percentage} %`, async () => (await app('rounds')) > begun + 3 || (await wrong()).length, { seconds: 20 });
    // The event of a row that was written after the change can only have come from the project that has the row.
    await until(`row events at ${percentage} %`, async () => (await page.evaluate(([from, since]) => app.events.slice(since).some((title) => app.rows.slice(from).some((row) => row.title === title)), [written + 1, known])) || (await wrong()).length, { seconds: 20 });
    assert.deepEqual(await wrong(), [], `at ${percentage} %`);

    if (changes++ === 0) await app('beginLargeFile()');
    if (percentage === 100) await app('finishLargeFile()'); // begun at 0 %

    const failed = exchanges.filter(({ status, path }) => status >= 400 || status === 0 || path === undefined);
    assert.deepEqual(failed, []);
    // What was sent a whole round after the change was decided by the new number; reads may have been found on the other side.
    const writes = exchanges.filter(({ at, method, path }) => at > changed && method === 'POST' && !path.startsWith('/auth/') && !path.startsWith('/storage/v1/upload/'));
    const served = new Set(writes.slice(2).map(({ project }) => project));
    assert.deepEqual([...served], [where], `at ${percentage} %`);
  }

  const statuses = await app('statuses');
  assert.equal(statuses[0], 'SUBSCRIBED');
  assert.ok(statuses.filter((status) => status === 'SUBSCRIBED').length >= 3, `the socket was moved to new and back: ${statuses}`);
  // It was cross-origin in earnest: the browser asked the proxy before each kind of request, and was allowed to.
  for (const path of ['/auth/v1/token', '/rest/v1/memory_entries', '/storage/v1/upload/resumable', `/storage/v1/object/artifacts/${id}/page/0.txt`]) assert.ok(preflights.includes(`OPTIONS ${path}`), path);
  await app('end()');
  assert.deepEqual([...(await app('faults')), ...faults], []);
});

registered(import.meta);
