"""Processes, ports and the processor's time. Ends only what it started."""
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def stat_fields(pid):
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2:].split()
    user, system = int(fields[11]) / TICKS, int(fields[12]) / TICKS
    return {"pgrp": int(fields[2]), "cpu": user + system, "u": user, "s": system}


def all_processes():
    found = ((int(name), stat_fields(name)) for name in os.listdir("/proc") if name.isdigit())
    return {pid: fields for pid, fields in found if fields}


def processor():
    """Seconds that all cores were busy, and that the host took for others."""
    v = [int(x) / TICKS for x in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return {"busy": v[0] + v[1] + v[2] + v[5] + v[6], "steal": v[7]}


def pinned(core, command):
    """The command on these cores; where the system can, it ends when this script does."""
    guard = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    return guard + (["taskset", "-c", str(core)] if core is not None else []) + command


def clean_environment():
    """Without the variables that are settings of ours: whoever runs this may have some of them set for a proxy of their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CUTOVER_", "SUPABASE_", "V2_"))}


class Process:
    """A program in a process group of its own; its time and memory are those of the whole group."""

    def __init__(self, command, core, env=None, log=None):
        arguments = command if isinstance(command, list) else shlex.split(command)
        self.log = open(log, "ab") if log else None
        out = self.log or subprocess.DEVNULL
        self.child = subprocess.Popen(pinned(core, arguments), stdin=subprocess.PIPE, stdout=out, stderr=out,
                                      env=clean_environment() | (env or {}), start_new_session=True)
        self.group = self.child.pid

    def pids(self):
        return [pid for pid, fields in all_processes().items() if fields["pgrp"] == self.group]

    def cpu(self, snapshot):
        """Seconds in all, in user space, in the kernel."""
        mine = [fields for fields in snapshot.values() if fields["pgrp"] == self.group]
        return tuple(sum(fields[name] for fields in mine) for name in ("cpu", "u", "s"))

    def resident_mb(self):
        total = 0
        for pid in self.pids():
            try:
                total += int(re.search(r"Rss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())[1])
            except (OSError, TypeError):
                pass
        return round(total / 1024, 2)

    def stop(self):
        try:
            self.child.stdin.close()
        except OSError:
            pass
        for sign, wait in ((signal.SIGTERM, 3), (signal.SIGKILL, 5)):
            end = time.time() + wait
            while time.time() < end:
                self.child.poll()
                if not self.pids():
                    break
                try:
                    os.killpg(self.group, sign)  # this group only, which this script started
                except ProcessLookupError:
                    break
                time.sleep(0.1)
        if self.log:
            self.log.close()


def is_busy(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.3).close()
        return True
    except OSError:
        return False


def wait_port(port, process, seconds=20):
    end = time.time() + seconds
    while time.time() < end:
        if is_busy(port):
            return
        if process.child.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on {port}")
