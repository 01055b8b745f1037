"""From rows of figures to the page: tables, and each target with what was reached. Nothing here touches the machine."""
import re
import statistics
from dataclasses import dataclass
from typing import Callable

BEGIN, END = "<!-- made by make bench: begin -->", "<!-- made by make bench: end -->"
NONE = "–"


class Figures:
    """Rows by peer and phase. Disturbed measurements count only where there is no other."""

    def __init__(self, rows):
        self.rows = rows

    def values(self, peer, phase, key):
        found = [row for row in self.rows if row["peer"] == peer and row["phase"] == phase and row.get(key) is not None]
        return [row[key] for row in found if not row.get("disturbed")] or [row[key] for row in found]

    def least(self, peer, phase, key):
        return min(self.values(peer, phase, key), default=None)

    def most(self, peer, phase, key):
        return max(self.values(peer, phase, key), default=None)

    def median(self, peer, phase, key):
        values = self.values(peer, phase, key)
        return statistics.median(values) if values else None

    def row(self, peer, phase, **also):
        return next((row for row in self.rows if row["peer"] == peer and row["phase"] == phase
                     and all(row.get(name) == value for name, value in also.items())), {})

    def is_disturbed(self, peer, phase):
        found = [row for row in self.rows if row["peer"] == peer and row["phase"] == phase]
        return bool(found) and all(row.get("disturbed") for row in found)

    def peers(self):
        """In the order in which they were measured; the rows of the run itself have no peer."""
        return list(dict.fromkeys(row["peer"] for row in self.rows if row["peer"]))


def shown(value, digits=1, scale=1.0):
    return NONE if value is None else f"{value * scale:,.{digits}f}"


def marked(figures, peer, phase, text):
    """With a star when there is no quiet measurement behind it."""
    return text + "*" if text != NONE and figures.is_disturbed(peer, phase) else text


def table(title, columns, peers, cells):
    """Markdown; columns and peers without any figure are left out."""
    rows = [(peer, cells(peer)) for peer in peers]
    kept = [at for at in range(len(columns)) if any(row[at] != NONE for _, row in rows)]
    rows = [(peer, row) for peer, row in rows if any(row[at] != NONE for at in kept)]
    if not rows:
        return ""
    name = lambda peer: f"**{peer}**" if peer == "ours" else peer
    lines = [f"### {title}", "", "| peer | " + " | ".join(columns[at] for at in kept) + " |", "|---|" + "---:|" * len(kept)]
    lines += [f"| {name(peer)} | " + " | ".join(row[at] for at in kept) + " |" for peer, row in rows]
    return "\n".join(lines) + "\n"


