-- What NEW has beyond what OLD's dump and `cutover plan` made of it: a table of its own, and two functions by which the tests tell
-- which project and which schema answered.

create table vendors.billing_records (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  organization_id uuid not null references vendors.organizations (id) on delete cascade, cents int not null);
alter table vendors.billing_records enable row level security;
create policy owner_only on vendors.billing_records to authenticated using (user_id = auth.uid()) with check (user_id = auth.uid());
grant all on vendors.billing_records to anon, authenticated, service_role;
alter publication supabase_realtime add table vendors.billing_records;

do $$
declare
  schema_name name;
begin
  for schema_name in
    select nspname from pg_namespace where nspname !~ '^pg_' and nspname not in ('information_schema', 'auth', 'extensions', 'storage')
  loop
    execute format($f$ create or replace function %I.which_project() returns text language sql stable as 'select ''new''::text' $f$, schema_name);
    execute format($f$ create or replace function %I.whoami() returns json language sql stable as
      'select json_build_object(''role'', current_user, ''user'', auth.uid())' $f$, schema_name);
    execute format('grant execute on function %1$I.which_project(), %1$I.whoami() to anon, authenticated, service_role', schema_name);
  end loop;
end $$;
