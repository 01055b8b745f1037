#!/usr/bin/env python3
"""Counts the instructions and the allocations of the pure path, and compares them with figures.txt.

    run.py [PROGRAM]            fails where a case takes more than the margin allows, or another number of allocations
    run.py --build              only builds the program
    run.py --write [PROGRAM]    writes figures.txt anew: for a change that is meant to cost what it costs

PROGRAM is counted as it is; without it, it is built first.
callgrind counts what happens inside `measured` of main.rs. Its processor is valgrind's own, so the counts are the same on every machine
that has AVX2 (valgrind has no SHA instructions, so sha256 counts as plain code; memchr and the C library choose by AVX2)."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FIGURES = HERE / "figures.txt"
MARGIN = 0.03
# The least of so many runs counts: seeds are random and the heap is never quite the same, and both only ever add.
RUNS = 3
# So many instructions are no change, whatever their share.
NOTHING = 25
# What the C library's heap is asked through.
HEAP = {"malloc", "calloc", "realloc", "memalign", "aligned_alloc", "posix_memalign"}
HEAD = """\
# What one call of each case costs: instructions, allocations. `make instructions` compares, `make instructions WRITE=1` writes.
"""


def fail(text):
    sys.exit(f"instructions: {text}")


def build():
    """The program of the image's profile and flags, so that what the image's check builds is not built twice."""
    target = os.environ.get("CARGO_TARGET_DIR") or str(ROOT / "target")
    cargo = os.environ.get("CARGO", "cargo")
    host = re.search(r"^host: (.*)$", output("rustc", "-vV"), re.M)[1]
    subprocess.run(
        [cargo, "rustc", "--locked", "--profile", "dist", "--bin", "instructions", "--features", "instructions",
         "--target", host, "--", "-C", "strip=none"],
        cwd=ROOT, check=True, env=os.environ | {"RUSTFLAGS": "-C target-feature=+crt-static"})
    return Path(ROOT, target, host, "dist", "instructions")


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def install():
    if shutil.which("valgrind"):
        return
    print("instructions: installing valgrind", flush=True)
    apt = ["sudo", "apt-get"] if os.geteuid() and shutil.which("sudo") else ["apt-get"]
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "valgrind"]):
        if subprocess.run(apt + arguments, stdout=subprocess.DEVNULL).returncode:
            fail("valgrind is needed and could not be installed")


def least(program):
    runs = [counted(program) for _ in range(RUNS)]
    return {name: min(run[name] for run in runs) for name in runs[0]}


def counted(program):
    """Case: (instructions, allocations) of one call."""
    # By its mangled name, because versions of valgrind differ in how they say the other.
    found = re.search(r"\S*instructions8measured\S*", output("nm", program))
    if not found:
        fail(f"{program} has no symbols")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        options = [f"--{when}={found[0]}" for when in ("zero-before", "dump-after")]
        run = subprocess.run(
            ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}", "--demangle=no", *options,
             "--compress-strings=no", "--compress-pos=no", program],
            stdout=subprocess.PIPE, text=True, env={})
        if run.returncode:
            fail(f"the program ended with {run.returncode}")
        cases = [line.split() for line in run.stdout.splitlines()]
        figures = {}
        for number, (name, times) in enumerate(cases, 1):
            dump = Path(f"{out}.{number}").read_text()
            total = int(re.search(r"^(?:summary|totals): (\d+)", dump, re.M)[1])
            calls = re.findall(r"^cfn=(\S+)\ncalls=(\d+) ", dump, re.M)
            heap = sum(int(count) for name, count in calls if name.removeprefix("__libc_") in HEAP)
            figures[name] = (total / int(times), heap / int(times))
        return figures


def committed():
    lines = FIGURES.read_text().splitlines() if FIGURES.exists() else []
    rows = (line.split() for line in lines if line and not line.startswith("#"))
    return {name: (float(instructions), float(heap)) for name, instructions, heap in rows}


def main():
    arguments = sys.argv[1:]
    if arguments == ["--build"]:
        return build()
    write = "--write" in arguments
    programs = [argument for argument in arguments if argument != "--write"]
    if len(programs) > 1 or any(program.startswith("-") for program in programs):
        sys.exit(__doc__)
    install()
    program = Path(programs[0]).resolve() if programs else build()
    figures, known = least(program), committed()
    faults, better = [], []
    print(f"{'':36}{'instructions':>14}{'committed':>12}{'change':>9}{'allocations':>13}")
    for name, (instructions, heap) in figures.items():
        was, was_heap = known.get(name, (0, 0))
        change = instructions / was - 1 if was and abs(instructions - was) > NOTHING else 0
        print(f"{name:36}{instructions:14.0f}{was:12.0f}{change:+9.1%}{heap:9.2f} ({was_heap:.2f})")
        if not was:
            faults.append(f"{name} is new")
        elif change > MARGIN:
            faults.append(f"{name} takes {change:.1%} more instructions")
        elif change < -MARGIN:
            better.append(name)
        if abs(heap - was_heap) > 0.005:
            faults.append(f"{name} allocates {heap:.2f} times, not {was_heap:.2f}")
    faults += [f"{name} is gone" for name in known.keys() - figures.keys()]
    if write:
        rows = (f"{name:36}{instructions:10.0f}{heap:8.2f}\n" for name, (instructions, heap) in figures.items())
        FIGURES.write_text(HEAD + "".join(rows))
        print(f"instructions: wrote {FIGURES.relative_to(ROOT)}")
    elif faults:
        fail("; ".join(faults) + " (meant so? make instructions WRITE=1)")
    elif better:
        print(f"instructions: {', '.join(better)}: fewer by more than {MARGIN:.0%}; make instructions WRITE=1 updates the figures")


main()