def tables(figures, jobs):
    f, peers = figures, figures.peers()

    def least(peer, phase, key="cpu_us", digits=1, scale=1.0):
        return marked(f, peer, phase, shown(f.least(peer, phase, key), digits, scale))

    def median(peer, phase, key="cpu_us", digits=1, scale=1.0):
        return shown(f.median(peer, phase, key), digits, scale)

    def spread(peer):
        values = f.values(peer, "get1k", "cpu_us")
        return f"{shown(statistics.median(values))} ({shown(min(values))}–{shown(max(values))})" if values else NONE

    def floors(peer):
        cost, floor = f.least(peer, "get1k", "cpu_us"), f.least("relay", "get1k", "cpu_us")
        return shown(cost / floor, 2) if cost and floor else NONE

    def speedup(peer):
        return shown(two_cores(f, peer), 2)

    def flip(peer):
        row = f.row(peer, "flip")
        return [str(row[key]) if row.get(key) is not None else NONE
                for key in ("cmd_ms", "first_new_ms", "last_old_ms", "lost", "non200", "conns_closed", "ws_closed", "moved_back")]

    def calls(peer):
        row = f.row(peer, "calls")
        names = sorted(row.get("calls", {}).items(), key=lambda pair: -pair[1])
        return [shown(row.get("each"), 2), ", ".join(f"{name} {count:.2f}" for name, count in names) or NONE]

    parts = [
        table("1 KB GET, HTTP/1.1, kept alive: full load (64 connections)",
              ["job", "CPU µs/request, least", "× the floor", "median (least–most)", "of it user µs, least", "requests/s on one core", "core used %", "by wrk: CPU µs"], peers,
              lambda p: [jobs.get(p, NONE) if f.values(p, "get1k", "rps") else NONE, least(p, "get1k"), floors(p), spread(p), least(p, "get1k", "user_us"),
                         shown(f.most(p, "get1k", "rps"), 0), median(p, "get1k", "util", 0, 100), median(p, "wrk1k")]),
        table("1 KB GET, HTTP/1.1: 5,000 requests/s, evenly spaced (best round)",
              ["CPU µs/request", "p50 ms", "p90 ms", "p99 ms", "p99 ms, median", "p99.9 ms"], peers,
              lambda p: [least(p, "rate")] + [least(p, "rate", key, 3, 1e-3) for key in ("p50_us", "p90_us", "p99_us")]
              + [median(p, "rate", "p99_us", 3, 1e-3), least(p, "rate", "p999_us", 2, 1e-3)]),
        table("TLS and 64 KB bodies: CPU µs (per second on one core)",
              ["TLS HTTP/1.1", "TLS HTTP/2", "new TLS connection + request", "GET 64 KB", "POST 64 KB"], peers,
              lambda p: [pair(f, p, phase, scale, unit, digits) for phase, scale, unit, digits in
                         (("tls1", 1, "", 1), ("h2", 1, "", 1), ("tlsnew", 1, "", 0), ("get64k", 65536e-6, " MB", 1), ("post64k", 65536e-6, " MB", 1))]),
        table("WebSocket: CPU µs per message there and back (32 connections)",
              ["blind tunnel, 100 bytes", "heartbeat, vsn 1", "broadcast, vsn 1", "heartbeat, vsn 2", "broadcast, vsn 2"], peers,
              lambda p: [least(p, "ws")] + [least(p, f"realtime{vsn}-{kind}") for vsn in (1, 2) for kind in ("heartbeat", "broadcast")]),
        table("System calls per kept-alive request at full load", ["all", "which"], peers, calls),
        table("Two workers against one (all on both cores)", ["CPU µs/request, one worker", "two workers", "two cores give × one"], peers,
              lambda p: [least(p, "two-1"), least(p, "two-2"), speedup(p)]),
        table("Resident memory, MB", ["idle", "with idle connections", "connections", "KB for each", "after 100,000 requests", "after 1,000,000"], peers,
              lambda p: [shown(f.row(p, "memory").get("idle_mb")), shown(f.row(p, "memory").get("held_mb")), shown(f.row(p, "memory").get("held"), 0),
                         shown(f.row(p, "memory").get("kb_each")), shown(f.row(p, "flat-memory").get("first_mb"), 2),
                         shown(f.row(p, "flat-memory").get("last_mb"), 2)]),
        table("Live change, 30 % to 60 %, under load (20 connections, 10 WebSockets)",
              ["command ms", "first NEW ms", "last OLD ms", "lost", "not 200", "connections closed", "WebSockets closed", "users moved back"], peers, flip),
        changes_table(f),
    ]
    return "\n".join(part for part in parts if part)


def command(text):
    """A peer's command without the folders of this machine: its files lie in one that is made for the run."""
    text = re.sub(r"\{(DIR|bin|here)\}/", "", text)
    text = re.sub(r"(-p|\w+=)\s?\{DIR\} ", "", text)
    return re.sub(r"\{(\w+)\}", r"\1", text)


def passed(rows):
    faults = [f"{row['peer']}: {row['text']}" for row in rows if row["phase"] == "fault"]
    return "Faults: " + "; ".join(faults) + "." if faults else "All passed, and no request failed."


