"""A supabase-py application in OLD's dialect: sign-up to sign-out, rows, embeds, counts, functions of the database.

    SUPABASE_URL=... SUPABASE_ANON_KEY=... python app_old_dialect.py

Signs up a user of its own and prints one JSON document of what every call answered, free of ids and times. supabase-py differs from
supabase-js on the wire: it sends both profile headers with every request, speaks HTTP/2 where it can and follows redirects.
"""

import json
import os
import re
import uuid

from postgrest import APIError, CountMethod
from supabase import ClientOptions, create_client

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)?")

email = f"user-{uuid.uuid4()}@example.com"
password = "correct horse battery staple"
client = create_client(os.environ["SUPABASE_URL"], os.environ["SUPABASE_ANON_KEY"], ClientOptions(auto_refresh_token=False, persist_session=False))
steps, ids = [], {}


def normal(value):
    text = json.dumps(value, ensure_ascii=False).replace(email, "<email>")
    return json.loads(UUID.sub(lambda found: ids.setdefault(found[0], f"<id {len(ids) + 1}>"), TIME.sub("<time>", text)))


def note(step, query):
    """Carries a query out and keeps what it answered; returns its data."""
    try:
        answer = query.execute()
    except APIError as error:
        steps.append(normal({"step": step, "error": error.json()}))
        return None
    if answer is None:  # maybe_single found none
        steps.append({"step": step, "data": None})
        return None
    steps.append(normal({"step": step, "data": answer.data, "count": answer.count}))
    return answer.data


session = client.auth.sign_up({"email": email, "password": password})
client.auth.sign_out()
session = client.auth.sign_in_with_password({"email": email, "password": password})
client.auth.refresh_session()
user = client.auth.get_user().user
steps.append(normal({"step": "auth", "email": user.email, "role": user.role}))

note("insert", client.table("profiles").insert({"user_id": user.id, "display_name": "Ada"}))
note("insert several", client.table("memory_entries").insert(
    [{"title": f"memory {n}", "importance": n, "embedding": f"[{n},1,0]"} for n in range(1, 4)], default_to_null=False))
note("upsert", client.table("user_settings").upsert({"key": "theme", "value": "dark"}, on_conflict="user_id,key"))
note("select", client.table("memory_entries").select("title,importance").order("title"))
note("filters", client.table("memory_entries").select("title").in_("title", ["memory 1", "memory 3"]).gt("importance", 1))
note("or", client.table("memory_entries").select("title").or_("importance.eq.1,importance.eq.2").order("title"))
note("range with count", client.table("memory_entries").select("title", count=CountMethod.exact).order("title").range(1, 2))
note("count only", client.table("memory_entries").select("*", count=CountMethod.exact, head=True))
note("csv", client.table("memory_entries").select("title,importance").order("title").csv())
note("single", client.table("memory_entries").select("title").eq("title", "memory 1").single())
note("maybe single", client.table("memory_entries").select("title").eq("title", "none").maybe_single())

vendor = note("organization", client.table("vendor_organizations").insert({"name": "Acme"}))[0]
note("vendor key", client.table("vendor_api_keys").insert({"organization_id": vendor["id"], "name": "main"}))
note("embed children", client.table("vendor_organizations").select("name,vendor_api_keys(name)"))
note("embed parent", client.table("vendor_api_keys").select("name,vendor_organizations!inner(name)").eq("vendor_organizations.name", "Acme"))
note("embed across domains", client.table("profiles").select("display_name,orders(status)"))
note("update", client.table("vendor_api_keys").update({"active": False}).eq("name", "main"))
note("delete", client.table("memory_entries").delete().eq("title", "memory 3"))

note("rpc", client.rpc("match_memories", {"query_embedding": "[1,1,0]", "match_threshold": 0.1, "match_count": 2}))
note("rpc by get", client.rpc("match_memories", {"query_embedding": "[1,1,0]", "match_threshold": 0.1, "match_count": 1}, get=True))
note("other schema", client.schema("app_demo").table("widgets").insert({"label": "knob"}))

note("missing table", client.table("zzz_nowhere").select("*"))
note("not mine to write", client.table("memory_entries").insert({"title": "alien", "user_id": "00000000-0000-0000-0000-000000000001"}))

client.auth.sign_out()
steps.append({"step": "auth: signed out", "session": client.auth.get_session()})
print(json.dumps({"user": user.id, "steps": steps}, ensure_ascii=False, indent=1))
