#!/usr/bin/env python3
"""Grows the corpora from what real SDKs and the proxy said to each other:

    CUTOVER_E2E_RECORD=/tmp/record tests/e2e/run.sh
    fuzz/corpus.py /tmp/record      # one input for each different kind of message, with made-up secrets
    fuzz/run.sh --merge             # and of those only what reaches something new

Inputs that stand in a corpus already stay there.
"""

import hashlib
import json
import re
import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
METHODS = {"rest": ["GET", "POST", "PATCH", "DELETE", "HEAD", "PUT", "OPTIONS"], "storage": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]}
LONGEST = 3000
MADE_UP = [
    (rb"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"),
    (rb"sb_(publishable|secret)_[A-Za-z0-9_-]+", rb"sb_\1_made_up"),
    (rb"[A-Za-z0-9._+-]+(@|%40)[A-Za-z0-9.-]+", rb"ada\1example.com"),
    (rb'("(?:password|refresh_token|access_token|code_verifier|secret)"\s*:\s*")[^"]*"', rb'\1made-up"'),
    (rb"(?i)(sec-websocket-key: )[^\r\n]*", rb"\1dGhlIHNhbXBsZSBub25jZQ=="),
    (rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", b"6f1f0c9e-0000-4000-8000-000000000001"),
    (rb"(?i)(127\.0\.0\.1|localhost):\d+", rb"127.0.0.1:8000"),
    (rb"[A-Za-z0-9_-]{60,}", b"made-up"),
]


def cleaned(data):
    for pattern, made_up in MADE_UP:
        data = re.sub(pattern, made_up, data)
    return data


class Corpus:
    """Inputs by target, one for each kind."""

    def __init__(self):
        self.kinds = {}

    def add(self, target, kind, data):
        if len(data) <= LONGEST:
            self.kinds.setdefault(target, {}).setdefault(kind, data)

    def write(self):
        for target, kinds in sorted(self.kinds.items()):
            folder = HERE / "corpus" / target
            folder.mkdir(parents=True, exist_ok=True)
            for data in kinds.values():
                (folder / hashlib.sha1(data).hexdigest()[:16]).write_bytes(data)
            print(f"{target}: {len(kinds)} kinds, {sum(map(len, kinds.values()))} bytes")


def shape(text):
    """What makes two messages of the same kind: everything but numbers and names of one run."""
    return re.sub(rb"[0-9]+|made-up|[0-9a-f]{8,}", b"#", text)


def messages(data, of_requests, methods=None):
    """HTTP/1.1 messages: head, headers, body; and what stands behind an upgrade. Stops at what it can't read."""
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.split(b"\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        body, raw = b"", b""
        status = b"" if of_requests else lines[0].split(b" ")[1]
        method = methods.pop(0) if methods else b"GET"
        if headers.get(b"upgrade", b"").lower() == b"websocket" or status == b"101":
            yield head, headers, body, raw, data
            return
        bare = not of_requests and (method == b"HEAD" or status in (b"204", b"304") or status.startswith(b"1"))
        if status.startswith(b"1") and methods is not None:
            methods.insert(0, method)
        if b"chunked" in headers.get(b"transfer-encoding", b"").lower() and not bare:
            raw_start = data
            while True:
                size, _, data = data.partition(b"\r\n")
                length = int(size.split(b";")[0] or b"0", 16)
                body, data = body + data[:length], data[length + 2:] if length else data
                if not length:
                    _, _, data = data.partition(b"\r\n")
                    break
            raw = raw_start[: len(raw_start) - len(data)]
        elif not bare:
            length = int(headers.get(b"content-length", b"0"))
            body = raw = data[:length]
            data = data[length:]
        yield head, headers, body, raw, b""


def frames(data):
    """Whole messages of one direction of a WebSocket: opcode, payload, and the frame as it went."""
    while len(data) >= 2:
        length, at = data[1] & 0x7F, 2
        if length == 126:
            length, at = struct.unpack(">H", data[2:4])[0], 4
        elif length == 127:
            length, at = struct.unpack(">Q", data[2:10])[0], 10
        mask = data[at : at + 4] if data[1] & 0x80 else b"\0" * 4
        at += 4 if data[1] & 0x80 else 0
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data[at : at + length]))
        if len(payload) < length:
            return
        yield data[0] & 0x0F, payload, data[: at + length]
        data = data[at + length :]


def frame_of(opcode, payload):
    """The same, with made-up secrets, as a client would frame it."""
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload


def step(who, opcode, payload):
    """One step of a script of the target `realtime`."""
    return bytes([who | (0x80 if opcode == 2 else 0)]) + struct.pack("<H", len(payload)) + payload


