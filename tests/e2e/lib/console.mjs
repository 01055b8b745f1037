// The console in a real headless Chromium: opened as an operator opens it, and everything it does watched.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';
import * as paths from './paths.mjs';
import { keep, secret } from './said.mjs';

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

export const DESKTOP = { width: 1440, height: 1000 };
export const PHONE = { width: 360, height: 740 };

export function openBrowser() {
  return chromium.launch({ executablePath: paths.chromium(), args: FLAGS });
}

/**
 * Opens the console of `proxy`. Returns { page, faults, elsewhere, console, close }: what the browser found wrong but for `expected` (a
 * pattern), and every request that went to another origin.
 */
export async function openConsole(browser, proxy, { viewport = DESKTOP, colorScheme = 'light', expected, ...options } = {}) {
  const context = await browser.newContext({ viewport, colorScheme, reducedMotion: 'reduce', ...options });
  await context.addInitScript({ path: AXE });
  const page = await context.newPage();
  const [faults, elsewhere] = [[], []];
  const note = (text) => expected?.test(text) || faults.push(text);
  page.on('request', (request) => new URL(request.url()).origin === proxy.adminUrl || elsewhere.push(request.url()));
  page.on('pageerror', (error) => note(String(error)));
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && note(`${message.text()} ${message.location().url}`));
  await page.goto(`${proxy.adminUrl}/`);
  return {
    page,
    context,
    faults,
    elsewhere,
    close: async () => {
      keep('page', await page.content(), await page.locator('body').innerText());
      await context.close();
    },
  };
}

export async function signIn(page, token) {
  secret(token);
  await page.getByLabel('Admin token').fill(token);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.locator('#now tr').first().waitFor();
}

/** What axe finds in the page as it is, in words: rule, and the elements. */
export async function violations(page) {
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }).then(({ violations: all }) => all.map(({ id, help, nodes }) => ({ id, help, at: nodes.map(({ target }) => target.join(' ')) }))));
  return found;
}

/** Another origin of this machine: the same site for a browser, and so the harder case. Serves one page. */
export async function otherOrigin(html) {
  const server = createServer((_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end(html));
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  return { url: `http://127.0.0.1:${server.address().port}/`, close: () => server.close() };
}
