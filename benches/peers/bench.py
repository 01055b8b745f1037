#!/usr/bin/env python3
"""Cutover side by side with other reverse proxies that do the same job. See README.md. Needs Python 3.11 and its standard library."""
import argparse
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
import tomllib

import facts
import report
from check import Check
from flip import Flip
from measure import Bench
from peer import HERE, LAB, LABTOOL, ROOT, Peer

PAGE = ROOT / "docs" / "performance.md"
QUICK_PEERS = "direct,relay,nginx-hdr,haproxy,pingora,ours"
PHASES = "memory,flat,get1k,wrk1k,rate,get64k,post64k,tls1,h2,tlsnew,ws,realtime,calls,two,flip,changes"
QUICK_PHASES = PHASES.replace("wrk1k,", "")
CHANGES = ["cargo", "bench", "--locked", "--quiet", "--bench", "flip"]


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="one round, short phases, the main peers")
    add("--rounds", type=int)
    add("--only", help="peers, comma separated")
    add("--skip", default="")
    add("--phases", help=f"comma separated, of {PHASES}")
    add("--check-only", action="store_true", help="only whether each peer routes and rewrites correctly")
    add("--report", metavar="FILE[,FILE]", help="the page again from earlier rows; nothing is measured")
    add("--write", action="store_true", help="write docs/performance.md, between its markers")
    add("--command", default="", help="how this run was started, for the page")
    add("--peers-file", action="append", default=[], help="more peers, a TOML file like peers.toml")
    add("--add", action="append", default=[], metavar="NAME=COMMAND", help="one more peer; README.md says what it is given")
    add("--job", default="jwt-sha256", help="job of the added peer")
    add("--set-pct", default="write {DIR}/pct {PCT}", help="how the added peer gets a new percentage")
    add("--http", type=int, help="fixed port of the added peer")
    add("--https", type=int, help="fixed TLS port of the added peer")
    add("--no-tls", action="store_true", help="the added peer has no TLS listener")
    add("--rate", type=int, default=5000)
    add("--idle-conns", type=int, default=5000)
    add("--proxy-core", default="1")
    add("--load-core", default="0")
    add("--max-other", type=float, default=8.0, help="percent of one core that other programs may take before a measurement is repeated")
    add("--wait-quiet", type=float, default=0, metavar="SECONDS", help="before each measurement wait up to this long for an idle machine")
    add("--tries", type=int, help="how often a disturbed measurement is taken at most (3, quick 2)")
    o = parser.parse_args()
    o.rounds = o.rounds or (1 if o.quick else 3)
    o.tries = o.tries or (2 if o.quick else 3)
    o.spare = 25 if o.quick else 600
    o.only = o.only if o.only is not None else (QUICK_PEERS if o.quick else "")
    o.phases = [p for p in (o.phases or (QUICK_PHASES if o.quick else PHASES)).split(",") if p]
    unknown = set(o.phases) - set(PHASES.split(","))
    if unknown:
        parser.error(f"no such phase: {', '.join(sorted(unknown))}")
    return o


def specs(o):
    """Name of a peer, and what peers.toml says of it."""
    found = tomllib.loads((HERE / "peers.toml").read_text())
    for file in o.peers_file:
        with open(file, "rb") as text:
            found |= tomllib.load(text)
    for added in o.add:
        name, command = added.split("=", 1)
        ports = {key: port for key, port in (("http", o.http), ("https", o.https)) if port}
        found[name] = {"job": o.job, "cmd": command, "set_pct": o.set_pct} | ports | ({"features": ["ws", "flip"]} if o.no_tls else {})
    wanted = [name for name in o.only.split(",") if name]
    unknown = set(wanted) - set(found)
    if unknown:
        give_up(f"no such peer: {', '.join(sorted(unknown))}")
    return {name: spec for name, spec in found.items() if (not wanted or name in wanted) and name not in o.skip.split(",")}


def give_up(text):
    """Nothing can be measured like this."""
    print(f"peers: {text}", file=sys.stderr)
    sys.exit(2)


def progress(text):
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


