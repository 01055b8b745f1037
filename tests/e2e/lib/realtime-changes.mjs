// The database changes of a project, as Supabase Realtime sends them: PostgreSQL's own logical replication of the publication
// `supabase_realtime`, each change checked against the subscriber's filter and, by PostgreSQL itself, against row level security as
// the subscriber's role and claims. What is subscribed to, and in which words it fails, follows Realtime's subscriptions.

import postgres from 'postgres';
import { pause } from './until.mjs';

const PUBLICATION = 'supabase_realtime';
const VISIBLE_MS = 5000; // what somebody else writes to the table for longer than that is not waited for
const OPERATORS = { eq: '=', neq: '<>', lt: '<', lte: '<=', gt: '>', gte: '>=', in: '= any', like: 'like', ilike: 'ilike', match: '~', imatch: '~*', is: 'is', isdistinct: 'is distinct from' };
// Every type that postgres.js would turn into a JavaScript value, left as PostgreSQL's text.
const UNPARSED = { number: [21, 23, 26, 700, 701], json: [114, 3802], boolean: [16], date: [1082, 1114, 1184], bytea: [17] };
const RAW = Object.fromEntries(Object.entries(UNPARSED).map(([name, from]) => [name, { to: from[0], from, serialize: String, parse: (text) => text }]));

/** A subscription that the server refuses, told to the client in a `system` message. */
export class SubscriptionFault extends Error {}

export class DatabaseChanges {
  subscriptions = new Map(); // by the object that the caller gave: a channel's binding
  tables = new WeakMap(); // what is known of a relation, until replication describes it anew
  queue = Promise.resolve();

  /** `deliver(channel, message)` is called for each channel that a change concerns; message is { ids, data }. */
  constructor(url, deliver) {
    this.deliver = deliver;
    this.sql = postgres(url, { max: 3, onnotice: () => {} });
    // Values come as PostgreSQL writes them; PostgreSQL makes JSON of them later, as its own to_jsonb does.
    this.log = postgres(url, { max: 1, publications: PUBLICATION, types: RAW, onnotice: () => {} });
  }

  /** Resolves when every later change of a published table will be seen. */
  start() {
    // postgres.js keeps the commit's own time to itself; the time of arrival is some milliseconds later.
    return this.log.subscribe('*', (row, info) => {
      const change = { row, ...info, at: new Date() };
      this.queue = this.queue.then(() => this.change(change)).catch((error) => console.error('realtime: a change was not delivered:', error));
    });
  }

  /** Subscribes a channel's binding, or throws a SubscriptionFault. Repeated with other claims, it replaces the earlier one. */
  async subscribe(channel, id, params, claims) {
    const wanted = parseParams(params);
    const tables = await this.published(wanted);
    const told = describe(wanted);
    if (!tables.length) throw new SubscriptionFault(`Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: [${told}]`);
    try {
      for (const table of tables) await this.checkColumns(table, wanted, claims);
    } catch (error) {
      throw new SubscriptionFault(`Unable to subscribe to changes with given parameters. An exception happened so please check your connect parameters: [${told}]. Exception: ERROR P0001 (raise_exception) ${error.message}`);
    }
    if (channel.closed) return;
    this.subscriptions.set(params, { channel, id, claims, ...wanted, oids: new Set(tables.map((table) => table.oid)) });
  }

  forget(channel) {
    for (const [params, subscription] of this.subscriptions) if (subscription.channel === channel) this.subscriptions.delete(params);
  }

  /** The published tables whose schema and name are LIKE the wanted ones: `_` matches any character, also in a name (trap 48). */
  published({ schema, table }) {
    return this.sql`
      select c.oid::int as oid, format('%I.%I', p.schemaname, p.tablename) as name
      from pg_publication_tables p join pg_class c on c.oid = format('%I.%I', p.schemaname, p.tablename)::regclass
      where p.pubname = ${PUBLICATION} and p.schemaname like ${schema === '*' ? '%' : schema} escape '' and p.tablename like ${table === '*' ? '%' : table} escape ''`;
  }

  async checkColumns({ oid }, { filters, select }, { role }) {
    const columns = await this.readable(oid, role);
    for (const { column, operator, value } of filters) {
      const found = columns.find((candidate) => candidate.name === column);
      if (!found) throw new Error(`invalid column for filter ${column}`);
      if (operator === 'is' && !['null', 'true', 'false', 'unknown'].includes(value)) throw new Error('invalid value for is filter: must be null, true, false, or unknown');
      if (operator !== 'is') await this.sql.unsafe(`select $1::text::${found.regtype}${operator === 'in' ? '[]' : ''}`, [value]);
    }
    for (const column of select ?? []) if (!columns.some(({ name }) => name === column)) throw new Error(`invalid column for select ${column}`);
  }

