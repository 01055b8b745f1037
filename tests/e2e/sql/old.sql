-- OLD: every table of the application flat in `public`, as it was before the reorganisation.

create table topics (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  name text not null, created_at timestamptz not null default now());

create table memory_entries (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  topic_id uuid references topics (id), title text not null, content text, tags text[] not null default '{}',
  importance int not null default 0, metadata jsonb not null default '{}', embedding extensions.vector(3),
  created_at timestamptz not null default now(), unique (user_id, title));

create table memory_chunks (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  memory_id uuid not null references memory_entries (id) on delete cascade, position int not null, body text not null);

create table api_keys (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  name text not null, revoked_at timestamptz);

create table vendor_organizations (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  name text not null, tier text not null default 'free');

create table vendor_api_keys (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  organization_id uuid not null references vendor_organizations (id) on delete cascade, name text not null, active boolean not null default true);

create table vendor_platform_sessions (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  organization_id uuid not null references vendor_organizations (id) on delete cascade, platform text not null);

create table vendor_usage_logs (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  api_key_id uuid not null references vendor_api_keys (id) on delete cascade, calls int not null);

create table ai_conversations (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), title text not null);

create table ai_messages (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  conversation_id uuid not null references ai_conversations (id) on delete cascade, role text not null, content text not null, position int not null);

create table profiles (
  user_id uuid primary key default auth.uid(), display_name text not null, locale text not null default 'en');

create table user_settings (
  user_id uuid not null default auth.uid(), key text not null, value jsonb not null, primary key (user_id, key));

create table subscriptions (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), plan text not null, cents int not null);

create table usage_tracking (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), event text not null, quantity int not null default 1);

create table products (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), name text not null, cents int not null);

create table orders (  -- buyer: a foreign key that spans two domains of NEW (marketplace, shared_services)
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  buyer uuid not null references profiles (user_id), status text not null default 'open');

create table order_items (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  order_id uuid not null references orders (id) on delete cascade, product_id uuid not null references products (id), quantity int not null);

create table smart_recall_notes (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), note text not null);

create table intelligence_usage_logs (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), feature text not null);

create schema app_demo;  -- a schema of its own on both projects, addressed by name
create table app_demo.widgets (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), label text not null);

create function match_memories(query_embedding extensions.vector, match_threshold float, match_count int)
returns table (id uuid, title text, similarity float) language sql stable set search_path = public, extensions as $$
  select m.id, m.title, round((1 - (m.embedding <=> query_embedding))::numeric, 4)::float
  from public.memory_entries m
  where 1 - (m.embedding <=> query_embedding) > match_threshold
  order by m.embedding <=> query_embedding, m.title
  limit match_count
$$;
