"""Does a peer do its part of the job? Asked before anything is measured: a fast wrong answer is worth nothing."""
import http.client
import json
import socket
import ssl

from job import (FIRST_PERCENTAGE, GET_PATH, ISSUED, NEW_HOST, NEW_KEY, OLD_HOST, OLD_KEY, TUNNEL_PATH, WS_HEADERS, b64u, bucket, headers, join_frame,
                 raw, realtime_path, say_frame, token, users)


class Check:
    """`bad` holds each complaint once; `sides` the side of every user."""

    def __init__(self, peer):
        self.peer, self.bad, self.sides = peer, [], {}
        self.connection = http.client.HTTPConnection("127.0.0.1", peer.http, timeout=5)

    def say(self, is_right, complaint):
        if not is_right and complaint not in self.bad:
            self.bad.append(complaint)

    def ask(self, method, path, fields, body=None, connection=None):
        connection = connection or self.connection
        connection.request(method, path, body, fields)
        answer = connection.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}

    def run(self):
        try:
            if self.peer.job == "none":
                status, seen = self.ask("GET", GET_PATH, headers(users(1)[0]))
                self.say(status == 200 and seen.get("x-side") == "old", "pass-through")
            else:
                self.every_user()
                self.other_requests()
                self.no_user()
            if "tls" in self.peer.features:
                self.tls()
            if "ws" in self.peer.features:
                self.tunnel()
            if "realtime" in self.peer.features:
                for vsn in (1, 2):
                    self.realtime(vsn)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.say(False, f"gave up: {error!r}")
        self.connection.close()
        return self.bad

    def every_user(self):
        for user in users():
            status, seen = self.ask("GET", GET_PATH, headers(user) | {"Accept-Profile": "public"})
            side = self.sides[user] = seen.get("x-side")
            is_new = side == "new"
            self.say(status == 200, f"status {status}")
            self.say(seen.get("x-seen-profile") == ("security_service" if is_new else "public"), f"GET profile on {side}: {seen.get('x-seen-profile')}")
            self.say(seen.get("x-seen-apikey") == (NEW_KEY if is_new else OLD_KEY)[-8:], f"apikey on {side}")
            self.say(seen.get("x-seen-host") == (NEW_HOST if is_new else OLD_HOST), f"host on {side}: {seen.get('x-seen-host')}")
            self.say(seen.get("x-seen-forwarded-for", "-") != "-", "x-forwarded-for")
            if self.peer.job == "jwt-sha256":
                self.say(is_new == (bucket(user) < FIRST_PERCENTAGE), "bucket is not sha256[:4] mod 100")
        self.say(abs(self.share() - FIRST_PERCENTAGE / 100) < 0.07, f"share of NEW {self.share():.2f}")

    def share(self):
        return sum(side == "new" for side in self.sides.values()) / max(1, len(self.sides))

    def other_requests(self):
        for user in users()[:60]:
            is_new = self.sides[user] == "new"
            _, seen = self.ask("GET", GET_PATH, headers(user, token(user, ISSUED + 3600)))
            self.say(seen.get("x-side") == self.sides[user], "refreshed token changes side")
            # Where the client sent no profile, OLD may get an explicit `public`: Cutover always names the schema that is meant, because which
            # schema PostgREST takes without a profile is up to that project's own settings, and `public` is what OLD's clients mean.
            wanted = ["security_service"] if is_new else ["-", "public"]
            self.say(seen.get("x-seen-profile") in wanted, f"absent Accept-Profile on {self.sides[user]}: {seen.get('x-seen-profile')}")
            status, seen = self.ask("POST", "/rest/v1/messages", headers(user) | {"Content-Profile": "public"}, b'{"a":1}')
            self.say(status == 201 and seen.get("x-seen-content-profile") == ("chat_service" if is_new else "public"), "POST profile")
            _, seen = self.ask("GET", "/rest/v1/unmapped?select=*", headers(user) | {"Accept-Profile": "other"})
            self.say(seen.get("x-seen-profile") == "other" and seen.get("x-side") == self.sides[user], "unmapped table keeps its profile")
        status, _ = self.ask("POST", "/rest/v1/documents", headers(users(1)[0]), b"x" * 65536)
        self.say(status == 201, "64 KB POST")

    def no_user(self):
        status, seen = self.ask("GET", GET_PATH, headers(None))
        self.say(status == 200 and seen.get("x-side") == "old", "no user goes to OLD")
        if not self.peer.job.startswith("jwt"):
            return
        for bearer in ("garbage", "a.b.c", "a." + b64u(b'{"nosub":1}') + ".c", ".."):
            for spoof in ("x-split-user", "x-split-hash", "x-side"):
                status, seen = self.ask("GET", GET_PATH, headers(None) | {"Authorization": "Bearer " + bearer, spoof: "5"})
                self.say(status == 200 and seen.get("x-side") == "old", f"bad token {bearer[:7]!r} goes to OLD")

    def tls(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        connection = http.client.HTTPSConnection("127.0.0.1", self.peer.https, timeout=5, context=context)
        for user in users()[:20]:
            status, seen = self.ask("GET", GET_PATH, headers(user), connection=connection)
            self.say(status == 200 and seen.get("x-side") == self.sides[user], "TLS: same side")
        connection.close()
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(socket.create_connection(("127.0.0.1", self.peer.https), 5)) as connection:
            self.say(connection.selected_alpn_protocol() == "h2", "h2 by ALPN")

    def tunnel(self):
        with Socket(self.peer.http, TUNNEL_PATH) as stream:
            self.say(stream.status == 101, f"WebSocket: {stream.status}")
            stream.send(0x82, b"ping")
            self.say(stream.receive() == b"ping", "WebSocket: echo")

    def realtime(self, vsn):
        user = users(1)[0]
        with Socket(self.peer.http, realtime_path(vsn)) as stream:
            self.say(stream.status == 101, f"realtime {vsn}: {stream.status}")
            stream.send(0x81, join_frame(vsn, user).encode())
            reply = json.loads(stream.receive())
            payload = reply["payload"] if vsn == 1 else reply[4]
            self.say(payload["status"] == "ok", f"realtime {vsn}: join")
            for kind in ("heartbeat", "broadcast"):
                said = say_frame(vsn, kind).encode()
                stream.send(0x81, said)
                heard = stream.receive()
                is_right = heard == said if kind == "broadcast" else b'"ok"' in heard and b"phx_reply" in heard
                self.say(is_right, f"realtime {vsn}: {kind}")


class Socket:
    """A WebSocket, as much of it as the check needs."""

    def __init__(self, port, path):
        self.connection = socket.create_connection(("127.0.0.1", port), 5)
        self.file = self.connection.makefile("rb")
        self.connection.sendall(raw("GET", path, headers(users(1)[0]) | WS_HEADERS))
        self.status = int(self.file.readline().split()[1])
        while self.file.readline().strip():
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.connection.close()

    def send(self, first, payload):
        length = bytes([0x80 | len(payload)]) if len(payload) < 126 else bytes([0xfe]) + len(payload).to_bytes(2, "big")
        self.connection.sendall(bytes([first]) + length + bytes(4) + payload)

    def receive(self):
        _, length = self.file.read(2)
        return self.file.read(int.from_bytes(self.file.read(2), "big") if length == 126 else length)