  /** The columns of a table that a role may read, in their order. */
  readable(oid, role) {
    return this.sql`
      select a.attname as name, t.typname as type, a.atttypid::regtype::text as regtype
      from pg_attribute a join pg_type t on t.oid = a.atttypid
      where a.attrelid = ${oid} and a.attnum > 0 and not a.attisdropped and has_column_privilege(${role}::text, a.attrelid, a.attnum, 'SELECT')
      order by a.attnum`;
  }

  async describe(relation) {
    if (!this.tables.has(relation)) {
      const name = `${quote(relation.schema)}.${quote(relation.table)}`;
      const [{ oid, rls }] = await this.sql`select oid::int as oid, relrowsecurity as rls from pg_class where oid = ${name}::regclass`;
      const key = await this.sql`
        select a.attname as name from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey) where i.indrelid = ${oid} and i.indisprimary`;
      const types = await this.sql`select attname as name, atttypid::regtype::text as regtype from pg_attribute where attrelid = ${oid} and attnum > 0 and not attisdropped`;
      this.tables.set(relation, { name, oid, rls, key: key.map((column) => column.name), types: Object.fromEntries(types.map((column) => [column.name, column.regtype])) });
    }
    return this.tables.get(relation);
  }

  /** One change, to every channel that asked for it and may see it. */
  async change({ row, command, relation, key, old, at }) {
    if (!this.subscriptions.size) return;
    const table = await this.describe(relation);
    const type = command.toUpperCase();
    const interested = [...this.subscriptions.values()].filter((one) => one.oids.has(table.oid) && ['*', type].includes(one.event));
    if (!interested.length) return;
    await this.settled(table);
    const gone = type === 'DELETE';
    // The identity of the row before: what replication tells (its key, or all with REPLICA IDENTITY FULL), else the unchanged key.
    const told = gone ? row : old ?? row;
    const before = key || !(gone || old) ? Object.fromEntries(relation.keys.map(({ name }) => [name, told[name]])) : told;
    const after = gone ? undefined : { ...before, ...Object.fromEntries(Object.entries(row).filter(([, value]) => value !== undefined)) };
    const change = { table, type, at, relation, raw: after ?? before, record: after && (await this.json(table, after)), before: await this.json(table, before) };
    await this.tell(change, interested);
  }

  /** Waits until those who are writing to a table have ended. PostgreSQL flushes a commit, and replication sends it, a moment before
   * anybody can see it: judged in that moment, the row would be nobody's. Its writer's lock is released after that moment. */
  async settled({ oid }) {
    const writers = () => this.sql`select virtualtransaction as id from pg_locks where locktype = 'relation' and relation = ${oid} and mode = 'RowExclusiveLock'`;
    const ids = (await writers()).map(({ id }) => id);
    const end = performance.now() + VISIBLE_MS;
    while (ids.length && (await writers()).some(({ id }) => ids.includes(id)) && performance.now() < end) await pause(2);
  }

  async tell(change, interested) {
    const seen = new Map(); // what was asked of PostgreSQL for this change already: the same question has the same answer
    const once = (question, ask) => seen.get(question) ?? seen.set(question, ask()).get(question);
    const messages = new Map();
    for (const one of interested) {
      const columns = await once(`columns ${one.claims.role}`, () => this.readable(change.table.oid, one.claims.role));
      const forbidden = change.type !== 'DELETE' && !change.table.key.every((key) => columns.some(({ name }) => name === key));
      if (!forbidden) {
        const passes = await once(`filter ${JSON.stringify(one.filters)}`, () => this.passes(change, one.filters));
        if (!passes || !(await once(`row ${JSON.stringify(one.claims)}`, () => this.visible(change, one.claims)))) continue;
      }
      const data = forbidden ? { ...head(change), errors: ['Error 401: Unauthorized'] } : payload(change, columns, one.select);
      const key = JSON.stringify(one.select ?? null);
      const ofChannel = messages.get(one.channel) ?? messages.set(one.channel, new Map()).get(one.channel);
      if (ofChannel.has(key)) ofChannel.get(key).ids.unshift(one.id);
      else ofChannel.set(key, { ids: [one.id], data });
    }
    for (const [channel, ofChannel] of messages) for (const message of ofChannel.values()) this.deliver(channel, message);
  }

  /** The values as PostgreSQL's to_jsonb writes them. */
  async json({ types }, values) {
    const names = Object.keys(values);
    const pairs = names.map((name, index) => `${literal(name)}, to_jsonb($${index + 1}::text::${types[name]})`);
    const [{ found }] = await this.sql.unsafe(`select jsonb_build_object(${pairs.join(', ')}) as found`, names.map((name) => values[name]));
    return found;
  }

