"""One proxy among the others: its configuration, its life, its percentage."""
import http.client
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from job import (FIRST_PERCENTAGE, GET_PATH, NEW_HOST, NEW_KEY, OLD_HOST, OLD_KEY, SECRET, TABLE, b64u, headers, hex_pattern, users)
from machine import Process, is_busy, wait_port

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
LAB = Path(os.environ.get("LAB") or TARGET / "peers").resolve()
LABTOOL = LAB / "target/release/labtool"
OURS = Path(os.environ.get("CUTOVER_BIN") or TARGET / "release/cutover").resolve()
# Below 32768, where the system takes no ports for its own connections.
OLD, NEW, HTTP, HTTPS, ADMIN = 19001, 19002, 18080, 18443, 18090


def fill(text, values):
    return re.sub(r"@@(\w+)@@", lambda name: str(values[name[1]]), text)


def put(path, text):
    """Writes a file whole or not at all: the peers read it at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.rename(path)


def envoy_routes(percentage, by_header):
    """Envoy's routes: one for each table, then the rest. The split is by the user's id, or by the hash that a filter made of it."""
    user, spread, policy = (("x-split-hash", "header_name: x-split-hash", "") if by_header else
                            ("x-split-user", "use_hash_policy: true", "hash_policy: [{header: {header_name: x-split-user}}], "))

    def added(fields):
        return "[" + ", ".join('{header: {key: %s, value: "%s"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}' % pair for pair in fields) + "]"

    def route(match, fields):
        return (f"              - match: {{ {match}, headers: [{{ name: {user}, present_match: true }}] }}\n"
                f"                route: {{ timeout: 0s, {policy}weighted_clusters: {{ {spread}, runtime_key_prefix: split, clusters: ["
                f"{{name: new, weight: {percentage}, host_rewrite_literal: {NEW_HOST}, request_headers_to_add: {added([('apikey', NEW_KEY)] + fields)}}}, "
                f"{{name: old, weight: {100 - percentage}, host_rewrite_literal: {OLD_HOST}}}] }} }}\n")
    tables = "".join(route(f"path: /rest/v1/{table}", [("Accept-Profile", schema), ("Content-Profile", schema)]) for table, schema in TABLE.items())
    rest = f"              - match: {{ prefix: / }}\n                route: {{ timeout: 0s, cluster: old, host_rewrite_literal: {OLD_HOST} }}\n"
    return tables + route("prefix: /", []) + rest


def traefik_rules(percentage):
    """Middlewares and routers, one of each for a schema."""
    tables = {}
    for table, schema in TABLE.items():
        tables.setdefault(schema, []).append(f"Path(`/rest/v1/{table}`)")
    wares = [f"    {s}: {{ headers: {{ customRequestHeaders: {{ Accept-Profile: {s}, Content-Profile: {s} }} }} }}" for s in tables]
    routers = ["    new-%s: { rule: \"HeaderRegexp(`X-User-Id`, `%s`) && (%s)\", priority: 3, service: new, middlewares: [new, %s] }"
               % (schema, hex_pattern(percentage), " || ".join(paths), schema) for schema, paths in tables.items()]
    return "\n".join(wares), "\n".join(routers)


class Peer:
    def __init__(self, name, spec, threads=1):
        self.name, self.spec, self.threads = name, spec, threads
        self.job = spec.get("job", "jwt-sha256")
        self.features = set(spec.get("features", ["tls", "ws", "flip"])) | set(spec.get("also", []))
        self.folder = LAB / "run" / name
        self.http = int(spec.get("http", HTTP)) if "cmd" in spec else OLD
        self.https = int(spec.get("https", HTTPS))
        self.process = None

    def variables(self, percentage):
        p = percentage
        rows = lambda line: "\n".join(line(table, schema) for table, schema in TABLE.items())
        wares, routers = traefik_rules(p)
        envoy = next((LAB / "venv").glob("lib/python3*/site-packages/envoy/_bin/envoy"), "envoy")
        values = {
            "DIR": self.folder, "HTTP": self.http, "HTTPS": self.https, "OLD": OLD, "NEW": NEW, "ADMIN": ADMIN, "THREADS": self.threads,
            "PCT": p, "PCT_REST": 100 - p, "PCT_STAR": f"{p}% new; * old;" if 0 < p < 100 else ("* new;" if p else "* old;"),
            "PCT_FILE": self.folder / "pct", "HEX_RE": hex_pattern(p), "CERT": LAB / "cert.pem", "KEY": LAB / "key.pem",
            "OLD_HOST": OLD_HOST, "NEW_HOST": NEW_HOST, "NEW_APIKEY": NEW_KEY, "OLD_APIKEY": OLD_KEY,
            "JWT_SECRET_B64": b64u(SECRET), "JWT_SECRET": SECRET.decode(), "TABLE": ",".join(f"{t}={s}" for t, s in TABLE.items()),
            "NGINX_TABLE": rows(lambda t, s: f"        /rest/v1/{t} {s};"), "CADDY_TABLE": rows(lambda t, s: f"\t\t\t/rest/v1/{t} {s}"),
            "TOML_TABLE": rows(lambda t, s: f'{t} = "{s}"'), "PATH_TABLE": rows(lambda t, s: f"/rest/v1/{t} {s}"),
            "ENVOY_ROUTES": envoy_routes(p, self.spec.get("envoy") == "lua"), "TRAEFIK_MW": wares, "TRAEFIK_ROUTERS": routers,
            "MODULES": self.nginx_modules(), "labtool": LABTOOL, "bin": LAB / "target/release", "ours": OURS, "here": HERE,
            "caddy": LAB / "venv/bin/caddy", "traefik": LAB / "venv/bin/traefik", "envoy": envoy}
        for kind, parts in (("nginx", ("http", "server")), ("envoy", ("filter",))):
            for part in parts:
                file = HERE / "config" / f"{kind}-{self.spec.get(kind)}.{part}"
                values["VARIANT_" + part.upper()] = fill(file.read_text(), values) if file.exists() else ""
        return values

    def nginx_modules(self):
        if not self.spec.get("modules"):
            return ""
        built = subprocess.run(["nginx", "-V"], capture_output=True, text=True).stderr
        folder = re.search(r"--modules-path=(\S+)", built)[1]
        return "\n".join(f"load_module {folder}/{module}.so;" for module in self.spec["modules"])

    def expand(self, text, percentage=FIRST_PERCENTAGE):
        values = self.variables(percentage)
        return re.sub(r"\{(\w+)\}", lambda name: str(values[name[1]]), text)

    def missing(self):
        """The program that has to be installed first, if there is one."""
        words = [w for w in self.spec.get("cmd", "").split() if w != "env" and "=" not in w]
        program = self.expand(words[0]) if words else None
        return None if program is None or shutil.which(program) else Path(program).name

    def render(self, percentage):
        values = self.variables(percentage)
        for name, source in self.spec.get("render", {}).items():
            put(self.folder / name, fill((HERE / "config" / source).read_text(), values))
        put(self.folder / "pct", str(percentage))
        (self.folder / "both.pem").write_bytes((LAB / "cert.pem").read_bytes() + (LAB / "key.pem").read_bytes())

    def env(self):
        values = self.variables(FIRST_PERCENTAGE)
        names = ("HTTP", "HTTPS", "OLD", "NEW", "ADMIN", "PCT", "PCT_FILE", "THREADS", "CERT", "KEY", "OLD_HOST", "NEW_HOST", "NEW_APIKEY",
                 "OLD_APIKEY", "TABLE", "DIR", "JWT_SECRET")
        return {"BENCH_" + name: str(values[name]) for name in names}

    def start(self, core):
        """Returns when the first request was answered by a side.

        Raises RuntimeError: a port is taken, or the peer does not get so far within 30 s.
        """
        if "cmd" not in self.spec:
            return
        for port in sorted({self.http, self.https, ADMIN}):
            if is_busy(port):
                raise RuntimeError(f"port {port} is in use")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.render(FIRST_PERCENTAGE)
        self.process = Process(self.expand(self.spec["cmd"]), core, self.env(), self.folder / "log")
        for port in [self.http] + ([self.https] if "tls" in self.features else []):
            wait_port(port, self.process)
        end = time.time() + 10
        while time.time() < end:  # some listen before their routes are loaded
            if self.is_serving():
                return
            time.sleep(0.1)
        raise RuntimeError("no 200 answer within 10 s")

    def is_serving(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=5)
        try:
            connection.request("GET", GET_PATH, headers=headers(users(1)[0]))
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None

    def set_percentage(self, percentage):
        """Returns when the peer's own command has; how long it takes to bite is measured from outside."""
        for part in self.spec["set_pct"].split(";"):
            words = self.expand(part.strip(), percentage).split(" ")
            match words[0]:
                case "render":
                    self.render(percentage)
                case "write":
                    put(Path(words[1]), words[2])
                case "unix":
                    with socket.socket(socket.AF_UNIX) as connection:
                        connection.connect(words[1])
                        connection.sendall((" ".join(words[2:]) + "\n").encode())
                        connection.recv(4096)
                case "http":
                    self.call(*words[1:])
                case _:
                    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=15)

    @staticmethod
    def call(method, port, path, kind=None, file=None):
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=15)
        body = Path(file).read_bytes() if file else (b"" if method == "POST" else None)
        connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"the percentage was refused: {answer.status} {text[:200]}")
