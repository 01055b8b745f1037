select json_build_object(
  'schema', n.nspname,
  'name', c.relname,
  'type', format_type(s.seqtypid, null),
  'start', s.seqstart,
  'increment', s.seqincrement,
  'greatest', s.seqmax,
  'cycles', s.seqcycle,
  'last_value', case when has_sequence_privilege(c.oid, 'SELECT,USAGE') then pg_sequence_last_value(c.oid) end,
  'is_readable', has_sequence_privilege(c.oid, 'SELECT,USAGE'),
  'owned_by', (
    select json_build_object('schema', tn.nspname, 'table', t.relname, 'column', a.attname, 'is_identity', d.deptype = 'i')
    from pg_depend d join pg_class t on t.oid = d.refobjid join pg_namespace tn on tn.oid = t.relnamespace
    join pg_attribute a on a.attrelid = t.oid and a.attnum = d.refobjsubid
    where d.classid = 'pg_catalog.pg_class'::regclass and d.refclassid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i')
    limit 1),
  'grants', (
    select coalesce(json_agg(json_build_object(
             'grantee', case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee) end,
             'privilege', a.privilege_type,
             'grantable', a.is_grantable) order by a.grantee::regrole::text, a.privilege_type), '[]')
    from aclexplode(coalesce(c.relacl, acldefault('s', c.relowner))) a)
)::text
from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and not exists (select from pg_depend d where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
order by n.nspname, c.relname
