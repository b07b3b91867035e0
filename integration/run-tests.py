#!/usr/bin/env python3
"""Runs cargo's tests, all programs of them, and what failed once more, alone.

Tests that drive kernels, networks and disks by the thousand find a busy machine sometimes. One that
passes alone is named at the end as unsteady, for somebody to look into; several of them are no accident, and a
failure like any other.

Usage: run-tests.py CARGO test ARGUMENT...
"""

import re
import subprocess
import sys
import tempfile

MOST_UNSTEADY = 2

PROGRAM = re.compile(r"^ +Running .* \(\S+\)$")
FAILED = re.compile(r"^test (\S+) \.\.\. FAILED$")
# What cargo calls a program at the end, by which it can be asked for: `-p PACKAGE --test NAME`.
TARGET = re.compile(r"^    `-p \S+ (.*)`$")


def run(command):
    """Shows and returns what a command says, and whether it succeeded."""
    said = ""
    # A file, and no pipe: what a test left running would hold that open.
    with tempfile.TemporaryFile("w") as output:
        reader = open(f"/proc/self/fd/{output.fileno()}", errors="replace")
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        ended = False
        while True:
            part = reader.read()
            said += part
            sys.stdout.write(part)
            sys.stdout.flush()
            if ended:
                return said.splitlines(), child.returncode == 0
            try:
                child.wait(timeout=0.2)
                ended = True
            except subprocess.TimeoutExpired:
                pass


def failures(said):
    """The tests that failed, each with its target; nothing when a program ended in another way."""
    programs = []
    for line in said:
        if PROGRAM.match(line):
            programs.append([])
        elif (match := FAILED.match(line)) and programs:
            programs[-1].append(match[1])
    failed = [tests for tests in programs if tests]
    targets = [match[1].split() for line in said if (match := TARGET.match(line))]
    if len(failed) != len(targets):
        return []
    return [(target, test) for target, tests in zip(targets, failed) for test in tests]


def main():
    command = sys.argv[1:]
    said, succeeded = run([*command, "--no-fail-fast"])
    if succeeded:
        return 0
    failed = failures(said)
    if not 0 < len(failed) <= MOST_UNSTEADY:
        return 1
    for target, test in failed:
        said, succeeded = run([*command, *target, "--", "--exact", test])
        if not succeeded or f"test {test} ... ok" not in said:
            return 1
    for _, test in failed:
        print(f"unsteady: {test} failed, and passed when it ran alone", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
