-- OLD's rows; NEW has them from OLD's dump: 40 users, each with topics, memories (with vectors), chunks, a vendor organisation with
-- keys, a conversation, a profile, a subscription and an order. Ids are md5 of what they name, so that tests can tell them.

create temporary table member as
  select n, md5('user ' || n)::uuid as user_id from generate_series(1, 40) n;

insert into profiles (user_id, display_name) select user_id, 'User ' || n from member;
insert into user_settings (user_id, key, value) select user_id, 'theme', '"dark"' from member;
insert into topics (id, user_id, name) select md5('topic ' || n)::uuid, user_id, 'topic of ' || n from member;
insert into memory_entries (id, user_id, topic_id, title, content, importance, embedding)
  select md5('memory ' || n || '/' || m)::uuid, user_id, md5('topic ' || n)::uuid, 'memory ' || m, 'content ' || n || '/' || m, m,
         format('[%s,%s,%s]', m, n % 7, (n * m) % 5 + 1)::extensions.vector
  from member, generate_series(1, 5) m;
insert into memory_chunks (id, user_id, memory_id, position, body)
  select md5('chunk ' || n || '/' || m)::uuid, user_id, md5('memory ' || n || '/' || m)::uuid, 1, 'chunk ' || m from member, generate_series(1, 5) m;
insert into api_keys (id, user_id, name) select md5('api key ' || n)::uuid, user_id, 'security key' from member;
insert into vendor_organizations (id, user_id, name) select md5('organization ' || n)::uuid, user_id, 'Vendor ' || n from member;
insert into vendor_api_keys (id, user_id, organization_id, name)
  select md5('vendor key ' || n)::uuid, user_id, md5('organization ' || n)::uuid, 'vendor key' from member;
insert into vendor_usage_logs (id, user_id, api_key_id, calls)
  select md5('vendor usage ' || n)::uuid, user_id, md5('vendor key ' || n)::uuid, n from member;
insert into ai_conversations (id, user_id, title) select md5('conversation ' || n)::uuid, user_id, 'chat' from member;
insert into ai_messages (id, user_id, conversation_id, role, content, position)
  select md5('message ' || n)::uuid, user_id, md5('conversation ' || n)::uuid, 'user', 'hello', 1 from member;
insert into subscriptions (id, user_id, plan, cents) select md5('subscription ' || n)::uuid, user_id, 'pro', 900 from member;
insert into usage_tracking (id, user_id, event) select md5('usage ' || n)::uuid, user_id, 'login' from member;
insert into products (id, user_id, name, cents) select md5('product ' || n)::uuid, user_id, 'product ' || n, n * 100 from member;
insert into orders (id, user_id, buyer) select md5('order ' || n)::uuid, user_id, user_id from member;
insert into order_items (id, user_id, order_id, product_id, quantity)
  select md5('item ' || n)::uuid, user_id, md5('order ' || n)::uuid, md5('product ' || n)::uuid, 1 from member;
insert into smart_recall_notes (id, user_id, note) select md5('note ' || n)::uuid, user_id, 'note' from member;
insert into app_demo.widgets (id, user_id, label) select md5('widget ' || n)::uuid, user_id, 'widget' from member;

drop table member;
