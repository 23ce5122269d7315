"""Runs the examples of a page against a running system: examples.py PAGE live|alone.

An example is a block of sh (each command by itself) or python. It has worked when it has printed something and, if it ends by
itself, ended well. A fence that says `sh alone` is for when the stage that it is about does not run; all others are live. The page's
addresses and ids are put in place of those that this system has, and nothing else is changed.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time

page, which = sys.argv[1:3]
with open(page) as file:
    text = file.read()
environment = dict(os.environ, PATH=f"{os.environ['PROGRAMS']}:{os.environ['PATH']}", PYTHONUNBUFFERED="1")
replaced = {
    "localhost:9092": os.environ["FANOUT_KAFKA"],
    "018f3c1e-6d1a-4a3e-9d1b-2f1b6a5c7d80": os.environ["CHAT"],
    "018f3c1e-2b7f-4c55-8e0a-90d3c1a4b6f2": os.environ["USER_ID"],
    "postgres://localhost/fanout": os.environ["FANOUT_POSTGRES"],
}


def commands():
    """(what it is, argv)"""
    for language, alone, block in re.findall(r"^```(sh|python)( alone)?\n(.*?)^```$", text, re.M | re.S):
        if bool(alone) != (which == "alone"):
            continue
        for old, new in replaced.items():
            block = block.replace(old, f"'{new}'" if language == "sh" and " " in new else new)
        if language == "python":
            yield block, [sys.executable, "-c", block]
            continue
        for command in re.split(r"\n\s*\n", block.strip()):
            lines = [line for line in command.split("\n") if not line.startswith("#")]
            if lines:
                yield "\n".join(lines), ["bash", "-o", "pipefail", "-c", "\n".join(lines)]


def run(argv):
    """(what it printed, its exit code or None when it would have gone on, what it complained of)"""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(argv, stdout=output, stderr=errors, env=environment, start_new_session=True)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            # One that follows a topic has shown what it can do with its first lines.
            if os.fstat(output.fileno()).st_size and time.monotonic() > deadline - 57:
                break
            time.sleep(0.05)
        code = process.poll()
        if code is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        errors.seek(0)
        return output.read().decode(), code, errors.read().decode()


failed = ran = 0
for shown, argv in commands():
    ran += 1
    output, code, errors = run(argv)
    print(f"$ {shown.strip()}\n{output[:600]}", flush=True)
    # Broken off, or ended well; an end by a signal of its own making is none of both.
    if code not in (None, 0) or not (output.strip() or code == 0 and which == "alone"):
        failed += 1
        print(f"FAILED with {code}: {errors}")
assert ran, f"{page} has no {which} examples"
sys.exit(1 if failed else 0)