  /** All filters hold. A column that a deletion does not tell is not held against it, as deletions cannot be filtered. */
  async passes({ table, raw, type }, filters) {
    for (const { column, operator, value, negate } of filters) {
      if (!(column in raw) && type === 'DELETE') continue;
      const regtype = table.types[column];
      const right = operator === 'is' ? value : `(${literal(value)}::${regtype}${operator === 'in' ? '[]' : ''})`;
      const [{ holds }] = await this.sql.unsafe(`select $1::text::${regtype} ${OPERATORS[operator]} ${right} as holds`, [raw[column]]);
      if (!(negate ? holds === false : holds)) return false;
    }
    return true;
  }

  /** May somebody with these claims read the row? PostgreSQL's own answer, under their role. */
  async visible({ table, type, raw }, claims) {
    if (type === 'DELETE' || !table.rls) return true;
    const where = table.key.map((name, index) => `${quote(name)} = $${index + 1}::text::${table.types[name]}`).join(' and ');
    try {
      return await this.sql.begin(async (sql) => {
        await sql`select set_config('role', ${claims.role}, true), set_config('request.jwt.claims', ${JSON.stringify(claims)}, true)`;
        const rows = await sql.unsafe(`select 1 from ${table.name} where ${where}`, table.key.map((name) => raw[name]));
        return rows.length > 0;
      });
    } catch (error) {
      if (error.code === '42501') return false;
      throw error;
    }
  }
}

const quote = (name) => `"${name.replaceAll('"', '""')}"`;
const literal = (text) => `E'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

function head({ relation, type, at }) {
  return { schema: relation.schema, table: relation.table, commit_timestamp: at.toISOString(), type };
}

function payload(change, columns, select) {
  const { table, type, record, before } = change;
  const wanted = ({ name }) => !select || select.includes(name) || table.key.includes(name);
  const names = columns.filter(wanted).map(({ name }) => name);
  const pick = (values, allowed = names) => Object.fromEntries(allowed.filter((name) => name in values).map((name) => [name, values[name]]));
  return {
    ...head(change),
    columns: columns.filter(wanted).map(({ name, type: typeName }) => ({ name, type: typeName })),
    ...(type !== 'DELETE' && { record: pick(record) }),
    // Who may see a row that is gone cannot be asked any more: with row level security only its key is told.
    ...(type === 'UPDATE' && { old_record: pick(before) }),
    ...(type === 'DELETE' && { old_record: pick(before, table.rls ? names.filter((name) => table.key.includes(name)) : names) }),
    errors: null,
  };
}

/** { event, schema, table, filters, select } of a binding; a missing schema is public, a missing table is every table. */
export function parseParams({ event = '*', schema, table, filter, select }) {
  if (typeof schema !== 'string' && typeof table !== 'string') throw new SubscriptionFault('No subscription params provided. Please provide at least a `schema` or `table` to subscribe to');
  const upper = String(event).toUpperCase();
  return {
    event: ['INSERT', 'UPDATE', 'DELETE'].includes(upper) ? upper : '*',
    schema: schema ?? 'public',
    table: table ?? '*',
    filters: filter?.trim() ? splitFilters(filter.trim()).map(parseFilter) : [],
    select: Array.isArray(select) && select.length ? select : undefined,
  };
}

// Commas part the filters, but not inside the brackets of `in.(a,b)`.
function splitFilters(text) {
  const found = [''];
  let depth = 0;
  for (const char of text) {
    depth += (char === '(') - (char === ')');
    if (char === ',' && depth === 0) found.push('');
    else found[found.length - 1] += char;
  }
  return found;
}

function parseFilter(text) {
  const match = text.trim().match(/^([^=]+)=(not\.)?([a-z]+)\.(.*)$/s);
  if (!match || !OPERATORS[match[3]]) throw new SubscriptionFault(`Error parsing \`filter\` params: ${JSON.stringify(text.split(/[=.]/).slice(-2))}`);
  const [, column, negate, operator, value] = match;
  if (operator !== 'in') return { column, operator, value, negate: Boolean(negate) };
  if (!/^\(.*\)$/s.test(value)) throw new SubscriptionFault('Error parsing `filter` params: `in` filter value must be wrapped by parentheses');
  return { column, operator, value: `{${value.slice(1, -1)}}`, negate: Boolean(negate) };
}

function describe({ event, schema, table, filters, select }) {
  const told = filters.map(({ column, operator, value, negate }) => `{"${column}", "${operator}", "${value}", ${negate}}`);
  return `event: ${event}, schema: ${schema}, table: ${table}, filters: [${told.join(', ')}], select: ${select ? JSON.stringify(select) : 'nil'}`;
}
