-- NEW: what old.sql made, moved into one schema per domain (runs after it). Tables are moved, not made again, as a real
-- reorganisation does it: columns are the same by construction, and constraints keep their names, so FK hints go on working.

create schema security_service; create schema vendors; create schema ai_chat; create schema shared_services; create schema billing;
create schema analytics; create schema marketplace; create schema intelligence;

alter table topics set schema security_service;
alter table memory_entries set schema security_service;
alter table memory_chunks set schema security_service;
alter table api_keys set schema security_service;
alter table vendor_organizations     rename to organizations;      alter table organizations     set schema vendors;
alter table vendor_api_keys          rename to api_keys;           alter table api_keys          set schema vendors;
alter table vendor_platform_sessions rename to platform_sessions;  alter table platform_sessions set schema vendors;
alter table vendor_usage_logs        rename to usage_logs;         alter table usage_logs        set schema vendors;
alter table ai_conversations         rename to conversations;      alter table conversations     set schema ai_chat;
alter table ai_messages              rename to messages;           alter table messages          set schema ai_chat;
alter table profiles set schema shared_services;
alter table user_settings            rename to settings;           alter table settings          set schema shared_services;
alter table subscriptions set schema billing;
alter table usage_tracking set schema analytics;
alter table products set schema marketplace;
alter table orders set schema marketplace;
alter table order_items set schema marketplace;
alter table smart_recall_notes set schema intelligence;
alter table intelligence_usage_logs  rename to usage_logs;         alter table usage_logs        set schema intelligence;

create table vendors.billing_records (  -- exists on NEW only
  id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(),
  organization_id uuid not null references vendors.organizations (id) on delete cascade, cents int not null);

drop function match_memories;
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
