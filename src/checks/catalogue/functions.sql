select json_build_object(
  'schema', n.nspname,
  'name', p.proname,
  'kind', p.prokind,
  'owner', pg_get_userbyid(p.proowner),
  'comment', obj_description(p.oid, 'pg_proc'),
  'identity_arguments', pg_get_function_identity_arguments(p.oid),
  'argument_names', (
    select coalesce(json_agg(a.name order by a.place), '[]')
    from unnest(p.proargnames, p.proargmodes) with ordinality a (name, mode, place)
    where coalesce(a.mode, 'i') in ('i', 'b', 'v')),
  'arguments_with_default', p.pronargdefaults,
  'result', pg_get_function_result(p.oid),
  'is_trigger', p.prorettype = 'pg_catalog.trigger'::regtype,
  'language', l.lanname,
  'volatility', p.provolatile,
  'security_definer', p.prosecdef,
  'settings', coalesce(to_json(p.proconfig), '[]'),
  'body', case when p.prosrc = '' and p.prokind in ('f', 'p') then pg_get_functiondef(p.oid) else p.prosrc end,
  'definition', case when p.prokind in ('f', 'p') then pg_get_functiondef(p.oid) end,
  'grants', (
    select coalesce(json_agg(json_build_object(
             'grantee', case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee) end,
             'privilege', a.privilege_type,
             'grantable', a.is_grantable) order by a.grantee::regrole::text, a.privilege_type), '[]')
    from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a)
)::text
from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and not exists (select from pg_depend d where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
order by n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)
