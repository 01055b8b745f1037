// All that the page asks of the proxy.

/** A refusal, in the proxy's own words. */
export class Refused extends Error {
  constructor(status, { code, message, details, hint } = {}) {
    super(message ?? `the proxy answered ${status}`);
    Object.assign(this, { status, code: code ?? `HTTP ${status}`, details, hint });
  }
}

let signedOut = () => {};
/** Who is told when the session is over. */
export function onSignedOut(callback) {
  signedOut = callback;
}

/** Asks; the answer is the body as JSON, with `etag` if there is one. The header tells the proxy that it is this page. */
export async function ask(path, { method = 'GET', body, headers = {} } = {}) {
  const json = body === undefined ? {} : { 'content-type': 'application/json' };
  const response = await fetch(path, {
    method,
    credentials: 'same-origin',
    headers: { 'x-cutover-console': '1', ...json, ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  }).catch(() => {
    throw new Refused(0, { code: 'No answer', message: 'the proxy does not answer', hint: 'If it burns, use the command line: cutover rollout abort' });
  });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  if (response.status === 401 && path !== 'login') signedOut();
  throw new Refused(response.status, answer);
}

const missing = new Set();

/** The answer, or undefined where the proxy does not say. What it does not have is not asked for again. */
export async function askIfThere(path) {
  if (missing.has(path)) return undefined;
  return ask(path).catch(({ status }) => {
    if (status === 404) missing.add(path);
  });
}

const AGAIN_MS = 3_000;
const SILENT_MS = 4_000;

/**
 * The event stream, for as long as the page is seen: a hidden one gives its place to others. `on` has a function for each event, and
 * `link(state, text)`.
 */
export function watch(on) {
  let source;
  let again;
  let silence;

  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(() => on.link('lost', 'no news'), SILENT_MS);
    on.link('live', 'live');
  };
  const open = () => {
    source = new EventSource('events');
    for (const event of ['opening', 'frame', 'rollout']) {
      source.addEventListener(event, ({ data }) => {
        heard();
        on[event](JSON.parse(data));
      });
    }
    source.addEventListener('error', async () => {
      on.link('lost', 'reconnecting');
      if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
      const why = await refusal();
      if (why) on.link('lost', why);
      clearTimeout(again);
      again = setTimeout(() => document.hidden || open(), AGAIN_MS);
    });
  };
  const close = () => {
    clearTimeout(again);
    clearTimeout(silence);
    source?.close();
  };
  const look = () => {
    close();
    if (!document.hidden) open();
  };
  document.addEventListener('visibilitychange', look);
  look();
  return () => {
    document.removeEventListener('visibilitychange', look);
    close();
  };
}

/** An event stream does not say why it was refused; the same question asked plainly does. */
async function refusal() {
  const given = new AbortController();
  try {
    const response = await fetch('events', { signal: given.signal, headers: { 'x-cutover-console': '1' } });
    if (response.status === 401) signedOut();
    if (response.ok) return undefined;
    return (await response.json()).message;
  } catch {
    return undefined;
  } finally {
    given.abort();
  }
}
