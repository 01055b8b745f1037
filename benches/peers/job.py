"""The job that every peer does, as data: users, their tokens, the requests, and what a peer has to make of them. Nothing here touches the machine."""
import base64
import hashlib
import hmac
import json
import random
import uuid

OLD_HOST, NEW_HOST = "old.project.test", "new.project.test"
SECRET = b"bench-only-jwt-secret-with-at-least-32-characters"
TABLE = {"memory_entries": "security_service", "api_keys": "security_service", "audit_log": "security_service",
         "profiles": "identity_service", "settings": "identity_service", "messages": "chat_service",
         "documents": "content_service", "invoices": "billing_service"}
FIRST_PERCENTAGE, SECOND_PERCENTAGE = 30, 60
USERS = 500
GET_PATH = "/rest/v1/memory_entries?select=*&order=created_at.desc&limit=20"
# A function's WebSocket: cutover tunnels it blindly, while it ends those of /realtime/ itself. The other peers know no difference.
TUNNEL_PATH = "/functions/v1/echo"
ISSUED = 1767225600
WS_HEADERS = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}


def b64u(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


HEAD = b64u(json.dumps({"alg": "HS256", "kid": "benchKid01234567", "typ": "JWT"}, separators=(",", ":")).encode())


def jwt(claims):
    body = HEAD + "." + b64u(json.dumps(claims, separators=(",", ":")).encode())
    return body + "." + b64u(hmac.new(SECRET, body.encode(), hashlib.sha256).digest())


def users(count=USERS):
    """The same random ids in every run."""
    chance = random.Random(7)
    return [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(count)]


def token(user, issued=ISSUED):
    """A Supabase-like access token."""
    mail = f"user.{user[:8]}@example.test"
    return jwt({"iss": f"https://{OLD_HOST}/auth/v1", "sub": user, "aud": "authenticated", "exp": issued + 10 ** 9,
                "iat": issued, "email": mail, "phone": "", "app_metadata": {"provider": "email", "providers": ["email"]},
                "user_metadata": {"email": mail, "email_verified": True, "phone_verified": False, "sub": "not-" + user[4:]},
                "role": "authenticated", "aal": "aal1", "amr": [{"method": "password", "timestamp": issued}],
                "session_id": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{user}{issued}")), "is_anonymous": False})


def anon_key(ref):
    return jwt({"iss": "supabase", "ref": ref, "role": "anon", "iat": ISSUED, "exp": ISSUED + 10 ** 9})


OLD_KEY, NEW_KEY = anon_key("oldoldoldoldoldoldol"), anon_key("newnewnewnewnewnewne")


def bucket(user):
    """The bucket, 0 to 99, of the peers whose job is jwt-sha256. Cutover has 10,000 buckets and a salt, so that its job is jwt."""
    return int.from_bytes(hashlib.sha256(user.encode()).digest()[:4], "big") % 100


def hex_pattern(percentage):
    """A regular expression for the last two hex digits of a UUID that lets this share through, in steps of 1/256: for peers without a hash."""
    threshold = round(percentage * 256 / 100)
    if threshold >= 256:
        return "."
    high, low = divmod(threshold, 16)
    digits = "0123456789abcdef"
    parts = [f"[{digits[:high]}][0-9a-f]"] if high else []
    parts += [f"{high:x}[{digits[:low]}]"] if low else []
    return "(" + "|".join(parts) + ")$" if parts else "^$"


def headers(user, bearer=None):
    fields = {"Host": "api.example.test",
              "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36",
              "Accept": "*/*", "Accept-Language": "en-GB,en;q=0.9", "apikey": OLD_KEY, "X-Client-Info": "supabase-js-web/2.47.10",
              "Origin": "https://app.example.test", "Referer": "https://app.example.test/"}
    if user:
        fields["Authorization"] = "Bearer " + (bearer or token(user))
        fields["X-User-Id"] = user
    return fields


def raw(method, path, fields, body=b""):
    """A request as its bytes."""
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    if method == "POST":
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def realtime_path(vsn):
    return f"/realtime/v1/websocket?apikey={OLD_KEY}&vsn={vsn}.0.0"


def request_sets():
    """Name of a set, and its requests."""
    people, big = users(), b"x" * 65536
    accept, content = {"Accept-Profile": "public"}, {"Content-Profile": "public"}
    return {"get1k": [raw("GET", GET_PATH, headers(u) | accept) for u in people],
            "get64k": [raw("GET", "/rest/v1/documents?select=64k", headers(u) | accept) for u in people[:100]],
            "post64k": [raw("POST", "/rest/v1/documents", headers(u) | content, big) for u in people[:100]],
            "close": [raw("GET", GET_PATH, headers(u) | accept | {"Connection": "close"}) for u in people],
            "ws": [raw("GET", TUNNEL_PATH, headers(u) | WS_HEADERS) for u in people],
            "realtime1": [raw("GET", realtime_path(1), headers(u) | WS_HEADERS) for u in people],
            "realtime2": [raw("GET", realtime_path(2), headers(u) | WS_HEADERS) for u in people]}


TOPIC = "realtime:bench"


def join_frame(vsn, user):
    """A channel with broadcast to its sender and without database changes: a room, so that its frames need no other words."""
    payload = {"config": {"broadcast": {"ack": False, "self": True}, "presence": {"key": "", "enabled": False}, "postgres_changes": [], "private": False},
               "access_token": token(user)}
    return frame(vsn, TOPIC, "phx_join", payload, "1", "1")


def say_frame(vsn, kind):
    """What is said again and again on the joined channel: a "heartbeat" or a "broadcast"."""
    if kind == "heartbeat":
        return frame(vsn, "phoenix", "heartbeat", {}, "2", None)
    move = {"type": "broadcast", "event": "move", "payload": {"x": 104, "y": 219, "id": "5e0f6a52-8d0e-4a5b-9d9e-0c7a1b2c3d4e"}}
    return frame(vsn, TOPIC, "broadcast", move, "3", "1")


def frame(vsn, topic, event, payload, ref, join_ref):
    if vsn == 1:
        message = {"topic": topic, "event": event, "payload": payload, "ref": ref} | ({"join_ref": join_ref} if join_ref else {})
    else:
        message = [join_ref, ref, topic, event, payload]
    return json.dumps(message, separators=(",", ":"))
