-- Who may do what on OLD; NEW has it from OLD's dump and `cutover plan`. API roles reach every table and function of every exposed schema; row level
-- security leaves each user the rows that carry their user_id; products are a shop window that any signed-in user can read.
-- Every table but usage_tracking is in the publication that realtime follows.
-- Run after the tables exist.

create publication supabase_realtime;

do $$
declare
  schema_name name;
  relation record;
begin
  for schema_name in
    select nspname from pg_namespace where nspname !~ '^pg_' and nspname not in ('information_schema', 'auth', 'extensions', 'storage')
  loop
    execute format('grant usage on schema %I to anon, authenticated, service_role', schema_name);
    execute format($f$ create function %I.which_project() returns text language sql stable as 'select ''old''::text' $f$, schema_name);
    execute format($f$ create function %I.whoami() returns json language sql stable as
      'select json_build_object(''role'', current_user, ''user'', auth.uid())' $f$, schema_name);
    execute format('grant all on all tables in schema %I to anon, authenticated, service_role', schema_name);
    execute format('grant execute on all functions in schema %I to anon, authenticated, service_role', schema_name);

    for relation in
      select c.relname from pg_class c where c.relnamespace = schema_name::regnamespace and c.relkind = 'r'
    loop
      execute format('alter table %I.%I enable row level security', schema_name, relation.relname);
      execute format('create policy owner_only on %I.%I to authenticated using (user_id = auth.uid()) with check (user_id = auth.uid())',
                     schema_name, relation.relname);
      if relation.relname <> 'usage_tracking' then
        execute format('alter publication supabase_realtime add table %I.%I', schema_name, relation.relname);
      end if;
      if relation.relname = 'products' then
        execute format('create policy shop_window on %I.%I for select to authenticated using (true)', schema_name, relation.relname);
      end if;
    end loop;
  end loop;
end $$;
