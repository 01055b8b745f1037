"""What the generators and tools print, read. Nothing here touches the machine."""
import json
import re


def seconds_of(text):
    """h2load's times: "1.50s", "870.20ms"."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) / {"us": 1e6, "ms": 1e3, "s": 1}[unit]


def of_wrk(text):
    """The figures that wrk.lua prints."""
    figures = json.loads(re.search(r"JSON(\{.*\})", text)[1])
    return figures | {"rps": round(figures["done"] / figures["secs"], 1)}


def of_h2load(text):
    time, rate = re.search(r"finished in (\S+), ([\d.]+) req/s", text).groups()
    done, good, errored = map(int, re.search(r"started, (\d+) done, (\d+) succeeded, \d+ failed, (\d+) errored", text).groups())
    return {"done": done, "secs": round(seconds_of(time), 6), "rps": float(rate), "non2xx": done - good, "errors": errored}


def of_strace(text):
    """Calls by name, from the table that `strace -c` writes."""
    calls = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 5 and re.fullmatch(r"[\d.]+", words[0]) and words[3].isdigit() and words[-1] != "total":
            calls[words[-1]] = int(words[3])
    return calls


def of_flip(text):
    """The lines of `cargo bench --bench flip`: which way of changing, how many changes, and the distribution in milliseconds."""
    pattern = r"flip: (\w+)[^:]*: (\d+) changes, .* p50 ([\d.]+) ms, p90 ([\d.]+) ms, max ([\d.]+) ms"
    return [{"by": by, "changes": int(n), "p50_ms": float(p50), "p90_ms": float(p90), "max_ms": float(most)}
            for by, n, p50, p90, most in re.findall(pattern, text)]
