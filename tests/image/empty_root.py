"""Runs the program where nothing is: a root with its settings, the certificate authorities, and what every container runtime adds (the two
files by which names are resolved, /proc, and the devices of the OCI's specification), under an account that owns nothing, in a network of
its own. One project is found in /etc/hosts and speaks HTTP, the other one by DNS and
speaks TLS under an authority of the bundle.

    python3 empty_root.py PROGRAM
"""

import fcntl
import http.server
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

NOBODY = 65532
DEADLINE = 20
DEVICES = ("null", "zero", "full", "random", "urandom")
SETTINGS = """
listen = "127.0.0.1:18000"
[admin]
listen = "127.0.0.1:18001"
[projects.old]
url = "http://old.hosts.test:18080"
anon_key = "anon-of-old"
[projects.new]
url = "https://new.dns.test:18443"
anon_key = "anon-of-new"
[identity]
sources = ["header:x-who"]
[rollout]
pins = { old = ["ada"], new = ["bob"] }
audit_file = ""
[log]
format = "json"
level = "warn"
"""


def main(program):
    if "CUTOVER_EMPTY_ROOT" not in os.environ:
        # A network of its own: port 53 is free, and nothing can leave. Without root, as the root of a namespace of its own.
        namespace = ["--net", "--mount"] if os.getuid() == 0 else ["--user", "--map-root-user", "--net", "--mount"]
        os.environ["CUTOVER_EMPTY_ROOT"] = "root" if os.getuid() == 0 else "namespace"
        os.execvp("unshare", ["unshare", *namespace, sys.executable, __file__, program])
    with tempfile.TemporaryDirectory() as scratch:
        check(program, Path(scratch))


def check(program, scratch):
    loopback_up()
    authority, certificate = certificates(scratch)
    serve("old", 18080)
    serve("new", 18443, certificate)
    threading.Thread(target=names, daemon=True).start()
    root = scratch / "root"
    furnish(root, program, authority)
    mounted = [bind(path, root) for path in ("/proc", *(f"/dev/{device}" for device in DEVICES))]
    before = contents(root)
    child = subprocess.Popen(["/cutover", "serve", "--config", "/etc/cutover/config/config.toml"], env={}, preexec_fn=lambda: enter(root))
    try:
        until("the probe of readiness to be answered", lambda: get(18001, "/readyz") and True, child)
        assert get(18001, "/healthz"), "no answer to /healthz"
        for who, side in (("ada", "old"), ("bob", "new")):
            answer = get(18000, "/rest/v1/things", {"x-who": who, "apikey": "anon-of-old"})
            assert answer == f"{side} has key anon-of-{side}", f"{who} was answered {answer}"
        assert "process_resident_memory_bytes" in get(18001, "/metrics")
        child.send_signal(signal.SIGTERM)
        assert child.wait(DEADLINE) == 0, f"ended with {child.returncode}"
    finally:
        child.kill()
        child.wait()
        for path in mounted:
            subprocess.run(["umount", "--lazy", path], check=True)
    assert contents(root) == before, "something was written"
    account = f"as {NOBODY}" if os.environ["CUTOVER_EMPTY_ROOT"] == "root" else "as the root of a namespace"
    print(f"image: served both projects in an empty root {account}, by /etc/hosts and by DNS with TLS, and ended with 0")


def furnish(root, program, authority):
    for folder in ("etc/ssl/certs", "etc/cutover/config"):
        (root / folder).mkdir(parents=True)
    shutil.copy(program, root / "cutover")
    shutil.copy(authority, root / "etc/ssl/certs/ca-certificates.crt")
    (root / "etc/cutover/config/config.toml").write_text(SETTINGS)
    (root / "etc/hosts").write_text("127.0.0.1 localhost old.hosts.test\n")
    (root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    root.parent.chmod(0o755)


def bind(path, root):
    """What the machine has there, in the root too."""
    at = root / path.lstrip("/")
    at.parent.mkdir(exist_ok=True)
    at.mkdir() if os.path.isdir(path) else at.touch()
    subprocess.run(["mount", "--rbind", path, at], check=True)
    return at


def contents(root):
    files = [path for folder in ("etc", "cutover") for path in (root / folder, *(root / folder).rglob("*"))]
    return sorted(os.listdir(root)), [(str(path), path.stat().st_mtime_ns) for path in files]


def enter(root):
    os.chroot(root)
    os.chdir("/")
    if os.environ["CUTOVER_EMPTY_ROOT"] == "root":
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def loopback_up():
    with socket.socket() as any_socket:
        flags_up = struct.pack("16sh", b"lo", 1)
        fcntl.ioctl(any_socket, 0x8914, flags_up)  # SIOCSIFFLAGS, IFF_UP


def certificates(scratch):
    """An authority, and what it says of new.dns.test."""
    run = lambda *arguments: subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
    ca, ca_key, key, request, leaf, extensions = (scratch / name for name in ("ca.pem", "ca.key", "key.pem", "request.pem", "leaf.pem", "extensions"))
    extensions.write_text("subjectAltName=DNS:new.dns.test\nbasicConstraints=CA:FALSE\n")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-subj", "/CN=an authority", "-days", 2)
    run("req", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=new.dns.test")
    run("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", 2, "-extfile", extensions, "-out", leaf)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf, key)
    return ca, context


def serve(name, port, tls=None):
    """A project that says which one it is and which key it was given."""

    class Project(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = f"{name} has key {self.headers['apikey']}".encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Project)
    server.daemon_threads = True
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def names():
    """A name server that knows the address of new.dns.test, and that nothing else exists."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        while True:
            query, client = server.recvfrom(512)
            end = query.index(0, 12) + 5
            question, (kind,) = query[12:end], struct.unpack("!H", query[end - 4 : end - 2])
            known = question.startswith(b"\x03new\x03dns\x04test\x00")
            answer = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes([127, 0, 0, 1]) if known and kind == 1 else b""
            flags = 0x8580 if known else 0x8583  # authoritative; no such name
            server.sendto(query[:2] + struct.pack("!HHHHH", flags, 1, 1 if answer else 0, 0, 0) + question + answer, client)


def get(port, path, headers=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers or {})
    with urllib.request.urlopen(request, timeout=DEADLINE) as response:
        return response.read().decode() or "empty"


def until(what, probe, child):
    end = time.monotonic() + DEADLINE
    while True:
        try:
            if probe():
                return
        except OSError as error:
            fault = error
        assert child.poll() is None, f"the program ended with {child.returncode} before {what}"
        assert time.monotonic() < end, f"waited {DEADLINE} s for {what}: {fault}"
        time.sleep(0.02)


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]))
