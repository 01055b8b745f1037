select json_build_object(
  'schema', n.nspname,
  'name', c.relname,
  'kind', c.relkind,
  'owner', pg_get_userbyid(c.relowner),
  'comment', obj_description(c.oid, 'pg_class'),
  'partition_of', (
    select json_build_object('schema', pn.nspname, 'name', p.relname)
    from pg_inherits i join pg_class p on p.oid = i.inhparent join pg_namespace pn on pn.oid = p.relnamespace
    where i.inhrelid = c.oid and c.relispartition),
  'estimated_rows', c.reltuples::bigint,
  'row_security', c.relrowsecurity,
  'row_security_forced', c.relforcerowsecurity,
  'replica_identity', c.relreplident,
  'options', coalesce(to_json(c.reloptions), '[]'),
  'definition', case when c.relkind in ('v', 'm') then pg_get_viewdef(c.oid) end,
  'columns', (
    select coalesce(json_agg(json_build_object(
             'name', a.attname,
             'type', format_type(a.atttypid, a.atttypmod),
             'not_null', a.attnotnull,
             'default', case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end,
             'identity', nullif(a.attidentity, ''),
             'generated', case when a.attgenerated <> '' then pg_get_expr(d.adbin, d.adrelid) end,
             'comment', col_description(c.oid, a.attnum),
             'grants', (
               select coalesce(json_agg(json_build_object(
                        'grantee', case g.grantee when 0 then 'public' else pg_get_userbyid(g.grantee) end,
                        'privilege', g.privilege_type,
                        'grantable', g.is_grantable) order by g.grantee::regrole::text, g.privilege_type), '[]')
               from aclexplode(a.attacl) g)) order by a.attnum), '[]')
    from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
  'primary_key', (
    select coalesce(json_agg(a.attname order by k.place), '[]')
    from pg_index i, unnest(i.indkey) with ordinality k (number, place), pg_attribute a
    where i.indrelid = c.oid and i.indisprimary and a.attrelid = c.oid and a.attnum = k.number),
  'policies', (
    select coalesce(json_agg(json_build_object(
             'name', p.polname,
             'command', case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end,
             'permissive', p.polpermissive,
             'roles', (select json_agg(case r when 0 then 'public' else pg_get_userbyid(r) end order by r::regrole::text)
                       from unnest(p.polroles) r),
             'using', pg_get_expr(p.polqual, p.polrelid),
             'check', pg_get_expr(p.polwithcheck, p.polrelid)) order by p.polname), '[]')
    from pg_policy p where p.polrelid = c.oid),
  'grants', (
    select coalesce(json_agg(json_build_object(
             'grantee', case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee) end,
             'privilege', a.privilege_type,
             'grantable', a.is_grantable) order by a.grantee::regrole::text, a.privilege_type), '[]')
    from aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a),
  'indexes', (
    select coalesce(json_agg(json_build_object(
             'name', x.relname,
             'method', m.amname,
             'definition', pg_get_indexdef(i.indexrelid),
             'columns', (select json_agg(coalesce(a.attname, '') order by k.place)
                         from unnest(i.indkey) with ordinality k (number, place)
                         left join pg_attribute a on a.attrelid = c.oid and a.attnum = k.number and k.number <> 0),
             'unique', i.indisunique,
             'primary', i.indisprimary,
             'valid', i.indisvalid) order by x.relname), '[]')
    from pg_index i join pg_class x on x.oid = i.indexrelid join pg_am m on m.oid = x.relam
    where i.indrelid = c.oid),
  'foreign_keys', (
    select coalesce(json_agg(json_build_object(
             'name', k.conname,
             'columns', (select json_agg(a.attname order by u.place) from unnest(k.conkey) with ordinality u (number, place)
                         join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.number),
             'to_schema', fn.nspname,
             'to_table', f.relname,
             'to_columns', (select json_agg(a.attname order by u.place) from unnest(k.confkey) with ordinality u (number, place)
                            join pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.number),
             'definition', pg_get_constraintdef(k.oid)) order by k.conname), '[]')
    from pg_constraint k join pg_class f on f.oid = k.confrelid join pg_namespace fn on fn.oid = f.relnamespace
    where k.conrelid = c.oid and k.contype = 'f'),
  'triggers', (
    select coalesce(json_agg(json_build_object(
             'name', t.tgname,
             'definition', pg_get_triggerdef(t.oid),
             'function_schema', fn.nspname,
             'function', f.proname,
             'enabled', t.tgenabled <> 'D') order by t.tgname), '[]')
    from pg_trigger t join pg_proc f on f.oid = t.tgfoid join pg_namespace fn on fn.oid = f.pronamespace
    where t.tgrelid = c.oid and not t.tgisinternal)
)::text
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f')
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and not exists (select from pg_depend d where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
order by n.nspname, c.relname
