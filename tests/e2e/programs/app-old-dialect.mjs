// A whole supabase-js application as it was written for OLD: every table in `public`, under its old name.
//   SUPABASE_URL=… SUPABASE_ANON_KEY=… node app-old-dialect.mjs
// Signs up a user of its own and prints what every call answered (see document.mjs).

import { signedInUser, signOut, useFunctions, useRealtime, useStorage } from './services.mjs';

const { client, document, user } = await signedInUser();
const note = (step, call) => document.note(step, call);
const from = (table) => client.from(table);

// Rows of one's own: insert one, several, with defaults, with the row given back.
await note('insert', from('profiles').insert({ user_id: user.id, display_name: 'Ada' }));
const topic = await note('insert, row back', from('topics').insert({ name: 'proxies' }).select('id,name').single());
await note('insert several', from('memory_entries').insert([
  { title: 'alpha', content: 'first', importance: 1, topic_id: topic?.id, embedding: '[1,0,0]', tags: ['a', 'b'] },
  { title: 'beta', content: 'second', importance: 2, topic_id: topic?.id, embedding: '[0.9,0.1,0]', metadata: { lang: 'en', depth: { level: 2 } } },
  { title: 'gamma', content: 'third, with "quotes" and , commas', importance: 3, embedding: '[0,0,1]' },
], { defaultToNull: false }).select('title,importance').order('title'));
await note('insert, no answer', from('smart_recall_notes').insert([{ note: 'remember' }, { note: 'the milk' }]));
await note('upsert', from('user_settings').upsert([{ key: 'theme', value: 'dark' }, { key: 'size', value: 12 }], { onConflict: 'user_id,key' }).select('key,value').order('key'));
await note('upsert again', from('user_settings').upsert({ key: 'theme', value: 'light' }, { onConflict: 'user_id,key' }).select('key,value'));

// Reading: filters, order, pages, counts, shapes.
await note('select all columns', from('memory_entries').select().order('title'));
await note('eq', from('memory_entries').select('title').eq('title', 'beta'));
await note('in', from('memory_entries').select('title').in('title', ['alpha', 'gamma', 'a,b']).order('title', { ascending: false }));
await note('or', from('memory_entries').select('title').or('importance.gt.2,title.eq.alpha').order('title'));
await note('not null', from('memory_entries').select('title').not('topic_id', 'is', null).order('title'));
await note('like, contains', from('memory_entries').select('title').like('title', '%a').contains('tags', ['b']));
await note('text with reserved characters', from('memory_entries').select('title').eq('content', 'third, with "quotes" and , commas'));
await note('json path', from('memory_entries').select('title,lang:metadata->>lang,level:metadata->depth->level').eq('metadata->>lang', 'en'));
await note('limit', from('memory_entries').select('title').order('importance', { ascending: false }).limit(1));
await note('range with count', from('memory_entries').select('title', { count: 'exact' }).order('title').range(1, 2));
await note('count only', from('memory_entries').select('*', { count: 'exact', head: true }));
await note('csv', from('memory_entries').select('title,importance').order('title').csv());
await note('single', from('memory_entries').select('title,importance').eq('title', 'alpha').single());
await note('maybeSingle, none', from('memory_entries').select('title').eq('title', 'omega').maybeSingle());

