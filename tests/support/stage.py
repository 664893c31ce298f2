"""A stand-in for supervisord, and programs to guard: real processes, each in a process group of its own."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from celery_ops import proc

from support.wait import wait_until

TESTS = Path(__file__).parents[1]
RUNTIME = TESTS.parent / "runtime"
BIN = Path(sys.executable).parent
# Guard and watchdog read all processes of the machine: those of other test processes are another application's.
APP = f"demo{os.getpid()}"
GENERATION = "1a2b3c4d"
PROGRAM_NAME = f"{APP}-worker-default-{GENERATION}"
NODE = f"{PROGRAM_NAME}@here"

# What matters of supervisord here: it is one thread, starts its child in a process group of its own, is its
# parent and reads its output until it dies. From then on that output is a broken pipe, as with the real one.
SUPERVISOR = """
import os, select, subprocess, sys
child = subprocess.Popen(sys.argv[1:], process_group=0, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
print(child.pid, flush=True)
while True:
    ended = child.poll() is not None
    if select.select([child.stdout], [], [], 0 if ended else 0.05)[0] and (chunk := child.stdout.read1()):
        os.write(2, chunk)
    elif ended:
        sys.exit(child.returncode % 256)
"""

# Behaves as Celery does: takes the pidfile or exits 73; TERM lets it finish its work; removes the pidfile.
# The journal tells who finished, and how many TERMs that took.
PROGRAM = """
import argparse, ctypes, os, signal, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--pidfile", required=True)
parser.add_argument("--work", type=float, default=0)
parser.add_argument("--work-until", help="this file is there")
parser.add_argument("--stubborn", action="store_true")
parser.add_argument("--deaf", action="store_true")
options = parser.parse_args()
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
if options.deaf:
    ctypes.CDLL(None).prctl(1, 0)
try:
    pidfile = os.open(options.pidfile, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
except FileExistsError:
    sys.exit(73)
os.write(pidfile, b"%d\\n" % os.getpid())
os.close(pidfile)
while not told or options.stubborn:
    time.sleep(0.02)
end = time.monotonic() + options.work
while time.monotonic() < end or (options.work_until and not os.path.exists(options.work_until)):
    time.sleep(0.02)
with open(options.pidfile + ".journal", "a") as journal:
    journal.write(f"{os.getpid()} {len(told)}\\n")
os.unlink(options.pidfile)
"""


def clean_environment(**variables):
    """This process's environment without Django's and Celery's, with the runtime and the tests' support importable."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY", "DJANGO"))}
    return {**bare, "PYTHONPATH": f"{RUNTIME}:{TESTS}", **variables}


def alive(pid):
    return proc.stat(pid) is not None


class Started:
    """A program under the guard under a stand-in supervisor."""

    def __init__(self, process, log):
        self.supervisor, self.log = process, log
        self.pid = int(process.stdout.readline())

    @property
    def output(self):
        return self.log.read_text()

    def is_the_program(self):
        """Whether the guard has become the program."""
        with contextlib.suppress(OSError):
            return b"CELERY_OPS_GUARDED=" in Path(f"/proc/{self.pid}/environ").read_bytes()

    def lose_supervisor(self):
        self.supervisor.kill()
        self.supervisor.wait()

    def stop(self, number=signal.SIGTERM):
        os.kill(self.pid, number)
        return self.exit_status()

    def exit_status(self, seconds=15):
        try:
            return self.supervisor.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"pid {self.pid} still runs after {seconds} s:\n{self.output}")


class Stage:
    """Starts guarded programs in one directory, and ends whatever is left of them."""

    def __init__(self, directory):
        self.directory = directory
        self.run = directory / "run"
        self.run.mkdir()
        self.pidfile = self.run / "demo.pid"
        self.lock = self.run / "demo.pid.lock"
        self.script = directory / "program.py"
        self.script.write_text(PROGRAM)
        self.started, self.others = [], []

    def program(self, *arguments):
        """The command of a program that behaves as Celery does."""
        return [sys.executable, "-S", str(self.script), "--pidfile", str(self.pidfile), *map(str, arguments)]

    def start(self, *command, name=PROGRAM_NAME, options=(), environment=None, pidfile=None):
        """Start the guard under a supervisor of its own, without waiting for anything."""
        log = self.directory / f"log-{len(self.started)}"
        guard = [
            "--app",
            APP,
            "--program",
            name,
            "--pidfile",
            pidfile or self.pidfile,
            *options,
            "--",
            *command,
        ]
        with log.open("w") as output:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-S",
                    "-c",
                    SUPERVISOR,
                    sys.executable,
                    "-m",
                    "celery_ops.cli.guard",
                    *map(str, guard),
                ],
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env=clean_environment(**(environment or {})),
                cwd=self.directory,
            )
        self.started.append(Started(process, log))
        return self.started[-1]

    def worker(self, generation, *options, runtime=("-I", "celery_ops.tasks"), environment=None):
        """Start a Celery worker of the module demo.py, as the kit's worker programs are started."""
        program = f"{APP}-worker-default-{generation}"
        return self.start(
            *(BIN / "celery", "-A", "demo", "worker", "-n", f"{program}@here", "--without-mingle", "--without-gossip"),
            *(*runtime, *options),
            name=program,
            options=("--chdir", self.directory),
            pidfile=self.run / f"{program}.pid",
            environment={"C_FORCE_ROOT": "1", "CELERY_OPS_STATE_DIR": str(self.directory), **(environment or {})},
        )

    def up(self, *command, **options):
        """Start the guard and wait until the program has its pidfile."""
        started = self.start(*(command or self.program()), **options)
        wait_until(lambda: self.pid_in_file() == started.pid, 15, f"the program's pidfile:\n{started.output}")
        return started

    def spawn(self, *command, **options):
        """Start a bystander, not under the guard."""
        self.others.append(subprocess.Popen(list(map(str, command)), **options))
        return self.others[-1]

    def pid_in_file(self):
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(self.pidfile.read_text())

    def terms(self, pid):
        """How many TERMs the program with this pid got before it finished, None if it didn't."""
        journal = Path(f"{self.pidfile}.journal")
        lines = journal.read_text().splitlines() if journal.exists() else []
        return dict(map(int, line.split()) for line in lines).get(pid)

    def lock_is_free(self):
        with self.lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def close(self):
        for started in self.started:
            started.supervisor.kill()
            started.supervisor.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.supervisor.stdout.close()
        for other in self.others:
            other.kill()
            other.wait()
