// The parts of a supabase-js application that do not name a table: sign-up to sign-out, storage, functions, realtime.
// Shared by the programs, which differ in how they name tables. SUPABASE_JS names the package, where it is not the current one.

import { randomUUID } from 'node:crypto';
import { Document } from './document.mjs';

const { createClient } = await import(process.env.SUPABASE_JS || '@supabase/supabase-js');

/** A new client with a new, signed-in user, and the document that the program fills. */
export async function signedInUser() {
  const client = createClient(process.env.SUPABASE_URL, process.env.SUPABASE_ANON_KEY, { auth: { persistSession: false, autoRefreshToken: false } });
  const email = `user-${randomUUID()}@example.com`;
  const password = 'correct horse battery staple';
  const document = new Document({ [email]: '<email>', [process.env.SUPABASE_URL]: '<url>' });

  const person = ({ data, error }) => ({ email: data.user?.email, role: data.user?.role, signedIn: Boolean(data.session), error: error?.message });
  document.add('auth: sign up', person(await client.auth.signUp({ email, password, options: { data: { plan: 'pro' } } })));
  document.add('auth: sign out after sign-up', { error: (await client.auth.signOut()).error });
  document.add('auth: wrong password', person(await client.auth.signInWithPassword({ email, password: 'wrong' })));
  document.add('auth: sign in', person(await client.auth.signInWithPassword({ email, password })));
  document.add('auth: refresh', person(await client.auth.refreshSession()));
  const { data, error } = await client.auth.getUser();
  document.add('auth: get user', { email: data.user?.email, plan: data.user?.user_metadata?.plan, error });
  return { client, document, user: data.user };
}

export async function useStorage(client, document, user) {
  const bucket = client.storage.from('artifacts');
  const path = `${user.id}/notes/hello.txt`;
  const found = ({ data, error }) => ({ names: data?.map((file) => file.name), error });
  const upload = await bucket.upload(path, Buffer.from('hello storage'), { contentType: 'text/plain' });
  document.add('storage: upload', { path: upload.data?.path, error: upload.error });
  document.add('storage: list', found(await bucket.list(`${user.id}/notes`)));
  const download = await bucket.download(path);
  document.add('storage: download', { text: await download.data?.text(), error: download.error });
  document.add('storage: remove', found(await bucket.remove([path])));
  document.add('storage: list again', found(await bucket.list(`${user.id}/notes`)));
}

export async function useFunctions(client, document) {
  await document.note('functions: hello', client.functions.invoke('hello', { body: { name: 'ada' } }));
  await document.note('functions: text', client.functions.invoke('echo', { body: 'plain text', headers: { 'content-type': 'text/plain' } }));
  const stream = await client.functions.invoke('stream');
  const text = typeof stream.data === 'string' ? stream.data : await stream.data.text(); // older clients read it to its end
  document.add('functions: stream', { events: text.trim().split('\n\n'), error: stream.error });
  const missing = await client.functions.invoke('nowhere');
  document.add('functions: missing', { status: missing.error?.context?.status, error: missing.error?.name });
}

/** Joins a room with a broadcast and a database binding, sends a message and waits for its echo. */
export async function useRealtime(client, document, binding) {
  const seen = [];
  const channel = client.channel('room', { config: { broadcast: { self: true } } });
  const echo = new Promise((resolve) => {
    channel.on('broadcast', { event: 'ping' }, (message) => resolve(message.payload));
    channel.on('postgres_changes', { event: '*', ...binding }, () => {});
  });
  const subscribed = new Promise((resolve) => {
    channel.subscribe((status, error) => {
      seen.push(error ? `${status}: ${error.message}` : status);
      if (status !== 'CLOSED') resolve();
    });
  });
  await subscribed;
  const sent = await channel.send({ type: 'broadcast', event: 'ping', payload: { text: 'grüße' } });
  document.add('realtime', { seen, sent, echo: await Promise.race([echo, after(5000, 'no echo')]) });
  await client.removeAllChannels();
  await client.realtime.disconnect();
}

export async function signOut(client, document) {
  document.add('auth: sign out', { error: (await client.auth.signOut()).error });
  const { data } = await client.auth.getSession();
  document.add('auth: session afterwards', { session: data.session });
}

const after = (ms, value) => new Promise((resolve) => setTimeout(resolve, ms, value).unref());
