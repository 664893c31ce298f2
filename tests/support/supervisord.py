"""A real supervisord in a directory, its conf.d, and real programs in it."""

import contextlib
import os
import runpy
import shutil
import signal
import subprocess
import sys
import xmlrpc.client
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import supervisor.options  # noqa: F401 for the forked modules
from supervisor.xmlrpc import SupervisorTransport

from support.module_run import ModuleRun
from support.wait import wait_until

TOP = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("program.py")
SUPERVISORD = Path(sys.executable).with_name("supervisord")

MODULE = TOP / "plugins/modules/supervisor_programs.py"

A1, A2, A3 = (f"app-worker-a-{digit * 8}" for digit in "123")
B1, B2 = (f"app-worker-b-{digit * 8}" for digit in "12")
S1, S2, S3 = (f"app-scheduler-{digit * 8}" for digit in "123")
SCHEDULER = {"prefix": "app-scheduler", "strategy": "replace"}


def actions(result):
    return {program["name"]: program["action"] for program in result["programs"]}


def scheduler(host, name, *worker, **more):
    return host.program(name, worker, prefix="app-scheduler", **more)


def serving(host, *names):
    """Whether these run, nothing else is loaded, and conf.d would bring just them after a reboot."""
    wait_until(lambda: host.states() == dict.fromkeys(names, "RUNNING"), 10, f"{names} RUNNING")
    return {path.stem for path in host.conf_d.iterdir()} == set(names) and not host.links()


def run_module(crash_before=0):
    """Run the module. It dies before that call, counted, which changes something in supervisord."""
    sys.argv = [str(MODULE)]
    if crash_before:
        crash(crash_before)
    runpy.run_path(str(MODULE), run_name="__main__")


def crash(before):
    """Die before a call that changes something in supervisord."""
    from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.rpc import Supervisord

    calls, call = iter(range(1, 1000)), Supervisord._call

    def counted(supervisord, method, *arguments, **options):
        is_change = method in ("addProcessGroup", "startProcess", "stopProcess", "removeProcessGroup")
        if is_change and next(calls) == before:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(supervisord, method, *arguments, **options)

    Supervisord._call = counted


@dataclass
class Supervisord:
    """A directory as Supervisor's host: supervisord, its conf.d, and the events that its programs write."""

    directory: Path
    daemon: subprocess.Popen | None = None
    login: tuple = (None, None)

    @property
    def conf(self):
        return self.directory / "supervisord.conf"

    @property
    def conf_d(self):
        return self.directory / "conf.d"

    @property
    def volatile(self):
        return self.directory / "volatile/conf.d"

    @property
    def socket(self):
        return self.directory / "supervisor.sock"

    def text(self):
        """Return the text of a supervisord.conf."""
        return (
            f"[unix_http_server]\nfile={self.socket}\nchmod=0700\n"
            f"[supervisord]\nlogfile=%(here)s/supervisord.log\npidfile=%(here)s/supervisord.pid\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[supervisorctl]\nserverurl=unix://{self.socket}\n"
            f"[include]\nfiles = {self.conf_d}/*.conf\n"
        )

    def start(self, text="", login=(None, None)):
        """Start supervisord, with another supervisord.conf than usual if that is given, and a login."""
        self.login = login
        self.conf_d.mkdir(exist_ok=True)
        self.conf.write_text(text or self.text())
        command = [SUPERVISORD, "--nodaemon", "--silent", "--configuration", self.conf]
        self.daemon = subprocess.Popen(command, cwd=self.directory)
        wait_until(self._answers, 10, "self._answers")

    def _answers(self):
        try:
            return self.rpc.getState()["statename"] == "RUNNING"
        except OSError:
            return False

    def stop(self):
        if self.daemon:
            pids = self.pids().values() if self._answers() else []
            self.daemon.kill()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.daemon.wait(20)
            self.daemon = None

    def reboot(self):
        """Everything ends at once, and what is under /run is gone."""
        self.stop()
        shutil.rmtree(self.volatile, ignore_errors=True)
        self.start()

    @property
    def rpc(self):
        transport = SupervisorTransport(*self.login, f"unix://{self.socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def states(self):
        return {info["name"]: info["statename"] for info in self.rpc.getAllProcessInfo()}

    def pids(self):
        return {info["name"]: info["pid"] for info in self.rpc.getAllProcessInfo() if info["pid"]}

    def files(self):
        return {path.name: path.read_text() for path in sorted(self.conf_d.iterdir())}

    def links(self):
        """The programs whose conf does not outlive a reboot."""
        return {path.stem for path in self.conf_d.glob("*.conf") if path.is_symlink()}

    def events(self, name):
        """Return what a program wrote, as {event: time of the first}."""
        path = self.directory / f"{name}.events"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        found = {}
        for line in lines:
            event, when = line.split()
            found.setdefault(event, float(when))
        return found

    def program(self, name, worker=(), prefix="app-worker-", program=None, settings=(), **more):
        """Return a manifest entry for a program that runs worker.py with these arguments."""
        lines = [
            f"# owner: celery-ops {prefix}",
            f"[program:{name}]",
            f"command={sys.executable} -S -E {WORKER} {self.directory}/{name}.events " + " ".join(map(str, worker)),
            "startsecs=0",
            "autorestart=true",
            f"stdout_logfile={self.directory}/{name}.log",
            "redirect_stderr=true",
            *settings,
        ]
        program = program or (name[:-9] if name[-9] == "-" else name)
        return {
            "program": program,
            "name": name,
            "conf": "\n".join(lines) + "\n",
            "ready": self.is_ready(name),
            "ready_timeout": 8,
            "log": f"{self.directory}/{name}.log",
            **more,
        }

    def is_ready(self, name):
        """Return a ready command: the worker has written that it is."""
        return ["grep", "-q", "^ready", f"{self.directory}/{name}.events"]

    def arguments(self, programs=(), prefix="app-worker-", check=False, strategy="overlap", **more):
        return {
            "program_prefixes": prefix,
            "programs": [{"strategy": strategy, **program} for program in programs],
            "conf_dir": str(self.conf_d),
            "supervisord_conf": str(self.conf),
            "volatile_dir": str(self.volatile),
            "release_root": str(self.directory),
            "log_dir": str(self.directory),
            "run_dir": str(self.directory / "run"),
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            **more,
        }

    def begin(self, programs=(), crash_before=0, **more):
        """Start the module in a process of its own, as Ansible would; return that."""
        return ModuleRun(partial(run_module, crash_before), self.arguments(programs, **more))

    def apply(self, programs=(), **more):
        """Run the module; it must succeed."""
        return self.succeeded(self.begin(programs, **more))

    @staticmethod
    def succeeded(process):
        """Return the result of a module that was begun; it must succeed."""
        result = process.result()
        assert not result.get("failed"), result["msg"]
        return result

    def refuse(self, programs=(), **more):
        """Run the module; it must fail. Return the result."""
        result = self.begin(programs, **more).result()
        assert result.get("failed"), result
        return result