def pair(figures, peer, phase, scale, unit, digits):
    cpu, rate = figures.least(peer, phase, "cpu_us"), figures.most(peer, phase, "rps")
    if rate is None:
        return NONE
    per_second = f"{shown(rate, 0, scale)}{unit}"
    return f"{marked(figures, peer, phase, shown(cpu, digits))} ({per_second})" if cpu is not None else f"({per_second})"


def changes_table(figures):
    rows = [row for row in figures.rows if row["phase"] == "changes"]
    if not rows:
        return ""
    lines = ["### 200 changes by file and 200 by the admin API (`cargo bench --bench flip`)", "",
             "| from the change to the last answer decided by the old number | p50 ms | p90 ms | worst ms |", "|---|---:|---:|---:|"]
    lines += [f"| by {row['by']}, {row['changes']} changes | {row['p50_ms']:.2f} | {row['p90_ms']:.2f} | {row['max_ms']:.2f} |" for row in rows]
    return "\n".join(lines) + "\n"


def two_cores(figures, peer):
    """What two cores give, times one: two cores at full use answer 2 / (CPU with two workers) requests a second, one core 1 / (CPU with one)."""
    one, two = figures.least(peer, "two-1", "cpu_us"), figures.least(peer, "two-2", "cpu_us")
    return 2 * one / two if one and two else None


@dataclass(frozen=True)
class Target:
    """A figure of ours, what it is held against, and how much of that it may be."""
    what: str
    ours: Callable
    against: Callable | None  # nothing: the limit is a figure of its own
    limit: float
    whose: str = ""
    digits: int = 1
    is_at_least: bool = False

    def judge(self, figures):
        """Ours, the other's, the ratio (or nothing), and whether the target is met; nothing at all when something was not measured."""
        ours = self.ours(figures)
        other = self.against(figures) if self.against else None
        if ours is None or (self.against and not other):
            return None
        value = ours / other if self.against else ours
        is_met = value >= self.limit if self.is_at_least else value <= self.limit
        return ours, other, value if self.against else None, is_met


def cpu(peer, phase, key="cpu_us"):
    return lambda f: f.least(peer, phase, key)


def cheapest(figures):
    """Cost of the cheapest peer on 1 KB GETs, and its name."""
    costs = [(figures.least(peer, "get1k", "cpu_us"), peer) for peer in figures.peers() if peer not in ("ours", "relay", "direct")]
    return min((cost for cost in costs if cost[0] is not None), default=(None, ""))


def cheapest_peer(figures):
    return cheapest(figures)[0]


def flatness(figures):
    row = figures.row("ours", "flat-memory")
    return row["last_mb"] / row["first_mb"] if row else None


def changed(by, key):
    return lambda f: f.row("ours", "changes", by=by).get(key)


