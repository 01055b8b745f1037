"""A live change of the percentage under load: 20 kept-alive connections and 10 WebSockets that must not notice."""
import asyncio
import re
import time

from job import GET_PATH, SECOND_PERCENTAGE, TUNNEL_PATH, WS_HEADERS, headers, raw, users

CONNECTIONS, SOCKETS = 20, 10
LOST = (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, TypeError)


class Flip:
    """Times are milliseconds from the start of the peer's command."""

    def __init__(self, peer, seconds=5.0):
        self.peer, self.stop = peer, time.time() + seconds
        self.users = users()
        self.requests = {user: raw("GET", GET_PATH, headers(user)) for user in self.users}
        self.seen = []  # asked at, answered at, user, whether by NEW
        self.lost = self.closed = self.non200 = self.sockets_closed = 0
        self.began = self.ended = 0.0

    def run(self):
        asyncio.run(self.all())
        return self.summary()

    async def all(self):
        sockets = SOCKETS if "ws" in self.peer.features else 0
        tasks = [asyncio.create_task(self.connection(k)) for k in range(CONNECTIONS)]
        tasks += [asyncio.create_task(self.socket(self.users[k])) for k in range(sockets)]
        await asyncio.sleep(1.5)
        await asyncio.to_thread(self.change)
        await asyncio.gather(*tasks)

    def change(self):
        self.began = time.time()
        self.peer.set_percentage(SECOND_PERCENTAGE)
        self.ended = time.time()

    async def connection(self, at):
        reader = writer = None
        while time.time() < self.stop:
            user = self.users[at % len(self.users)]
            at += CONNECTIONS
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.peer.http)
                said_close = await self.ask(reader, writer, user)
                await asyncio.sleep(0.005)
                if said_close or reader.at_eof():  # between two requests: nothing is lost
                    self.closed += 1
                    writer.close()
                    writer = None
            except LOST:
                self.lost += 1
                self.closed += 1
                if writer:
                    writer.close()
                writer = None
        if writer:
            writer.close()

    async def ask(self, reader, writer, user):
        asked = time.time()
        writer.write(self.requests[user])
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        await asyncio.wait_for(reader.readexactly(int(re.search(rb"(?i)content-length: *(\d+)", head)[1])), 5)
        self.non200 += head[9:12] != b"200"
        self.seen.append((asked, time.time(), user, b"x-side: new" in head.lower()))
        return re.search(rb"(?i)\r\nconnection: close", head) is not None

    async def socket(self, user):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.peer.http)
            writer.write(raw("GET", TUNNEL_PATH, headers(user) | WS_HEADERS))
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            while time.time() < self.stop:
                writer.write(b"\x82\x84\0\0\0\0ping")
                await asyncio.wait_for(reader.readexactly(6), 5)
                await asyncio.sleep(0.05)
            writer.close()
        except LOST:
            self.sockets_closed += 1

    def summary(self):
        before = {user: is_new for _, answered, user, is_new in self.seen if answered < self.began}
        after = {user: is_new for asked, _, user, is_new in self.seen if asked > self.stop - 2.0}
        flipped = {user for user in before if not before[user] and after.get(user)}
        late = [asked - self.began for asked, _, user, is_new in self.seen if user in flipped and not is_new and asked > self.began]
        first = [asked - self.began for asked, _, user, is_new in self.seen if user in flipped and is_new]
        return {"cmd_ms": round((self.ended - self.began) * 1e3, 1), "first_new_ms": round(min(first) * 1e3, 1) if first else None,
                "last_old_ms": round(max(late) * 1e3, 1) if late else 0, "flipped": len(flipped),
                "moved_back": sum(before[user] and user in after and not after[user] for user in before),
                "share_after": round(sum(after.values()) / max(1, len(after)), 3), "requests": len(self.seen), "non200": self.non200,
                "lost": self.lost, "conns_closed": self.closed, "ws_closed": self.sockets_closed}
