// Real supabase-js clients whose every answer is looked at on its way in: who served it, and did it fail?

import { createClient } from '@supabase/supabase-js';

/** A client; `watch` is given one sample per HTTP exchange (the shape that Timeline judges). `realtime` is supabase-js's own option. */
export function watchedClient(url, key, watch, { realtime } = {}) {
  const client = createClient(url, key, {
    auth: { persistSession: false, autoRefreshToken: false },
    global: { fetch: (input, init) => watched(input, init, watch) },
    realtime,
  });
  return client;
}

async function watched(input, init, watch) {
  const sample = { path: new URL(input).pathname, sent: performance.now() };
  try {
    const response = await fetch(input, init);
    const { headers } = response;
    Object.assign(sample, { side: headers.get('x-cutover-side'), project: headers.get('x-e2e-project'), epoch: Number(headers.get('x-cutover-epoch')) });
    if (!response.ok) sample.failure = `status ${response.status}: ${await response.clone().text()}`;
    return response;
  } catch (error) {
    sample.failure = error.message;
    throw error;
  } finally {
    sample.done = performance.now();
    watch(sample);
  }
}
