"""A whole supabase-py application in every service at once, as it was written for OLD: whole-app.mjs again, with the Python client.

    SUPABASE_URL=... SUPABASE_ANON_KEY=... python whole_app.py

Signs up a user of its own and prints one JSON document of what every call answered and every subscription heard, free of ids and times.
supabase-py speaks vsn 1.0.0 over its socket and reads every message against a schema of its own.
"""

import asyncio
import json
import os
import re
import time
import uuid

from postgrest import APIError
from supabase import AsyncClientOptions, acreate_client
from supabase_auth.errors import AuthApiError
from supabase_functions.errors import FunctionsHttpError

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)?")
SECONDS = 20

email = f"user-{uuid.uuid4()}@example.com"
password = "correct horse battery staple"
steps, ids = [], {}


def add(step, value):
    text = json.dumps({"step": step, **value}, ensure_ascii=False, default=str).replace(email, "<email>").replace(os.environ["SUPABASE_URL"], "<url>")
    steps.append(json.loads(UUID.sub(lambda found: ids.setdefault(found[0], f"<id {len(ids) + 1}>"), TIME.sub("<time>", text))))


async def note(step, query):
    """Carries a query out and keeps what it answered; returns its data."""
    try:
        answer = await query.execute()
    except APIError as error:
        add(step, {"error": error.json()})
        return None
    add(step, {"data": answer.data})
    return answer.data


async def until(probe, seconds=SECONDS):
    """Waits for the probe, no longer than that: what is missing then is missing in the document."""
    end = time.monotonic() + seconds
    while not probe() and time.monotonic() < end:
        await asyncio.sleep(0.01)


class Live:
    """What an application keeps open: database changes, and a room with broadcast and presence."""

    def __init__(self, client, user):
        self.client, self.user = client, user
        self.heard = {"topics": [], "wanted": [], "vendors": [], "widgets": [], "anything": [], "gone": []}
        self.words, self.probed = [], False
        self.mine = set()  # whose deletion is told to everybody: who could see the row cannot be asked any more

    def keep(self, where):
        def callback(payload):
            data = payload["data"]
            if data["type"] == "INSERT":
                self.mine.add(data["record"]["id"])
            probe, foreign = data["table"] == "smart_recall_notes", data["type"] == "DELETE" and data["old_record"]["id"] not in self.mine
            if not probe and not foreign:
                told = {name: data.get(name) for name in ("type", "schema", "table", "columns", "record", "old_record", "errors")}
                self.heard[where].append(told)

        return callback

    async def subscribe(self, channel):
        def said(state, error):
            self.words.append(f"{state.value}: {error}" if error else state.value)

        await channel.subscribe(said)
        return self.words[-1]

    async def open(self):
        channel = self.client.channel("changes")
        channel.on_postgres_changes("*", self.keep("topics"), schema="public", table="topics")
        channel.on_postgres_changes("INSERT", self.keep("wanted"), schema="public", table="topics", filter="name=eq.proxies")
        channel.on_postgres_changes("INSERT", self.keep("vendors"), schema="public", table="vendor_organizations", filter=f"user_id=eq.{self.user.id}")
        channel.on_postgres_changes("*", self.keep("widgets"), schema="app_demo", table="widgets")
        channel.on_postgres_changes("INSERT", self.keep("anything"), schema="public")
        channel.on_postgres_changes("DELETE", self.keep("gone"), schema="*")
        channel.on_postgres_changes("INSERT", lambda payload: setattr(self, "probed", True), schema="public", table="smart_recall_notes")
        add("live: subscribe", {"status": await self.subscribe(channel)})
        end = time.monotonic() + SECONDS
        while not self.probed and time.monotonic() < end:
            await self.client.table("smart_recall_notes").insert({"note": "is anybody there?"}).execute()
            await until(lambda: self.probed, 0.25)
        add("live: in force", {"probed": self.probed})

    async def heard_all(self, when, **counts):
        await until(lambda: all(len(self.heard[where]) >= count for where, count in counts.items()))
        add(f"live: heard {when}", {"data": self.heard})

    async def use_rooms(self):
        said = []
        room = self.client.channel(f"lobby-{self.user.id}", {"config": {"broadcast": {"self": True, "ack": True}, "presence": {"key": self.user.id, "enabled": True}, "private": False}})
        room.on_broadcast("ping", lambda message: said.append(message["payload"]))
        room.on_presence_sync(lambda: None)
        add("room: subscribe", {"status": await self.subscribe(room)})
        await room.send_broadcast("ping", {"text": "grüße"})
        await room.track({"mood": "fine"})
        here = lambda: [one.get("mood") for one in room.presence_state().get(self.user.id, [])]
        await until(lambda: said and here())
        add("room: seen", {"said": said, "here": here()})
        await room.untrack()
        await until(lambda: not here())
        add("room: left", {"here": here()})

    async def close(self):
        add("live: said", {"words": self.words})
        await self.client.remove_all_channels()


