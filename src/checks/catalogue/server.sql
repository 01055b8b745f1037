select json_build_object(
  'version', current_setting('server_version_num')::int,
  'database', current_database(),
  'role', current_user,
  'bypasses_row_security', (select rolsuper or rolbypassrls from pg_roles where rolname = current_user),
  'now', extract(epoch from clock_timestamp()),
  'wal_level', current_setting('wal_level'),
  'authenticator', (
    select coalesce(json_agg(setting), '[]')
    from pg_db_role_setting s join pg_roles r on r.oid = s.setrole, unnest(s.setconfig) setting
    where r.rolname = 'authenticator' and s.setdatabase in (0, (select oid from pg_database where datname = current_database())))
)::text
