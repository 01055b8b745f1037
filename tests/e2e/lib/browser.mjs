// A page in a real headless Chromium, served from an address of its own, so that every request it makes to Cutover is cross-origin.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import * as paths from './paths.mjs';

const PAGE = join(paths.E2E, 'page');
const FILES = {
  '/': [join(PAGE, 'index.html'), 'text/html'],
  '/app.mjs': [join(PAGE, 'app.mjs'), 'text/javascript'],
  '/tus.js': [join(paths.E2E, 'node_modules/tus-js-client/dist/tus.min.js'), 'text/javascript'],
  '/supabase.js': [join(paths.E2E, 'node_modules/@supabase/supabase-js/dist/umd/supabase.js'), 'text/javascript'],
};
// No sandbox, because tests run as root on CI; nothing that looks for hosts outside this machine.
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

/**
 * Opens the page. Returns { page, exchanges, preflights, faults, close }: every request that the page made (but for its own files) with
 * its method, path, status and the project that answered, what the browser asked before, and everything that it found wrong.
 */
export async function openPage() {
  const server = createServer((request, response) => {
    const [file, type] = FILES[request.url] ?? [];
    if (!file) return response.writeHead(request.url === '/favicon.ico' ? 204 : 404).end();
    response.writeHead(200, { 'content-type': type }).end(readFileSync(file));
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  const browser = await chromium.launch({ executablePath: paths.chromium(), args: FLAGS });
  const page = await browser.newPage();
  const [exchanges, faults, preflights, closing] = [[], [], [], { now: false }];
  const origin = `http://127.0.0.1:${server.address().port}`;
  page.on('response', (response) => {
    const url = new URL(response.url());
    if (url.origin !== origin) exchanges.push({ method: response.request().method(), path: url.pathname, status: response.status(), project: response.headers()['x-e2e-project'], at: performance.now() });
  });
  const devtools = await page.context().newCDPSession(page); // playwright itself does not tell of preflights
  await devtools.send('Network.enable');
  devtools.on('Network.requestWillBeSent', ({ initiator, request }) => initiator.type === 'preflight' && preflights.push(`${request.method} ${new URL(request.url).pathname}`));
  page.on('requestfailed', (request) => closing.now || faults.push(`${request.method()} ${request.url()}: ${request.failure().errorText}`));
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && faults.push(`console: ${message.text()}`));
  await page.goto(`${origin}/`);
  await page.waitForFunction(() => window.app);
  return {
    page,
    exchanges,
    preflights,
    faults,
    close: async () => {
      closing.now = true;
      await browser.close();
      server.close();
    },
  };
}
