// The same supabase-js application after its move to NEW's dialect: every table by its domain, under its new name.
//   SUPABASE_URL=… SUPABASE_ANON_KEY=… node app-new-dialect.mjs
// Signs up a user of its own and prints what every call answered (see document.mjs). Embeds stay inside one domain: PostgREST
// has none across schemas.

import { signedInUser, signOut, useFunctions, useRealtime, useStorage } from './services.mjs';

const { client, document, user } = await signedInUser();
const note = (step, call) => document.note(step, call);
const security = client.schema('security_service');
const vendors = client.schema('vendors');
const chats = client.schema('ai_chat');
const shared = client.schema('shared_services');
const market = client.schema('marketplace');

// Rows of one's own.
await note('insert', shared.from('profiles').insert({ user_id: user.id, display_name: 'Ada' }));
const topic = await note('insert, row back', security.from('topics').insert({ name: 'proxies' }).select('id,name').single());
await note('insert several', security.from('memory_entries').insert([
  { title: 'alpha', content: 'first', importance: 1, topic_id: topic?.id, embedding: '[1,0,0]', tags: ['a', 'b'] },
  { title: 'beta', content: 'second', importance: 2, topic_id: topic?.id, embedding: '[0.9,0.1,0]', metadata: { lang: 'en' } },
  { title: 'gamma', content: 'third, with "quotes" and , commas', importance: 3, embedding: '[0,0,1]' },
], { defaultToNull: false }).select('title,importance').order('title'));
await note('upsert', shared.from('settings').upsert([{ key: 'theme', value: 'dark' }, { key: 'size', value: 12 }], { onConflict: 'user_id,key' }).select('key,value').order('key'));
await note('insert into a prefixed table', client.schema('intelligence').from('smart_recall_notes').insert({ note: 'remember' }).select('note').single());
await note('insert into a renamed table', client.schema('intelligence').from('usage_logs').insert({ feature: 'recall' }).select('feature'));
await note('subscription', client.schema('billing').from('subscriptions').insert({ plan: 'pro', cents: 900 }).select('plan,cents').single());
await note('usage', client.schema('analytics').from('usage_tracking').insert({ event: 'login' }).select('event,quantity').single());

// Reading.
await note('select all columns', security.from('memory_entries').select().order('title'));
await note('eq, in, or', security.from('memory_entries').select('title').in('title', ['alpha', 'beta']).or('importance.gt.1,topic_id.is.null').order('title'));
await note('text with reserved characters', security.from('memory_entries').select('title').eq('content', 'third, with "quotes" and , commas'));
await note('range with count', security.from('memory_entries').select('title', { count: 'exact' }).order('title').range(1, 2));
await note('count only', security.from('memory_entries').select('*', { count: 'exact', head: true }));
await note('csv', security.from('memory_entries').select('title,importance').order('title').csv());
await note('single', security.from('memory_entries').select('title').eq('title', 'alpha').single());
await note('maybeSingle, none', security.from('memory_entries').select('title').eq('title', 'omega').maybeSingle());

// Two tables of one name: api_keys of the vendors and api_keys of the security service.
const vendor = await note('organization', vendors.from('organizations').insert({ name: 'Acme' }).select().single());
const key = await note('vendor key', vendors.from('api_keys').insert({ organization_id: vendor?.id, name: 'main' }).select('id,name,active').single());
await note('vendor keys', vendors.from('api_keys').insert([{ organization_id: vendor?.id, name: 'spare' }, { organization_id: vendor?.id, name: 'retired', active: false }], { defaultToNull: false }));
await note('security key', security.from('api_keys').insert({ name: 'of security' }).select('name,revoked_at').single());
await note('vendor usage', vendors.from('usage_logs').insert([1, 2, 3].map((calls) => ({ api_key_id: key?.id, calls }))));
await note('vendor keys listed', vendors.from('api_keys').select('name').order('name'));
await note('security keys listed', security.from('api_keys').select('name').order('name'));

// Embeds of renamed tables.
await note('embed children', vendors.from('organizations').select('name,api_keys(name,active)').order('name', { referencedTable: 'api_keys' }));
await note('embed parent', vendors.from('api_keys').select('name,organizations(name,tier)').order('name'));
await note('embed with alias', vendors.from('api_keys').select('name,owner:organizations(name)').order('name').limit(2));
await note('embed two deep', vendors.from('organizations').select('name,api_keys!inner(name,usage_logs(calls))').eq('api_keys.name', 'main').order('calls', { referencedTable: 'api_keys.usage_logs' }));
await note('embedded filter', vendors.from('organizations').select('name,api_keys(name)').eq('api_keys.active', false));
await note('embedded order and limit', vendors.from('organizations').select('name,api_keys(name)').order('name', { referencedTable: 'api_keys', ascending: false }).limit(2, { referencedTable: 'api_keys' }));
await note('embedded or', vendors.from('organizations').select('name,api_keys(name)').or('name.eq.main,active.is.false', { referencedTable: 'api_keys' }).order('name', { referencedTable: 'api_keys' }));
await note('parents that have children', vendors.from('organizations').select('name,api_keys()').not('api_keys', 'is', null));
const chat = await note('conversation', chats.from('conversations').insert({ title: 'first chat' }).select('id').single());
await note('messages', chats.from('messages').insert(['hello', 'hi'].map((content, position) => ({ conversation_id: chat?.id, role: 'user', content, position }))).select('content').order('position'));
await note('order by the parent', chats.from('messages').select('content,conversations(title)').order('conversations(title)').order('position', { ascending: false }));
const product = await note('product', market.from('products').insert({ name: 'Proxy', cents: 4200 }).select('id,name').single());
const order = await note('order', market.from('orders').insert({ buyer: user.id }).select('id,status').single());
await note('order items', market.from('order_items').insert({ order_id: order?.id, product_id: product?.id, quantity: 2 }));
await note('embed inside a domain', market.from('orders').select('status,order_items(quantity,products(name,cents))'));

// Changing and removing.
await note('update', security.from('memory_entries').update({ content: 'changed' }).eq('title', 'alpha').select('title,content'));
await note('update a renamed table', vendors.from('api_keys').update({ active: true }).eq('name', 'retired').select('name,active'));
await note('delete', security.from('memory_entries').delete().eq('title', 'gamma'));
await note('delete, row back', vendors.from('api_keys').delete().eq('name', 'spare').select('name'));

// Functions of the database.
await note('rpc', security.rpc('match_memories', { query_embedding: '[1,0,0]', match_threshold: 0.5, match_count: 5 }));
await note('rpc by GET', security.rpc('match_memories', { query_embedding: '[1,0,0]', match_threshold: 0.99, match_count: 1 }, { get: true }));
await note('other schema', client.schema('app_demo').from('widgets').insert({ label: 'knob' }).select('label').single());

// What goes wrong.
const code = ({ error, status }) => ({ data: { code: error?.code, status } });
await note('bad filter value', security.from('memory_entries').select().eq('importance', 'many'));
await note('duplicate', security.from('memory_entries').insert({ title: 'alpha' }));
await note('not mine to write', security.from('memory_entries').insert({ title: 'alien', user_id: '00000000-0000-0000-0000-000000000001' }));
await note('not mine to write, renamed table', vendors.from('organizations').insert({ name: 'alien', user_id: '00000000-0000-0000-0000-000000000001' }).then(code));
await note('no relation', security.from('memory_entries').select('title,api_keys(name)').then(code));

await useStorage(client, document, user);
await useFunctions(client, document);
await useRealtime(client, document, { schema: 'security_service', table: 'memory_entries' });
await signOut(client, document);
document.print(user.id);
