select json_build_object(
  'role', pg_get_userbyid(d.defaclrole),
  'schema', n.nspname,
  'objects', case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' when 'T' then 'types' else 'schemas' end,
  'grants', (
    select coalesce(json_agg(json_build_object(
             'grantee', case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee) end,
             'privilege', a.privilege_type,
             'grantable', a.is_grantable) order by a.grantee::regrole::text, a.privilege_type), '[]')
    from aclexplode(d.defaclacl) a)
)::text
from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace
order by 1
