-- NEW: the same tables in one schema per domain, some renamed, and `public` reduced to views with the old names.
-- The columns are those of old.sql; `like` would hide them, so each table is written out.

create schema security_service; create schema vendors; create schema ai_chat; create schema shared_services; create schema billing;
create schema analytics; create schema marketplace; create schema intelligence; create schema app_demo;

create table security_service.topics (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  name text not null, created_at timestamptz not null default now());

create table security_service.memory_entries (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  topic_id uuid references security_service.topics (id), title text not null, content text, tags text[] not null default '{}',
  importance int not null default 0, metadata jsonb not null default '{}', embedding extensions.vector(3),
  created_at timestamptz not null default now(), unique (user_id, title));

create table security_service.memory_chunks (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  memory_id uuid not null references security_service.memory_entries (id) on delete cascade, position int not null, body text not null);

create table security_service.api_keys (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  name text not null, revoked_at timestamptz);

create table vendors.organizations (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  name text not null, tier text not null default 'free');

create table vendors.api_keys (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  organization_id uuid not null references vendors.organizations (id) on delete cascade, name text not null, active boolean not null default true);

create table vendors.platform_sessions (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  organization_id uuid not null references vendors.organizations (id) on delete cascade, platform text not null);

create table vendors.usage_logs (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  api_key_id uuid not null references vendors.api_keys (id) on delete cascade, calls int not null);

create table vendors.billing_records (  -- exists on NEW only
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  organization_id uuid not null references vendors.organizations (id) on delete cascade, cents int not null);

create table ai_chat.conversations (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), title text not null);

create table ai_chat.messages (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  conversation_id uuid not null references ai_chat.conversations (id) on delete cascade, role text not null, content text not null, position int not null);

create table shared_services.profiles (
  user_id uuid primary key default auth.uid(), display_name text not null, locale text not null default 'en');

create table shared_services.settings (
  user_id uuid not null default auth.uid(), key text not null, value jsonb not null, primary key (user_id, key));

create table billing.subscriptions (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), plan text not null, cents int not null);

create table analytics.usage_tracking (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), event text not null, quantity int not null default 1);

create table marketplace.products (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), name text not null, cents int not null);

create table marketplace.orders (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  buyer uuid not null references shared_services.profiles (user_id), status text not null default 'open');

create table marketplace.order_items (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  order_id uuid not null references marketplace.orders (id) on delete cascade, product_id uuid not null references marketplace.products (id), quantity int not null);

create table intelligence.smart_recall_notes (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), note text not null);

create table intelligence.usage_logs (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), feature text not null);

create table app_demo.widgets (
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), label text not null);

create function security_service.match_memories(query_embedding extensions.vector, match_threshold float, match_count int)
returns table (id uuid, title text, similarity float) language sql stable set search_path = security_service, extensions as $$
  select m.id, m.title, round((1 - (m.embedding <=> query_embedding))::numeric, 4)::float
  from security_service.memory_entries m
  where 1 - (m.embedding <=> query_embedding) > match_threshold
  order by m.embedding <=> query_embedding, m.title
  limit match_count
$$;

-- The compatibility schema: old names as views that run with the caller's rights (so that row level security holds).
create view public.topics                   with (security_invoker) as select * from security_service.topics;
create view public.memory_entries           with (security_invoker) as select * from security_service.memory_entries;
create view public.memory_chunks            with (security_invoker) as select * from security_service.memory_chunks;
create view public.api_keys                 with (security_invoker) as select * from security_service.api_keys;
create view public.vendor_organizations     with (security_invoker) as select * from vendors.organizations;
create view public.vendor_api_keys          with (security_invoker) as select * from vendors.api_keys;
create view public.vendor_platform_sessions with (security_invoker) as select * from vendors.platform_sessions;
create view public.vendor_usage_logs        with (security_invoker) as select * from vendors.usage_logs;
create view public.ai_conversations         with (security_invoker) as select * from ai_chat.conversations;
create view public.ai_messages              with (security_invoker) as select * from ai_chat.messages;
create view public.profiles                 with (security_invoker) as select * from shared_services.profiles;
create view public.user_settings            with (security_invoker) as select * from shared_services.settings;
create view public.subscriptions            with (security_invoker) as select * from billing.subscriptions;
create view public.usage_tracking           with (security_invoker) as select * from analytics.usage_tracking;
create view public.products                 with (security_invoker) as select * from marketplace.products;
create view public.orders                   with (security_invoker) as select * from marketplace.orders;
create view public.order_items              with (security_invoker) as select * from marketplace.order_items;
create view public.smart_recall_notes       with (security_invoker) as select * from intelligence.smart_recall_notes;
create view public.intelligence_usage_logs  with (security_invoker) as select * from intelligence.usage_logs;
