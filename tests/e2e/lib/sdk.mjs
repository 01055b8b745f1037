// The supabase-js versions that the suite drives side by side. 2.39 and 2.49 speak vsn 1.0.0; 2.49 joins with the API key and sends the
// user's token in a frame of its own; the current one speaks 2.0.0 with binary broadcasts.

const PACKAGES = { '2.39': 'supabase-js-2-39', '2.49': 'supabase-js-2-49', current: '@supabase/supabase-js' };

export const VERSIONS = Object.keys(PACKAGES);

export const createClientOf = async (version) => (await import(PACKAGES[version])).createClient;

/** A client of that version that knows its user by a token alone. Later ones ask for it again and again; 2.39 is told once. */
export async function clientOf(version, url, key, token) {
  const createClient = await createClientOf(version);
  const asked = token && version !== '2.39' && { accessToken: async () => token };
  const client = createClient(url, key, { auth: { persistSession: false, autoRefreshToken: false }, ...asked });
  if (token) await client.realtime.setAuth(token);
  return client;
}

/** Subscribes and tells what the client makes of it: { seen, faults, settled } — settled resolves with its first final word. */
export function subscribe(channel) {
  const seen = [];
  const faults = [];
  const settled = new Promise((resolve) => {
    channel.subscribe((status, error) => {
      seen.push(status);
      if (error) faults.push(error.message);
      if (status !== 'CLOSED') resolve(status);
    });
  });
  return { seen, faults, settled };
}

/** Leaves everything at once: removing channels one by one waits for answers that a test may have forbidden. */
export async function disconnect(client) {
  await client.removeAllChannels();
  client.realtime.disconnect();
}