// Renamed tables, embedded in both directions.
const vendor = await note('organization', from('vendor_organizations').insert({ name: 'Acme' }).select().single());
const key = await note('vendor key', from('vendor_api_keys').insert({ organization_id: vendor?.id, name: 'main' }).select('id,name,active').single());
await note('vendor keys', from('vendor_api_keys').insert([{ organization_id: vendor?.id, name: 'spare' }, { organization_id: vendor?.id, name: 'retired', active: false }], { defaultToNull: false }));
await note('vendor usage', from('vendor_usage_logs').insert([1, 2, 3].map((calls) => ({ api_key_id: key?.id, calls }))));
await note('embed children', from('vendor_organizations').select('name,vendor_api_keys(name,active)').order('name', { referencedTable: 'vendor_api_keys' }));
await note('embed parent', from('vendor_api_keys').select('name,vendor_organizations(name,tier)').order('name'));
await note('embed with alias', from('vendor_api_keys').select('name,owner:vendor_organizations(name)').order('name').limit(2));
await note('embed by constraint', from('vendor_api_keys').select('name,vendor_organizations!vendor_api_keys_organization_id_fkey(name)').order('name').limit(1));
await note('embed two deep', from('vendor_organizations').select('name,vendor_api_keys!inner(name,vendor_usage_logs(calls))').eq('vendor_api_keys.name', 'main').order('calls', { referencedTable: 'vendor_api_keys.vendor_usage_logs' }));
await note('embedded filter', from('vendor_organizations').select('name,vendor_api_keys(name)').eq('vendor_api_keys.active', false));
await note('embedded order and limit', from('vendor_organizations').select('name,vendor_api_keys(name)').order('name', { referencedTable: 'vendor_api_keys', ascending: false }).limit(2, { referencedTable: 'vendor_api_keys' }));
await note('embedded or', from('vendor_organizations').select('name,vendor_api_keys(name)').or('name.eq.main,active.is.false', { referencedTable: 'vendor_api_keys' }).order('name', { referencedTable: 'vendor_api_keys' }));
await note('parents that have children', from('vendor_organizations').select('name,vendor_api_keys()').not('vendor_api_keys', 'is', null));
const chat = await note('conversation', from('ai_conversations').insert({ title: 'first chat' }).select('id').single());
await note('messages', from('ai_messages').insert(['hello', 'hi', 'bye'].map((content, position) => ({ conversation_id: chat?.id, role: 'user', content, position }))).select('content').order('position'));
await note('order by the parent', from('ai_messages').select('content,ai_conversations(title)').order('ai_conversations(title)').order('position', { ascending: false }));
await note('insert, embed in the answer', from('ai_messages').insert({ conversation_id: chat?.id, role: 'user', content: 'again', position: 9 }).select('content,ai_conversations(title)').single());

// A relation that spans two domains of NEW.
const product = await note('product', from('products').insert({ name: 'Proxy', cents: 4200 }).select('id,name').single());
const order = await note('order', from('orders').insert({ buyer: user.id }).select('id,status').single());
await note('order items', from('order_items').insert([{ order_id: order?.id, product_id: product?.id, quantity: 2 }]).select('quantity'));
await note('embed across domains', from('orders').select('status,profiles(display_name),order_items(quantity,products(name,cents))'));

// Changing and removing.
await note('update', from('memory_entries').update({ content: 'changed' }).eq('title', 'alpha').select('title,content'));
await note('update a renamed table', from('vendor_api_keys').update({ active: true }).eq('name', 'retired').select('name,active'));
await note('delete', from('memory_entries').delete().eq('title', 'gamma'));
await note('delete, row back', from('vendor_api_keys').delete().eq('name', 'spare').select('name'));

// Functions of the database, in the three ways to call them.
await note('rpc', client.rpc('match_memories', { query_embedding: '[1,0,0]', match_threshold: 0.5, match_count: 5 }));
await note('rpc by GET', client.rpc('match_memories', { query_embedding: '[1,0,0]', match_threshold: 0.99, match_count: 1 }, { get: true }));
await note('rpc, who am I', client.rpc('whoami'));
await note('rpc, missing', client.rpc('zzz_nowhere', { x: 1 }));

// A schema that is addressed by its name on both projects.
await note('other schema', client.schema('app_demo').from('widgets').insert({ label: 'knob' }).select('label').single());

// What goes wrong, and in the same words.
const code = ({ error, status }) => ({ data: { code: error?.code, status } });
await note('missing table', from('zzz_nowhere').select());
await note('bad filter value', from('memory_entries').select().eq('importance', 'many'));
await note('single, none there', from('memory_entries').select().eq('title', 'omega').single());
await note('duplicate', from('memory_entries').insert({ title: 'alpha' }));
await note('not mine to write', from('memory_entries').insert({ title: 'alien', user_id: '00000000-0000-0000-0000-000000000001' }));
await note('not mine to write, renamed table', from('vendor_organizations').insert({ name: 'alien', user_id: '00000000-0000-0000-0000-000000000001' }).then(code));
await note('not mine to change', from('memory_entries').update({ title: 'taken' }).eq('user_id', '00000000-0000-0000-0000-000000000001').select());
await note('no relation', from('memory_entries').select('title,vendor_organizations(name)').then(code));

await useStorage(client, document, user);
await useFunctions(client, document);
await useRealtime(client, document, { schema: 'public', table: 'memory_entries' });
await signOut(client, document);
document.print(user.id);
