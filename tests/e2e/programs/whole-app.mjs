// A whole supabase-js application as it was written for OLD, in every service at once: what a user does from sign-up to sign-out, with
// live subscriptions open all the while.
//   SUPABASE_URL=… SUPABASE_ANON_KEY=… [SUPABASE_JS=supabase-js-2-39] node whole-app.mjs
// Signs up a user of its own and prints what every call answered and every subscription heard (see document.mjs).

import { Live } from './live.mjs';
import { signedInUser, signOut, useFunctions, useStorage } from './services.mjs';

const { client, document, user } = await signedInUser();
const note = (step, call) => document.note(step, call);
const from = (table) => client.from(table);

const live = new Live(client, document, user);
await live.open();

// Rows: on a table that kept its name, on one that was renamed, and in another schema. Each is heard by what was subscribed to it.
const topic = await note('insert', from('topics').insert({ name: 'proxies' }).select('id,name').single());
await note('insert, filtered out', from('topics').insert({ name: 'other' }));
await note('update', from('topics').update({ name: 'reverse proxies' }).eq('id', topic?.id).select('name'));
const vendor = await note('insert into a renamed table', from('vendor_organizations').insert({ name: 'Acme' }).select('id,name,tier').single());
await note('insert into another schema', client.schema('app_demo').from('widgets').insert({ label: 'knob' }));
await note('read', from('topics').select('name').order('name'));
await note('read a renamed table', from('vendor_organizations').select('name,vendor_api_keys(name)').eq('id', vendor?.id));
await note('rpc', client.rpc('whoami'));
await live.heardAll('with the first token', { topics: 3, wanted: 1, vendors: 1, anything: 3, widgets: 1 });

await live.useRooms();

// The session is renewed while subscribed; the subscriptions go on with the new token.
const { error } = await client.auth.refreshSession();
document.add('auth: refresh while subscribed', { error });
await note('insert after the refresh', from('vendor_organizations').insert({ name: 'Bolt' }));
await note('delete', from('topics').delete().eq('id', topic?.id));
await live.heardAll('after the refresh', { topics: 4, wanted: 1, vendors: 2, anything: 4, widgets: 1, gone: 1 });

await useStorage(client, document, user);
const pictures = client.storage.from('pictures');
const path = `${user.id}/face.txt`;
const upload = await pictures.upload(path, Buffer.from('a face'), { contentType: 'text/plain', upsert: false });
document.add('storage: upload to a public bucket', { path: upload.data?.path, error: upload.error });
const shown = await fetch(pictures.getPublicUrl(path).data.publicUrl);
document.add('storage: public address', { status: shown.status, text: await shown.text() });
const signed = await client.storage.from('pictures').createSignedUrl(path, 60);
document.add('storage: signed address', { error: signed.error, text: signed.data && (await (await fetch(signed.data.signedUrl)).text()) });

await useFunctions(client, document);
await live.close();
await signOut(client, document);
document.print(user.id);
