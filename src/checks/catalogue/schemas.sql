select json_build_object(
  'name', n.nspname,
  'owner', pg_get_userbyid(n.nspowner),
  'comment', obj_description(n.oid, 'pg_namespace'),
  'grants', (
    select coalesce(json_agg(json_build_object(
             'grantee', case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee) end,
             'privilege', a.privilege_type,
             'grantable', a.is_grantable) order by a.grantee::regrole::text, a.privilege_type), '[]')
    from aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a)
)::text
from pg_namespace n
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by n.nspname
