"""What the figures were measured on: the machine, and the versions of everything that took part. No path and no name of the machine."""
import os
import platform
import re
import subprocess
import time
import tomllib
from pathlib import Path

from peer import HERE, LAB, ROOT


def first_match(pattern, text, default="?"):
    found = re.search(pattern, text)
    return found[1].strip() if found else default


def said(*command):
    """What a program says about itself, on either stream; nothing if it is not there."""
    try:
        out = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return out.stdout + out.stderr


def machine():
    processor = first_match(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(first_match(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), "0")) / 2 ** 20
    system = first_match(r'PRETTY_NAME="?([^"\n]+)', Path("/etc/os-release").read_text()) if Path("/etc/os-release").exists() else platform.system()
    release = re.match(r"\d+\.\d+", platform.release())
    return f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, {system}, Linux {release[0] if release else '?'}"


def versions():
    """Family of peers or tool, and its version."""
    package = {p["name"]: p["version"] for p in tomllib.loads((HERE / "pingora/Cargo.lock").read_text())["package"]}
    commit = said("git", "describe", "--always", "--dirty", "--exclude=*").strip()
    envoy = next((LAB / "venv").glob("lib/python3*/site-packages/envoy/_bin/envoy"), "envoy")
    found = {
        "ours": "CUTOVER_BIN" if os.environ.get("CUTOVER_BIN") else commit or "?",
        "nginx": first_match(r"nginx/(\S+)", said("nginx", "-v"), ""),
        "haproxy": first_match(r"version (\S+?)[- ]", said("haproxy", "-v"), ""),
        "pingora": package.get("pingora", "?"),
        "envoy": first_match(r"/(\d+\.\d+\.\d+)/", said(str(envoy), "--version"), ""),
        "caddy": first_match(r"v(\S+)", said(str(LAB / "venv/bin/caddy"), "version"), ""),
        "traefik": first_match(r"Version:\s+(\S+)", said(str(LAB / "venv/bin/traefik"), "version"), ""),
        "wrk": first_match(r"wrk (\S+)", said("wrk", "-v"), ""),
        "h2load": first_match(r"nghttp2/(\S+)", said("h2load", "--version"), ""),
        "rustc": first_match(r"rustc (\S+)", said("rustc", "--version"), ""),
    }
    return {name: version for name, version in found.items() if version}


def of_run(options):
    """What the page says of a run as a whole."""
    return {"date": time.strftime("%Y-%m-%d", time.gmtime()), "machine": machine(), "versions": versions(), "rounds": options.rounds,
            "quick": options.quick, "command": options.command or "benches/peers/bench.py"}
