select json_build_object(
  'name', p.pubname,
  'all_tables', p.puballtables,
  'insert', p.pubinsert,
  'update', p.pubupdate,
  'delete', p.pubdelete,
  'tables', (
    select coalesce(json_agg(json_build_object('schema', t.schemaname, 'name', t.tablename) order by t.schemaname, t.tablename), '[]')
    from pg_publication_tables t where t.pubname = p.pubname)
)::text
from pg_publication p
order by p.pubname
