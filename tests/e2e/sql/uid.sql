-- auth.uid() that reads the claims in both forms: PostgREST's single JSON setting and the older one-setting-per-claim.
-- Supabase Lite writes its own version (only the older form) at every start, so this runs after Lite is up.
create or replace function auth.uid() returns uuid language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
  )::uuid
$$;
