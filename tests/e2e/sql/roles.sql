-- The API roles of a Supabase project, its auth schema, and pgvector where hosted projects keep it.
-- Run on a new database before anything else connects.

create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit password 'authenticator';
grant anon, authenticated, service_role to authenticator;

create schema extensions;
grant usage on schema extensions to public;
create extension vector schema extensions;

create schema auth;
grant usage on schema auth to anon, authenticated, service_role;
create function auth.uid() returns uuid language sql stable as $$ select null::uuid $$;  -- the real one: uid.sql
