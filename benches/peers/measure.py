"""The phases. Each runs one generator against one peer and writes one row of figures."""
import json
import os
import signal
import subprocess
import sys
import time

from job import GET_PATH, headers, join_frame, raw, request_sets, say_frame, users
from machine import Process, all_processes, is_busy, pinned, processor, wait_port
from output import of_flip, of_h2load, of_strace, of_wrk
from peer import HERE, LAB, LABTOOL, NEW, OLD, ROOT

# Users and requests of the question whether memory stays flat.
MANY_USERS, FIRST_COUNT, LAST_COUNT = 100_000, 100_000, 1_000_000
CALLS_COUNT = 20_000


def generator(peer, requests, mode="load", **options):
    """labtool's command line."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [str(LABTOOL), mode, "--port", str(peer.http), "--reqs", str(LAB / "requests" / requests)] + words


def last_line(text):
    return json.loads(text.strip().split("\n")[-1])


class Bench:
    """Upstreams and generators on one core, the peer on another. Rows are kept, and written to LAB/results as they come."""

    def __init__(self, options):
        self.options, self.rows = options, []
        self.spare = options.spare  # seconds left for measurements that were disturbed
        for port in (OLD, NEW):
            if is_busy(port):
                print(f"peers: port {port} is in use: is another comparison running?", file=sys.stderr)
                sys.exit(2)
        for folder in ("requests", "results", "run"):
            (LAB / folder).mkdir(parents=True, exist_ok=True)
        for name, requests in request_sets().items():
            (LAB / "requests" / name).write_bytes(b"\0".join(requests))
        self.certificate()
        self.load_core = options.load_core
        self.upstream = Process([str(LABTOOL), "upstream", str(OLD), str(NEW)], options.load_core)
        try:
            wait_port(OLD, self.upstream)
        except RuntimeError:
            self.upstream.stop()
            raise
        self.out = (LAB / "results" / time.strftime("%Y%m%d-%H%M%S.jsonl")).open("a")

    @staticmethod
    def certificate():
        if not (LAB / "cert.pem").exists():
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650",
                            "-subj", "/CN=api.example.test", "-addext", "subjectAltName=DNS:api.example.test,DNS:localhost,IP:127.0.0.1",
                            "-keyout", LAB / "key.pem", "-out", LAB / "cert.pem"], check=True, capture_output=True)

    def close(self):
        self.upstream.stop()
        self.out.close()

    def record(self, **row):
        self.rows.append(row)
        self.out.write(json.dumps(row) + "\n")
        self.out.flush()

    def wait_quiet(self):
        """Waits, at most --wait-quiet seconds, for a moment in which the machine is idle."""
        end = time.time() + self.options.wait_quiet
        while time.time() < end:
            before = processor()["busy"]
            time.sleep(0.3)
            if (processor()["busy"] - before) / 0.3 * 100 <= self.options.max_other:
                return

    def measured(self, peer, phase, round_, command, parse, env=None, **more):
        """One row: the generator's own figures, and the peer's processor time for each answer. Again, when other programs took part of the machine."""
        for attempt in range(self.options.tries):
            self.wait_quiet()
            start = time.time()
            row = self.attempt(peer, command, parse, env)
            if row is None:
                print(f"peers: {peer.name}: {phase}: no figures", file=sys.stderr)
                return None
            if not row["disturbed"] or self.spare <= 0:
                break
            self.spare -= time.time() - start
        self.record(peer=peer.name, phase=phase, round=round_, attempt=attempt, **row, **more)
        return row

    def attempt(self, peer, command, parse, env=None, limit=90):
        own, before, busy, start = sum(os.times()[:4]), all_processes(), processor(), time.time()
        generator = subprocess.Popen(pinned(self.load_core, command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                     text=True, env=os.environ | (env or {}), start_new_session=True)
        try:
            text, _ = generator.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(generator.pid, signal.SIGKILL)
            generator.communicate()
            return None
        after, busy_after, wall = all_processes(), processor(), time.time() - start
        own = sum(os.times()[:4]) - own  # this script, and the generator that has ended
        try:
            row = parse(text)
        except (ValueError, TypeError, AttributeError, IndexError, KeyError):
            print(text[-300:], file=sys.stderr)
            return None
        mine = {self.upstream.group, os.getpgrp()} | ({peer.process.group} if peer.process else set())
        spent = {pid: fields["cpu"] - (before[pid]["cpu"] if pid in before else 0) for pid, fields in after.items()}
        # Other programs, counted twice: those still there at the end, and all busy time less our own, which also sees programs that ended
        # meanwhile, but is only as fine as the clock's tick.
        other = sum(spent[pid] for pid, fields in after.items() if fields["pgrp"] not in mine)
        known = own + sum(spent[pid] for pid, fields in after.items() if fields["pgrp"] in mine and pid != os.getpid())
        rest = busy_after["busy"] - busy["busy"] - known
        row |= {"other_pct": round(100 * other / wall, 1), "rest_pct": round(100 * rest / wall, 1), "load1": os.getloadavg()[0],
                "steal_pct": round(100 * (busy_after["steal"] - busy["steal"]) / wall, 1)}
        row["disturbed"] = row["other_pct"] > self.options.max_other or row["rest_pct"] > 2 * self.options.max_other + 5
        if peer.process:
            done = max(1, row["done"])
            cpu, user, _ = (b - a for a, b in zip(peer.process.cpu(before), peer.process.cpu(after)))
            row |= {"cpu_us": round(cpu / done * 1e6, 2), "user_us": round(user / done * 1e6, 2), "util": round(cpu / row["secs"], 3)}
        return row

    # The phases.

    def load(self, peer, phase, round_, requests, seconds, conns=64, mode="load", **options):
        return self.measured(peer, phase, round_, generator(peer, requests, mode, conns=conns, secs=seconds, **options), last_line)

    def wrk(self, peer, phase, round_, requests, seconds, conns=64, tls=False):
        url = f"https://127.0.0.1:{peer.https}/" if tls else f"http://127.0.0.1:{peer.http}/"
        command = ["wrk", "-t1", f"-c{conns}", f"-d{seconds}s", "-s", str(HERE / "wrk.lua"), url]
        return self.measured(peer, phase, round_, command, of_wrk, {"WRK_REQS": str(LAB / "requests" / requests)})

    def h2load(self, peer, round_, seconds, user):
        fields = {name.lower(): value for name, value in headers(user).items() if name != "Host"} | {"accept-profile": "public"}
        command = ["h2load", "-c16", "-m4", "-t1", f"-D{seconds}"] + [word for pair in fields.items() for word in ("-H", "%s: %s" % pair)]
        return self.measured(peer, "h2", round_, command + [f"https://127.0.0.1:{peer.https}{GET_PATH}"], of_h2load)

    def realtime(self, peer, round_, seconds):
        for vsn in (1, 2):
            for kind in ("heartbeat", "broadcast"):
                self.load(peer, f"realtime{vsn}-{kind}", round_, f"realtime{vsn}", seconds, 32, "realtime",
                          join=join_frame(vsn, users(1)[0]), say=say_frame(vsn, kind))

    def two(self, peer, round_, seconds):
        """The same peer with one worker and with two, while it, the generator and the upstreams may all use both cores."""
        cores, workers = {int(core) for core in (self.options.load_core, self.options.proxy_core)}, peer.threads
        self.load_core = ",".join(map(str, sorted(cores)))
        os.sched_setaffinity(self.upstream.child.pid, cores)
        try:
            for count in (1, 2):
                peer.threads = count
                peer.start(self.load_core)
                try:
                    self.load(peer, "warm", round_, "get1k", 0.3)
                    self.load(peer, f"two-{count}", round_, "get1k", seconds)
                finally:
                    peer.stop()
        finally:
            peer.threads, self.load_core = workers, self.options.load_core
            os.sched_setaffinity(self.upstream.child.pid, {int(self.load_core)})

    def memory(self, peer, count):
        """Resident memory of a fresh process, and with `count` kept-alive connections after one request on each."""
        idle = peer.process.resident_mb()
        command = generator(peer, "get1k", "idle", conns=count)
        holder = subprocess.Popen(pinned(self.options.load_core, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            answer = json.loads(holder.stdout.readline())
            time.sleep(1.0)
            held = peer.process.resident_mb()
        finally:
            holder.stdin.close()
            try:
                holder.wait(10)
            except subprocess.TimeoutExpired:
                holder.kill()
        self.record(peer=peer.name, phase="memory", round=0, idle_mb=idle, held_mb=held, held=answer["held"], errors=answer["errors"],
                    kb_each=round((held - idle) * 1024 / max(1, answer["held"]), 2))

    def flat(self, peer):
        """Resident memory after 100,000 requests and after 1,000,000, of 100,000 users in turn."""
        file = LAB / "requests" / "many"
        if not file.exists():
            part = file.with_suffix(".part")
            with part.open("wb") as out:
                for user in users(MANY_USERS):
                    out.write(raw("GET", GET_PATH, headers(user)) + b"\0")
            part.rename(file)
        done, sizes = 0, {}
        for until in (FIRST_COUNT, LAST_COUNT):
            row = self.attempt(peer, generator(peer, "many", secs=150, count=until - done), last_line, limit=160)
            if row is None or row["errors"] or row["non2xx"]:
                raise RuntimeError("requests failed")
            done += row["done"]
            if done < until:
                raise RuntimeError(f"only {done} requests in the time for {until}")
            sizes[until] = peer.process.resident_mb()
        self.record(peer=peer.name, phase="flat-memory", round=0, first_mb=sizes[FIRST_COUNT], last_mb=sizes[LAST_COUNT], requests=done, users=MANY_USERS)

    def calls(self, peer):
        """System calls for each request at full load: strace counts from before the first request of a run of 20,000 to after the last, with the
        connections to the sides open already. Slowed down by it the peer stays at full load, as the generator does not wait."""
        file = LAB / "run" / f"strace-{peer.name}"
        pids = [word for pid in peer.process.pids() for word in ("-p", str(pid))]
        tracer = subprocess.Popen(["strace", "-f", "-c", "-o", str(file)] + pids, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            tracer.stderr.readline()  # "strace: Process … attached"
            time.sleep(0.3)
            command = generator(peer, "get1k", secs=30, count=CALLS_COUNT)
            out = subprocess.run(pinned(self.options.load_core, command), capture_output=True, text=True, timeout=60).stdout
            done = last_line(out)["done"]
        finally:
            tracer.send_signal(signal.SIGINT)
            try:
                tracer.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                tracer.kill()
                tracer.communicate()
        calls = {name: round(count / done, 2) for name, count in of_strace(file.read_text()).items() if count / done >= 0.005}
        self.record(peer=peer.name, phase="calls", round=0, done=done, each=round(sum(calls.values()), 2), calls=calls)

    def changes(self, command):
        """`cargo bench --bench flip`: 200 changes each way, of a proxy with one worker."""
        out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        rows = of_flip(out.stdout)
        if not rows:
            print(out.stdout[-500:], out.stderr[-500:], file=sys.stderr)
        for row in rows:
            self.record(peer="ours", phase="changes", round=0, **row)