class Run:
    def __init__(self, o, peers):
        self.o, self.peers, self.bench = o, peers, Bench(o)
        self.started, self.sides = time.time(), {}

    def started_peer(self, peer):
        """Whether it serves; what kept it from it is noted."""
        try:
            peer.start(self.o.proxy_core)
            return True
        except (RuntimeError, OSError) as error:
            self.fault(peer, f"did not start: {error}")
            peer.stop()
            return False

    def fault(self, peer, text):
        self.bench.record(peer=peer.name, phase="fault", round=0, text=text)
        print(f"peers: {peer.name}: {text}", file=sys.stderr)

    def check(self):
        """A peer that does not do the job is not measured."""
        for peer in list(self.peers):
            if not self.started_peer(peer):
                self.peers.remove(peer)
                continue
            check = Check(peer)
            try:
                bad = check.run()
            finally:
                peer.stop()
            self.sides[peer.name] = check.sides
            self.bench.record(peer=peer.name, phase="check", round=0, job=peer.job, bad=bad, new_share=round(check.share(), 3))
            for text in bad:
                self.fault(peer, f"check: {text}")
            if bad:
                self.peers.remove(peer)
            elif self.o.check_only or sys.stderr.isatty():
                print(f"checked: {peer.name}" + (f", {check.share():.0%} of the users on NEW" if check.sides else ""), flush=True)

    def rounds(self):
        for number in range(self.o.rounds):
            for peer in self.peers:
                progress(f"[{time.time() - self.started:4.0f} s] round {number + 1} of {self.o.rounds}: {peer.name}")
                if number == 0:
                    self.alone(peer)
                if self.started_peer(peer):
                    try:
                        self.round(peer, number)
                    finally:
                        peer.stop()
                if "two" in self.o.phases and "two" in peer.features:
                    self.tried(peer, "two", lambda: self.bench.two(peer, number, self.seconds(2.5, 1.5)))
        if "changes" in self.o.phases and any(peer.name == "ours" for peer in self.peers):
            progress(f"[{time.time() - self.started:4.0f} s] 200 changes by file, 200 by the admin API")
            self.bench.changes(CHANGES)

    def failed_requests(self):
        """Requests that failed under load are a fault, however fast they did."""
        for row in list(self.bench.rows):
            failed = row.get("errors", 0) + row.get("non2xx", 0)
            if failed:
                self.fault(Peer(row["peer"], {}), f"{row['phase']}: {failed} of {row.get('done')} requests failed")

    def alone(self, peer):
        """What needs a process of its own."""
        for phase, run in (("memory", lambda: self.bench.memory(peer, self.o.idle_conns)), ("flat", lambda: self.bench.flat(peer))):
            if phase not in self.o.phases or peer.process is None and "cmd" not in peer.spec or phase == "flat" and "flat" not in peer.features:
                continue
            if self.started_peer(peer):
                try:
                    time.sleep(0.5)
                    self.tried(peer, phase, run)
                finally:
                    peer.stop()

    def seconds(self, full, quick):
        return quick if self.o.quick else full

    def round(self, peer, number):
        bench, s, phases = self.bench, self.seconds, self.o.phases
        bench.load(peer, "warm", number, "get1k", 0.3)
        steps = {
            "get1k": lambda: bench.load(peer, "get1k", number, "get1k", s(2.5, 1.5)),
            "wrk1k": lambda: bench.wrk(peer, "wrk1k", number, "get1k", 2),
            "rate": lambda: bench.load(peer, "rate", number, "get1k", s(7, 3), rate=self.o.rate),
            "get64k": lambda: bench.load(peer, "get64k", number, "get64k", s(1.5, 0.8), 32),
            "post64k": lambda: bench.load(peer, "post64k", number, "post64k", s(1.5, 0.8), 32),
        }
        if "tls" in peer.features:
            steps["tls1"] = lambda: bench.wrk(peer, "tls1", number, "get1k", s(2, 1), tls=True)
            steps["h2"] = lambda: bench.h2load(peer, number, s(2, 1), self.a_new_user(peer))
            steps["tlsnew"] = lambda: bench.wrk(peer, "tlsnew", number, "close", 1, 16, tls=True)
        if "ws" in peer.features:
            steps["ws"] = lambda: bench.load(peer, "ws", number, "ws", s(1.5, 0.8), 32, "ws")
        if "realtime" in peer.features:
            steps["realtime"] = lambda: bench.realtime(peer, number, s(1.5, 0.6))
        if "calls" in peer.features and number == 0 and shutil.which("strace"):
            steps["calls"] = lambda: bench.calls(peer)
        if "flip" in peer.features and number == 0 and peer.spec.get("set_pct"):
            steps["flip"] = lambda: bench.record(peer=peer.name, phase="flip", round=number, **Flip(peer).run())
        for name, step in steps.items():
            if name in phases and not (name == "wrk1k" and number):
                self.tried(peer, name, step)

    def tried(self, peer, name, step):
        """One phase that fails leaves the others their figures."""
        try:
            step()
        except (RuntimeError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            self.fault(peer, f"{name}: {error!r}")

    def a_new_user(self, peer):
        sides = self.sides.get(peer.name, {})
        return next((user for user, side in sides.items() if side == "new"), next(iter(sides), None))


def made(rows, all_specs, checked):
    """The generated part of the page."""
    figures = report.Figures(rows)
    run = figures.row("", "run")
    versions = run.get("versions", {})
    family = lambda name: versions.get(name) or versions.get(name.split("-")[0]) or ""
    tools = ", ".join(f"{name} {versions[name]}" for name in ("rustc", "wrk", "h2load") if name in versions)
    lines = [f"Measured {run.get('date')} on: {run.get('machine')}. {run.get('rounds')} round(s), interleaved{', short' if run.get('quick') else ''}; "
             "each proxy has one worker on one core, generator and upstreams have the other.", "",
             f"Command: `{run.get('command')}`. {tools}. Without a word to the contrary a figure is the least of the rounds: disturbances only add.", "",
             "| peer | version | job | command |", "|---|---|---|---|"]
    for name in figures.peers():
        spec = all_specs.get(name, {})
        command = f"`{report.command(spec['cmd'])}`" if "cmd" in spec else "the generator asks OLD itself"
        lines.append(f"| {name} | {family(name)} | {spec.get('job', '')} | {command} |")
    lines += ["", "Checked before: 500 users on both sides, refreshed and broken tokens, profiles, keys, `Host`, unmapped tables, 64 KB bodies, TLS, ALPN, WebSockets. "
              + checked, "", report.targets(figures), report.tables(figures, {name: spec.get("job", "") for name, spec in all_specs.items()}), report.quality(figures)]
    return "\n".join(lines)


def no_paths(text):
    """The page is for everybody: it must not name folders of this machine."""
    for path in (LAB, ROOT):
        text = text.replace(str(path) + "/", "").replace(str(path), ".")
    return text


def finish(o, rows, all_specs, checked):
    text = no_paths(made(rows, all_specs, checked))
    if o.write:
        PAGE.write_text(report.put_between(PAGE.read_text(), text))
        print(f"wrote {PAGE.relative_to(ROOT)}")
    else:
        print(text)


def main():
    o = options()
    if o.report:
        rows = [json.loads(line) for file in o.report.split(",") for line in open(file)]
        return finish(o, rows, specs(o), report.passed(rows))
    if len(str(LAB)) > 70:
        give_up("the path of LAB is too long for the sockets in it: choose a shorter one, LAB=…")
    if not LABTOOL.exists():
        give_up("run `make bench`, or benches/peers/setup.sh first")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything that was started is ended
    all_specs = specs(o)
    peers = []
    for peer in (Peer(name, spec) for name, spec in all_specs.items()):
        if missing := peer.missing():
            print(f"peers: {peer.name} is left out: {missing} is not installed", file=sys.stderr)
        else:
            peers.append(peer)
    run = Run(o, peers)
    run.bench.record(peer="", phase="run", **facts.of_run(o))
    try:
        run.check()
        if not o.check_only:
            run.rounds()
            run.failed_requests()
    finally:
        for peer in peers:
            peer.stop()
        run.bench.close()
    if not o.check_only:
        finish(o, run.bench.rows, all_specs, report.passed(run.bench.rows))
        progress(f"{time.time() - run.started:.0f} s")
    return 1 if any(row["phase"] == "fault" for row in run.bench.rows) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