CHEAPEST = "the cheapest peer"
TARGETS = [
    Target("1 KB GET, CPU", cpu("ours", "get1k"), cpu("haproxy", "get1k"), 0.8, "haproxy"),
    Target("1 KB GET, CPU", cpu("ours", "get1k"), cheapest_peer, 1.0, CHEAPEST),
    Target("1 KB GET, CPU", cpu("ours", "get1k"), cpu("relay", "get1k"), 1.5, "relay"),
    Target("1 KB GET, user µs", cpu("ours", "get1k", "user_us"), None, 5.0),
    Target("1 KB GET, requests/s", lambda f: f.most("ours", "get1k", "rps"), lambda f: f.most("haproxy", "get1k", "rps"), 1.25, "haproxy", 0, True),
    Target("system calls per request: 4, and a share of waiting", lambda f: f.row("ours", "calls").get("each"), None, 4.2, "", 2),
    Target("TLS HTTP/1.1, CPU", cpu("ours", "tls1"), cpu("haproxy", "tls1"), 0.9, "haproxy"),
    Target("TLS HTTP/2, CPU", cpu("ours", "h2"), cpu("haproxy", "h2"), 0.9, "haproxy"),
    Target("5,000/s, p50 µs", cpu("ours", "rate", "p50_us"), cpu("haproxy", "rate", "p50_us"), 1.0, "haproxy"),
    Target("5,000/s, p90 µs", cpu("ours", "rate", "p90_us"), cpu("haproxy", "rate", "p90_us"), 1.0, "haproxy"),
    Target("5,000/s, p99 µs", cpu("ours", "rate", "p99_us"), cpu("haproxy", "rate", "p99_us"), 1.0, "haproxy"),
    Target("new TLS connection + request, CPU", cpu("ours", "tlsnew"), cpu("pingora", "tlsnew"), 1.0, "pingora", 0),
    Target("GET 64 KB, CPU", cpu("ours", "get64k"), cpu("nginx-hdr", "get64k"), 1.0, "nginx-hdr"),
    Target("POST 64 KB, CPU", cpu("ours", "post64k"), cpu("nginx-hdr", "post64k"), 1.0, "nginx-hdr"),
    Target("WebSocket, blind tunnel, CPU", cpu("ours", "ws"), cpu("nginx-hdr", "ws"), 1.0, "nginx-hdr"),
    *(Target(f"realtime {kind}, vsn {vsn}, CPU", cpu("ours", f"realtime{vsn}-{kind}"), cpu("nginx-hdr", f"realtime{vsn}-{kind}"), 1.3, "nginx-hdr's tunnel")
      for vsn in (1, 2) for kind in ("heartbeat", "broadcast")),
    Target("resident memory idle, MB", lambda f: f.row("ours", "memory").get("idle_mb"), None, 12.0),
    Target("memory per idle connection, KB", lambda f: f.row("ours", "memory").get("kb_each"), None, 4.0),
    Target("memory after 1,000,000 requests of 100,000 users ÷ after 100,000 (flat: 5 %)", flatness, None, 1.05, "", 3),
    Target("two cores × one", lambda f: two_cores(f, "ours"), None, 1.9, "", 2, True),
    Target("change by file, median ms", changed("file", "p50_ms"), None, 5.0, "", 2),
    Target("change by file, worst of 200 ms", changed("file", "max_ms"), None, 20.0, "", 2),
    Target("change by the admin API, median ms", changed("admin", "p50_ms"), None, 1.0, "", 2),
]


def targets(figures):
    lines = ["### The targets", "", "| figure | ours | against | theirs | ratio | target | |", "|---|---:|---|---:|---:|---:|---|"]
    for target in TARGETS:
        sign = "≥" if target.is_at_least else "≤"
        limit = f"{sign} {target.limit:g}" + ("×" if target.against else "")
        judged = target.judge(figures)
        if judged is None:
            lines.append(f"| {target.what} | {NONE} | {target.whose} | {NONE} | {NONE} | {limit} | not measured |")
            continue
        ours, other, ratio, is_met = judged
        whose = f"{CHEAPEST}, {cheapest(figures)[1]}" if target.whose == CHEAPEST else target.whose
        lines.append(f"| {target.what} | {shown(ours, target.digits)} | {whose} | {shown(other, target.digits)} | "
                     f"{shown(ratio, 2)} | {limit} | {'met' if is_met else '**open**'} |")
    return "\n".join(lines) + "\n"


def quality(figures):
    """How far the figures can be trusted."""
    rows = [row for row in figures.rows if "other_pct" in row]
    if not rows:
        return ""
    failed = sum(row.get("non2xx", 0) + row.get("errors", 0) for row in rows)
    others = [row["other_pct"] for row in rows]
    return (f"{len(rows)} measurements, {sum(row['disturbed'] for row in rows)} of them disturbed by other programs (marked * where there was no other); "
            f"other programs took {statistics.median(others):.1f} % of a core in the median and {max(others):.1f} % at most; "
            f"failed requests: {failed}.\n")


def put_between(page, made):
    """The page with what is between the markers replaced.

    Raises ValueError when the page does not have both, once and in order.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"the page needs the lines {BEGIN} and {END}, once each")
    return page[:page.index(BEGIN) + len(BEGIN)] + "\n\n" + made.strip() + "\n\n" + page[page.index(END):]
