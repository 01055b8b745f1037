#!/usr/bin/env python3
"""Runs h2spec, the public conformance tool for HTTP/2 (RFC 7540) and HPACK (RFC 7541), against a running cutover, all strict cases included.

    H2SPEC=path/to/h2spec tests/h2spec/run.py            a program that is here
    H2SPEC_SOURCE=clone/of/h2spec tests/h2spec/run.py    builds it first, with Debian's golang-go and its golang-*-dev packages

h2spec is in no package registry, so it has to be brought; https://github.com/summerwind/h2spec says how. CUTOVER_BIN names the program under test.
Exit code: 0 = every case passes but those in KNOWN, 1 = another one fails, 2 = it could not be run.
"""

import http.server
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
DEBIAN_SOURCES = "/usr/share/gocode"  # where golang-*-dev packages put what h2spec needs

# Cases that fail, and why that is so.
KNOWN = {
    "http2/3.5: Sends invalid connection preface": "a plain port speaks HTTP/1.1 as well: what does not begin as HTTP/2 is answered by HTTP/1's 400, and the connection ends",
}


def fail(message):
    print(f"h2spec: {message}", file=sys.stderr)
    sys.exit(2)


def h2spec(folder):
    """The program: named, on PATH, or built from its source into `folder`."""
    named = os.environ.get("H2SPEC") or shutil.which("h2spec")
    if named:
        return named
    source = os.environ.get("H2SPEC_SOURCE")
    if not source:
        fail("name the program in H2SPEC, or a clone of its repository in H2SPEC_SOURCE")
    if not shutil.which("go") or not os.path.isdir(f"{DEBIAN_SOURCES}/src/golang.org/x/net"):
        fail("to build it: apt-get install golang-go golang-golang-x-net-dev golang-github-fatih-color-dev golang-github-spf13-cobra-dev")
    place = pathlib.Path(folder, "go/src/github.com/summerwind/h2spec")
    shutil.copytree(source, place)
    program = os.path.join(folder, "h2spec")
    paths = {"GO111MODULE": "off", "GOPATH": f"{folder}/go:{DEBIAN_SOURCES}", "GOCACHE": f"{folder}/cache"}
    subprocess.run(["go", "build", "-o", program, "./cmd/h2spec"], cwd=place, env={**os.environ, **paths}, check=True)
    return program


class Side(http.server.BaseHTTPRequestHandler):
    """Answers everything with some bytes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        while self.headers.get("transfer-encoding") and (size := int(self.rfile.readline(), 16)):
            self.rfile.read(size + 2)
        if self.headers.get("transfer-encoding"):
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
        body = b"some bytes of an answer\n" * 4
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_POST = do_HEAD = do_PUT = do_OPTIONS = do_GET

    def log_message(self, *_):
        pass


class Sides(http.server.ThreadingHTTPServer):
    """Says nothing of connections that break: that is what h2spec is about."""

    daemon_threads = True

    def handle_error(self, *_):
        pass


def binary():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    places = [os.environ.get("CUTOVER_BIN"), target / "release/cutover", target / "debug/cutover"]
    return next((str(place) for place in places if place and os.path.exists(place)), None) or fail("no cutover: build it, or name it in CUTOVER_BIN")


def serve(folder, side):
    """Starts cutover before `side`; answers the process and its port."""
    config = pathlib.Path(folder, "config.toml")
    url = f"http://127.0.0.1:{side}"
    config.write_text(
        'listen = "127.0.0.1:0"\nadmin.listen = "127.0.0.1:0"\nworkers = 1\nlog.format = "json"\nlog.access = false\nrollout.audit_file = ""\n'
        + "".join(f'projects.{name}.url = "{url}"\nprojects.{name}.anon_key = "anon-{name}"\n' for name in ("old", "new"))
    )
    process = subprocess.Popen([binary(), "serve", "--config", config], env={}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("{") and "listen" in (told := json.loads(line)):
            threading.Thread(target=lambda: [None for _ in process.stderr], daemon=True).start()
            return process, int(told["listen"].rsplit(":", 1)[1])
    fail(f"cutover ended with {process.wait()}:\n{said}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        program = h2spec(folder)
        side = Sides(("127.0.0.1", 0), Side)
        threading.Thread(target=side.serve_forever, daemon=True).start()
        process, port = serve(folder, side.server_address[1])
        report = os.path.join(folder, "report.xml")
        try:
            command = [program, "--strict", "-h", "127.0.0.1", "-p", str(port), "-P", "/rest/v1/h2spec", "-o", "3", "-j", report]
            subprocess.run(command, check=False, stdout=None if "-v" in sys.argv else subprocess.DEVNULL)
        finally:
            process.send_signal(signal.SIGTERM)
            ended = process.wait()
        cases = [(suite.get("package"), case) for suite in xml.etree.ElementTree.parse(report).getroot() for case in suite]
    failed, new = [], 0
    for package, case in cases:
        if case.find("failure") is None and case.find("error") is None:
            continue
        name = f"{package}: {case.get('classname')}"
        failed.append(name)
        new += name not in KNOWN
        wrong = case.find("failure") if case.find("failure") is not None else case.find("error")
        print(f"fails: {name}\n  {' '.join((wrong.text or '').split())}\n  {KNOWN.get(name, 'not known')}")
    print(f"h2spec: {len(cases)} cases, {len(cases) - len(failed)} pass, {len(failed)} fail, {new} of them not known; cutover ended with {ended}")
    if not cases or ended != 0:
        sys.exit(2)
    sys.exit(1 if new else 0)


if __name__ == "__main__":
    main()
