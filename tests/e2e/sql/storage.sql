-- Storage, run after Supabase Lite made its schema. In each bucket a user owns the folder that carries their id.
--   artifacts   private; NEW keeps its objects below `growth/` (storage.buckets in Cutover's configuration maps the two)
--   avatars     public; OLD serves it for everybody (storage.owners)
--   pictures    public
--   reports     private, on OLD; NEW calls it `documents`
insert into storage.buckets (id, name, public) values ('artifacts', 'artifacts', false), ('avatars', 'avatars', true), ('pictures', 'pictures', true)
  on conflict do nothing;
insert into storage.buckets (id, name) select n, n from (values ('old', 'reports'), ('new', 'documents')) as renamed (project, n) where project = '{{project}}';
create policy own_folder on storage.objects to authenticated
  using (auth.uid()::text = (storage.foldername(case when '{{project}}' = 'new' then regexp_replace(name, '^growth/', '') else name end))[1])
  with check (auth.uid()::text = (storage.foldername(case when '{{project}}' = 'new' then regexp_replace(name, '^growth/', '') else name end))[1]);
create policy see_buckets on storage.buckets for select to authenticated using (true);
