-- Storage: one private bucket; a user owns the folder that carries their id. Runs after Supabase Lite made its storage schema.
insert into storage.buckets (id, name) values ('artifacts', 'artifacts') on conflict do nothing;
create policy own_folder on storage.objects to authenticated
  using (bucket_id = 'artifacts' and (storage.foldername(name))[1] = auth.uid()::text)
  with check (bucket_id = 'artifacts' and (storage.foldername(name))[1] = auth.uid()::text);
create policy see_buckets on storage.buckets for select to authenticated using (true);
