// Two databases that hold the same rows and look different, for `cutover verify`: tables moved and renamed, columns in another order,
// text keys that sort in another order (citext on OLD, COLLATE "C" on NEW: pg0's build has no ICU, and the machine may have no locale), rows
// written in another order, JSON written with other spaces and its keys turned round. And seven differences.

import postgres from 'postgres';

/** What cutover.mjs would say as [schema.tables]. */
export const MAP = `
[schema]
legacy = "public"
[schema.tables]
entries = "memory"
events = "audit.log"
user_settings = "shared.settings"
"label*" = "shared"
`;

const OLD = `
create extension vector; create extension citext;
create table public.entries (id uuid primary key, title text not null, content text, tags text[] not null, meta jsonb not null,
  embedding vector(3), score numeric not null, created_at timestamptz not null, updated_at timestamptz not null default clock_timestamp());
create table public.events (id bigint primary key, kind varchar(20) not null, payload json, at timestamptz not null, amount numeric(12,2), ratio float8);
create table public.user_settings (user_id uuid, key citext, value jsonb, primary key (user_id, key));
create table public.labels (name citext primary key, body text);
`;

const NEW = `
create schema extensions; create extension vector schema extensions;
create schema memory; create schema audit; create schema shared;
create table memory.entries (updated_at timestamptz not null default clock_timestamp(), embedding extensions.vector(3), id uuid primary key,
  score numeric not null, created_at timestamptz not null, meta jsonb not null, title text not null, tags text[] not null, content text);
create table audit.log (ratio float8, amount numeric(12,2), at timestamptz not null, payload jsonb, kind text not null, id bigint primary key);
create table shared.settings (value jsonb, key text collate "C", user_id uuid, primary key (user_id, key));
create table shared.labels (body text, name text collate "C" primary key);
`;

/** How many of `total` rows each table has. */
function shares(total) {
  const [entries, events, settings] = [0.4, 0.3, 0.15].map((share) => Math.floor(total * share));
  return { entries, events, settings, labels: total - entries - events - settings };
}

const word = `(array['alpha','Beta','gamma ü','Δelta','日本','it''s "quoted", (really)', '', E'line\\nbreak \\\\'])[1 + n % 8]`;
const label = `(array['a','A','ä','Ä','b','B','_','-','é','z','Z','日'])[1 + n % 12] || case when n % 3 = 0 then ' ' else '' end || n`;
const at = `timestamptz '2026-01-01 00:00:00+00' + n * interval '1.000003 s'`;

/** Fills one side. Both get the same values; NEW's statements name the columns in another order and insert from the other end. */
function rows(side, total) {
  const count = shares(total);
  const series = (n) => `from generate_series(1, ${n}) n ${side === 'new' ? 'order by n desc' : ''}`;
  const table = (old, neu) => (side === 'old' ? `public.${old}` : neu);
  const json = side === 'old'
    ? `format('{"n": %s, "word": %s, "list": [1, {"b": null, "a": true}]}', n, to_json(${word}))`
    : `format('{"list":[1,{"a":true,"b":null}],"word":%s,"n":%s}', to_json(${word}), n)`;
  const vector = `case when n % 50 = 0 then null else format('[%s,%s,%s]', n % 97, n % 7, 0.1)::${side === 'old' ? '' : 'extensions.'}vector end`;
  return [
    `insert into ${table('entries', 'memory.entries')} (id, title, content, tags, meta, embedding, score, created_at)
     select md5('entry ' || n)::uuid, ${word} || ' ' || n, case n % 5 when 0 then null when 1 then '' else repeat(${word} || ' ', 8) || n end,
       array[${word}, null, n::text], ${json}::jsonb, ${vector}, n::numeric / 7, ${at} ${series(count.entries)}`,
    `insert into ${table('events', 'audit.log')} (id, kind, payload, at, amount, ratio)
     select n, 'kind ' || n % 9, case when n % 11 = 0 then null else ${json}::${side === 'old' ? 'json' : 'jsonb'} end, ${at},
       (n % 1000)::numeric / 4, n::float8 / 3 ${series(count.events)}`,
    `insert into ${table('user_settings', 'shared.settings')} (user_id, key, value)
     select md5('user ' || n % 1000)::uuid, ${label}, ${json}::jsonb ${series(count.settings)}`,
    `insert into ${table('labels', 'shared.labels')} (name, body) select ${label}, ${word} || n ${series(count.labels)}`,
  ];
}

/** Makes both databases (at these URLs, empty) and their rows, side by side. */
export async function fill(urls, total) {
  await Promise.all(['old', 'new'].map(async (side) => {
    const sql = postgres(urls[side], { max: 1, onnotice: () => {} });
    await sql.unsafe(side === 'old' ? OLD : NEW).simple();
    for (const statement of rows(side, total)) await sql.unsafe(statement);
    await sql.unsafe('vacuum analyze');
    await sql.end();
  }));
}

/** Plants seven differences of seven kinds on NEW. Returns what verify has to say of them: table, kind, key, columns; sorted. */
export async function plant(url, total) {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  const count = shares(total);
  const one = async (text) => {
    const found = await sql.unsafe(text);
    if (found.length !== 1) throw new Error(`${found.length} rows: ${text}`);
    return Object.values(found[0]).map(String);
  };
  const entry = (n) => `id = md5('entry ' || ${n})::uuid`;
  const third = Math.floor(count.entries / 3);
  const nullContent = Math.floor(third / 5) * 5;
  const withVector = third * 2 % 50 ? third * 2 : third * 2 + 1;
  const planted = [
    ['memory.entries', 'missing', [], await one(`delete from memory.entries where ${entry(17)} returning id`)],
    ['memory.entries', 'changed', ['content'], await one(`update memory.entries set content = '' where ${entry(nullContent)} and content is null returning id`)],
    ['memory.entries', 'changed', ['embedding'], await one(`update memory.entries set embedding = '[0,0,0.2]' where ${entry(withVector)} and embedding is not null returning id`)],
    ['audit.log', 'extra', [], await one(`insert into audit.log (id, kind, at) values (${count.events + 1}, 'kind', now()) returning id`)],
    ['audit.log', 'changed', ['at'], await one(`update audit.log set at = at + interval '1 microsecond' where id = ${Math.floor(count.events / 2)} returning id`)],
    ['shared.settings', 'changed', ['value'], await one(`update shared.settings set value = jsonb_set(value, '{list,1,a}', 'false') where value->>'n' = '${Math.floor(count.settings / 2)}' returning user_id, key`)],
    ['shared.labels', 'changed', ['body'], await one(`update shared.labels set body = body || ' ' where name = (select max(name) from shared.labels) returning name`)],
  ];
  await sql.end();
  return planted.map(([table, kind, columns, key]) => ({ table, kind, key, columns })).sort(byKey);
}

/** The differences of a report of `verify --json`, in the shape of `plant`. */
export function found(report) {
  return report.tables.flatMap((table) => (table.rows?.differences ?? []).map(({ kind, key, columns = [] }) => ({ table: table.new, kind, key, columns }))).sort(byKey);
}

function byKey(a, b) {
  return JSON.stringify(a) < JSON.stringify(b) ? -1 : 1;
}