async def use_storage(client, user):
    bucket, path = client.storage.from_("artifacts"), f"{user.id}/notes/hello.txt"
    names = lambda files: [file["name"] for file in files]
    add("storage: upload", {"path": (await bucket.upload(path, b"hello storage", {"content-type": "text/plain"})).path})
    add("storage: list", {"names": names(await bucket.list(f"{user.id}/notes"))})
    add("storage: download", {"text": (await bucket.download(path)).decode()})
    add("storage: remove", {"names": names(await bucket.remove([path]))})
    add("storage: list again", {"names": names(await bucket.list(f"{user.id}/notes"))})
    pictures, face = client.storage.from_("pictures"), f"{user.id}/face.txt"
    add("storage: upload to a public bucket", {"path": (await pictures.upload(face, b"a face", {"content-type": "text/plain"})).path})
    shown = await client.postgrest.session.get(await pictures.get_public_url(face))
    add("storage: public address", {"status": shown.status_code, "text": shown.text})


async def use_functions(client):
    add("functions: hello", {"data": json.loads(await client.functions.invoke("hello", {"body": {"name": "ada"}}))})
    try:
        await client.functions.invoke("nowhere")
    except FunctionsHttpError as error:
        add("functions: missing", {"error": error.message})


async def main():
    client = await acreate_client(os.environ["SUPABASE_URL"], os.environ["SUPABASE_ANON_KEY"], AsyncClientOptions(auto_refresh_token=False, persist_session=False))
    await client.auth.sign_up({"email": email, "password": password})
    await client.auth.sign_out()
    try:
        await client.auth.sign_in_with_password({"email": email, "password": "wrong"})
    except AuthApiError as error:
        add("auth: wrong password", {"error": error.message})
    await client.auth.sign_in_with_password({"email": email, "password": password})
    await client.auth.refresh_session()
    user = (await client.auth.get_user()).user
    add("auth", {"email": user.email, "role": user.role})

    live = Live(client, user)
    await live.open()
    topic = await note("insert", client.table("topics").insert({"name": "proxies"}))
    await note("insert, filtered out", client.table("topics").insert({"name": "other"}))
    await note("update", client.table("topics").update({"name": "reverse proxies"}).eq("id", topic[0]["id"]))
    await note("insert into a renamed table", client.table("vendor_organizations").insert({"name": "Acme"}))
    await note("insert into another schema", client.schema("app_demo").table("widgets").insert({"label": "knob"}))
    await note("read", client.table("topics").select("name").order("name"))
    await note("read a renamed table", client.table("vendor_organizations").select("name,vendor_api_keys(name)"))
    await note("rpc", client.rpc("whoami"))
    await live.heard_all("with the first token", topics=3, wanted=1, vendors=1, anything=3, widgets=1)
    await live.use_rooms()

    await client.auth.refresh_session()  # while subscribed
    await note("insert after the refresh", client.table("vendor_organizations").insert({"name": "Bolt"}))
    await note("delete", client.table("topics").delete().eq("id", topic[0]["id"]))
    await live.heard_all("after the refresh", topics=4, wanted=1, vendors=2, anything=4, widgets=1, gone=1)

    await use_storage(client, user)
    await use_functions(client)
    await live.close()
    await client.auth.sign_out()
    add("auth: signed out", {"session": await client.auth.get_session()})
    print(json.dumps({"user": user.id, "steps": steps}, ensure_ascii=False, indent=1))


asyncio.run(main())