def connection(corpus, up, down):
    requests = list(messages(up, True))
    methods = [head.split(b" ", 1)[0] for head, *_ in requests]
    answers = [answer for answer in messages(down, False, list(methods)) if not answer[0].split(b" ")[1].startswith(b"1") or b" 101" in answer[0][:13]]
    for index, (head, headers, body, raw, rest) in enumerate(requests):
        answer = answers[index] if index < len(answers) else None
        line = cleaned(head.split(b"\r\n")[0])
        method, target = line.split(b" ")[:2]
        path, _, query = target.partition(b"?")
        names = b" ".join(sorted(headers))
        kind = shape(method + b" " + re.sub(rb"=[^&]*", b"=", target[:120]) + names)
        corpus.add("request", shape(method + b"/".join(path.split(b"/")[:4]) + names), b"\x0f" + cleaned(head) + b"\r\n\r\n" + cleaned_body(headers, raw))
        if answer:
            answer_line = answer[0].split(b"\r\n")[0]
            corpus.add("response", (answer_line, tuple(sorted(answer[1]))), b"\x0f" + cleaned(answer[0]) + b"\r\n\r\n" + cleaned_body(answer[1], answer[3]))
        if path.startswith(b"/rest/v1"):
            error = cleaned(answer[2]) if answer and int(answer[0].split(b" ")[1]) >= 300 else b""
            profile = headers.get(b"content-profile", headers.get(b"accept-profile", b""))
            first = METHODS["rest"].index(method.decode()) | {b"": 0, b"public": 1, b"vendors": 2}.get(profile, 3) << 3
            corpus.add("rest", (kind, shape(error)[:60]), bytes([first]) + path[len(b"/rest/v1"):] + b"\n" + query + b"\n" + error)
        if path.startswith(b"/storage/v1"):
            first = METHODS["storage"].index(method.decode())
            metadata = headers.get(b"upload-metadata", b"")
            text = body if b"json" in headers.get(b"content-type", b"") else b""
            corpus.add("storage", kind, bytes([first]) + path[len(b"/storage/v1"):] + b"\n" + query + b"\n" + metadata + b"\n" + cleaned(text))
        if path.endswith(b"jwks.json") and answer:
            corpus.add("token", "jwks", answer[2])
        if rest:
            socket(corpus, path, query, rest, answer[4] if answer else b"")


def cleaned_body(headers, raw):
    """A body keeps its framing: one of known length its length, whatever is made up in it."""
    if cleaned(raw) == raw:
        return raw
    if b"content-length" in headers:
        return b"x" * len(raw)
    return b"1\r\nx\r\n0\r\n\r\n"


def socket(corpus, path, query, up, down):
    said = [(opcode, cleaned(payload)) for opcode, payload, _ in frames(up)]
    heard = [(opcode, cleaned(payload)) for opcode, payload, _ in frames(down)]
    kinds = (path, tuple(opcode for opcode, _ in said[:6]))
    corpus.add("frames", kinds, b"\x10\xff" + b"".join(frame_of(*one) for one in said[:6] if len(one[1]) < 1000))
    if not path.startswith(b"/realtime"):
        return
    version = 1 if b"vsn=2" in query else 0
    events = tuple(event(payload) for _, payload in said)
    script = bytes([version])
    for at in range(max(len(said), len(heard))):
        for who, messages_of in ((0, said), (1, heard)):
            if at < len(messages_of) and messages_of[at][0] in (1, 2) and len(script) < LONGEST - 800:
                script += step(who, *messages_of[at])
    corpus.add("realtime", (version, tuple(sorted(set(events)))), script)


def event(payload):
    found = re.search(rb'"(phx_\w+|access_token|broadcast|presence|heartbeat|postgres_changes)"', payload)
    return found.group(1) if found else b""


def files(corpus):
    """The settings that the repository ships."""
    root = HERE.parent
    for path in [root / "config.toml", *root.glob("examples/**/*.toml"), *root.glob("k8s/**/*.toml"), *root.glob("demo/**/*.toml")]:
        text = path.read_bytes()
        corpus.add("config", path.name, text)
        # Parts of it, so that each is changed by itself.
        for part in re.split(rb"\n(?=\[)", text):
            corpus.add("config", shape(part), part)
    for path in [*root.glob("examples/**/*.env"), *root.glob("**/*.env.example")]:
        corpus.add("envfile", path.name, path.read_bytes())
    corpus.add("envfile", "shell", b"\xef\xbb\xbf# why\nexport V2_ROLLOUT_PERCENTAGE=\"25\" # week 2\nSUPABASE_ENV=\nOTHER='a b'\r\n")
    corpus.add("envfile", "plain", b"V2_ROLLOUT_PERCENTAGE=10\nSUPABASE_ENV=production\nCUTOVER_LIMITS__CONNECTIONS=20000\n")
    corpus.add("configmap", "plain", b"V2_ROLLOUT_PERCENTAGE=25\nSUPABASE_ENV=\n---\nV2_ROLLOUT_PERCENTAGE=50\nSUPABASE_ENV=v2\n")
    corpus.add("configmap", "keys", b"CUTOVER_ROLLOUT__PINS__NEW=[\"ada\"]\nV2_ROLLOUT_PERCENTAGE=12.5\\n\nREADME=hello\n---\nSUPABASE_ENV=production\n---\nV2_ROLLOUT_PERCENTAGE=abc\n")
    corpus.add("token", "claims", json.dumps({"aud": "authenticated", "exp": 1900000000, "iat": 1790000000, "iss": "old/auth/v1", "sub": "ada", "role": "authenticated", "session_id": "s", "aal": "aal1", "amr": [{"method": "password", "timestamp": 1790000000}], "app_metadata": {"provider": "email", "beta": True}, "user_metadata": {}, "is_anonymous": False}).encode())
    corpus.add("token", "token", b"eyJhbGciOiJFUzI1NiIsImtpZCI6ImEiLCJ0eXAiOiJKV1QifQ.eyJzdWIiOiJhZGEiLCJyb2xlIjoiYXV0aGVudGljYXRlZCIsImV4cCI6MTkwMDAwMDAwMH0.c2lnbmF0dXJl")


def main():
    corpus = Corpus()
    files(corpus)
    recorded = sorted(Path(sys.argv[1]).glob("*.up")) if len(sys.argv) > 1 else []
    unread = 0
    for up in recorded:
        down = up.with_suffix(".down")
        try:
            connection(corpus, up.read_bytes(), down.read_bytes() if down.exists() else b"")
        except (ValueError, IndexError, UnicodeDecodeError):
            # What is no HTTP/1.1, or was cut: a test of exactly that.
            unread += 1
    corpus.write()
    print(f"{len(recorded)} connections, {unread} of them not read to their end")


main()
