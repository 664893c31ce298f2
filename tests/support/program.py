"""A program for supervisord: it writes when it started, was ready, was told to stop, and ended."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("events")
parser.add_argument("--ready-after", type=float, default=0.0)
parser.add_argument("--die-after", type=float)
parser.add_argument("--ends-after", type=float, help="seconds after it was ready")
parser.add_argument("--drain", type=float, default=0.0)
parser.add_argument("--drain-until", help="this file is there")
parser.add_argument("--child-lasts", type=float, help="seconds; a child that has ended is started again")
parser.add_argument("--child-loads", type=float, help="seconds for which the child works before it ends")
parser.add_argument("--heeds", help="path without its end: it takes nothing while <path>.hold is there")
options = parser.parse_args()


def event(name):
    with open(options.events, "a") as file:  # noqa: PTH123 pathlib would triple the start-up time
        file.write(f"{name} {time.time()}\n")


def drain(*_):
    event("term")
    time.sleep(options.drain)
    while options.drain_until and not os.path.exists(options.drain_until):  # noqa: PTH110 as below
        time.sleep(0.02)
    event("end")
    sys.exit(0)


signal.signal(signal.SIGTERM, drain)
event("start")
print("Starting up.", flush=True)
if options.die_after is not None:
    time.sleep(options.die_after)
    sys.exit("ModuleNotFoundError: No module named 'petct_tasks'")
time.sleep(options.ready_after)
event("ready")
while options.child_lasts is not None:
    subprocess.run(["sleep", str(options.child_lasts)], check=False)
while options.child_loads is not None:
    code = f"import time\nend = time.monotonic() + {options.child_loads}\nwhile time.monotonic() < end: pass"
    subprocess.run([sys.executable, "-S", "-c", code], check=False)
if options.ends_after is not None:
    time.sleep(options.ends_after)
    sys.exit(3)
held = False
while options.heeds:
    if os.path.exists(f"{options.heeds}.hold") != held:  # noqa: PTH110
        held = not held
        event("held" if held else "let-go")
        beat = {
            "beat": time.monotonic(),
            "connected": True,
            "paused": ["a"] * held,
            "queues": {} if held else {"a": True},
        }
        with open(f"{options.heeds}.heartbeat", "w") as file:  # noqa: PTH123
            json.dump(beat, file)
    time.sleep(0.05)
while True:
    signal.pause()
