// PostgREST's description of one schema (OpenAPI 2.0), which postrust does not make: tables and views with their columns, primary keys
// and comments, and functions, as far as service_role may use them. Read from the catalogue each time, so it is never stale.

import postgres from 'postgres';

const COLUMNS = `
select c.relname as relation, obj_description(c.oid, 'pg_class') as about, a.attname as column, format_type(a.atttypid, null) as type,
  n2.nspname as type_schema, t.typname, a.attnotnull and not a.atthasdef as required, col_description(c.oid, a.attnum) as comment,
  coalesce(a.attnum = any (i.indkey::int2[]), false) as is_key, e.typname as element, a.atttypmod, t.typcategory as category
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_type t on t.oid = a.atttypid join pg_namespace n2 on n2.oid = t.typnamespace
left join pg_type e on e.oid = t.typelem and t.typcategory = 'A'
left join pg_index i on i.indrelid = c.oid and i.indisprimary
where c.relnamespace = $1::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
  and has_any_column_privilege('service_role', c.oid, 'select, insert, update')
order by c.relname, a.attnum`;

const FUNCTIONS = `
select distinct p.proname from pg_proc p
where p.pronamespace = $1::regnamespace and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype and has_function_privilege('service_role', p.oid, 'execute')
order by 1`;

const KEY = 'Note:\nThis is a Primary Key.<pk/>';

/** Answers GET /rest/v1/ for a schema that the project exposes. */
export class OpenApi {
  constructor(databaseUrl) {
    this.sql = postgres(databaseUrl, { max: 1, onnotice: () => {} });
  }

  async document(schema, baseUrl) {
    const name = `"${schema.replaceAll('"', '""')}"`;
    const [columns, functions] = await Promise.all([this.sql.unsafe(COLUMNS, [name]), this.sql.unsafe(FUNCTIONS, [name])]);
    const definitions = {};
    const paths = { '/': { get: { summary: 'OpenAPI description (this document)' } } };
    for (const { relation, about, column, required, is_key, comment, ...type } of columns) {
      definitions[relation] ??= { ...(about && { description: about }), required: [], properties: {}, type: 'object' };
      paths[`/${relation}`] ??= { get: { tags: [relation] } };
      const description = [comment, is_key && KEY].filter(Boolean).join('\n\n');
      definitions[relation].properties[column] = { ...(description && { description }), ...kind(type) };
      if (required) definitions[relation].required.push(column);
    }
    for (const { proname } of functions) paths[`/rpc/${proname}`] = { post: { tags: [`(rpc) ${proname}`] } };
    return { swagger: '2.0', info: { title: 'standard public schema', version: '12.2.3' }, host: new URL(baseUrl).host, basePath: '/', schemes: ['http'], paths, definitions };
  }
}

/** A type as PostgREST says it: types of other schemas with their schema. */
function kind({ type, type_schema, typname, atttypmod, element, category }) {
  const format = type_schema === 'pg_catalog' ? type : `${type_schema}.${typname}${typname === 'vector' && atttypmod > 0 ? `(${atttypmod})` : ''}`;
  if (element) return { format, type: 'array', items: { type: jsonType(element) } };
  return { format, ...(jsonType(typname, category) && { type: jsonType(typname, category) }) };
}

function jsonType(typname, category) {
  if (typname === 'json' || typname === 'jsonb') return undefined;
  if (['int2', 'int4', 'int8'].includes(typname)) return 'integer';
  return category === 'N' ? 'number' : category === 'B' ? 'boolean' : 'string';
}
