"""The faults: one small function each, what ends it if it does not end by itself, and what is promised."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from subject import Subject
from support.control import Variants, play, start
from support.host import APP
from support.wait import wait_until

RERUN = "what ran there is run again"
CONF_D = "/etc/supervisor/conf.d"
CLOCK = "/var/lib/petct/clock"
# In an environment file of its own: from there on all is done as the application's user, as libfaketime needs. It sets
# the monotonic clock, too, which a real jump does not; without that its sleeps fail (0.9.10).
FAKETIME = f"""\
LD_PRELOAD='/usr/$LIB/faketime/libfaketimeMT.so.1'
FAKETIME_NO_CACHE=1
FAKETIME_TIMESTAMP_FILE={CLOCK}
"""


@dataclass(frozen=True)
class Fault:
    """A fault and the promise about it."""

    name: str
    inject: Callable[[Subject], None]
    promise: float
    """Seconds from its end until all is as before: tasks are prompt, programs and processes are one of each."""
    end: Callable[[Subject], None] | None = None
    lasts: float = 0.0
    """Seconds until `end` is called."""
    doubles: str = ""
    """Why a task may run twice; empty where none may."""

    @property
    def key(self) -> str:
        """Its name as a word."""
        return re.sub(r"\W", "_", self.name)


def kill_worker(subject: Subject) -> None:
    subject.output(f"kill -KILL {subject.main('worker')}")


def kill_child(subject: Subject) -> None:
    subject.output(f"kill -KILL {subject.children()[0]}")


def kill_biggest(subject: Subject) -> None:
    """What the kernel would choose when memory runs out."""
    pids = [subject.main("worker"), *subject.children()]
    scores = subject.output(f"cd /proc; grep -H . {' '.join(f'{pid}/oom_score' for pid in pids)}").splitlines()
    pid = max(scores, key=lambda line: int(line.split(":")[1])).split("/")[0]
    subject.output(f"kill -KILL {pid}")


def term_group(subject: Subject) -> None:
    subject.output(f"kill -TERM -{subject.main('worker')}")


def restart_worker(subject: Subject) -> None:
    [name] = subject.workers()
    subject.output(f"supervisorctl restart {name}")


def kill_supervisord(subject: Subject) -> None:
    subject.output(f"kill -KILL {subject.processes()['supervisors'][0]}")


def restart_host(subject: Subject) -> None:
    subject.restart()


def cut_power(subject: Subject) -> None:
    subject.cut_power()
    subject.power_on()


def stop_worker(subject: Subject) -> None:
    subject.output(f"kill -STOP {subject.main('worker')}")


def stop_children(subject: Subject) -> None:
    subject.output(f"kill -STOP {' '.join(map(str, subject.children()))}")


def signal_broker(name: str) -> Callable[[Subject], None]:
    return lambda subject: subject.output(f"pkill -{name} -u rabbitmq beam.smp") and None


def systemctl(verb: str, unit: str) -> Callable[[Subject], None]:
    return lambda subject: subject.output(f"systemctl {verb} {unit}") and None


def kill_result_store(subject: Subject) -> None:
    subject.output("kill -KILL $(systemctl show --value --property MainPID redis-server)")


def firewall(action: str) -> Callable[[Subject], None]:
    """Drops what goes between the host's own programs and its broker; the load comes from outside and is not cut."""

    def change(subject: Subject) -> None:
        for port in ("--dport", "--sport"):
            subject.in_network(
                *("iptables", "--wait", action, "INPUT", "-i", "lo", "-p", "tcp", port, "5672", "-j", "DROP")
            )

    return change


def raise_disk_alarm(subject: Subject) -> None:
    subject.output("rabbitmqctl -q set_disk_free_limit 100000000000000")


def clear_disk_alarm(subject: Subject) -> None:
    limit = subject.output("sed -n 's/^disk_free_limit.absolute *= *//p' /etc/rabbitmq/conf.d/*")
    subject.output(f"rabbitmqctl -q set_disk_free_limit {limit}")


def reinstall_supervisor(subject: Subject) -> None:
    subject.output("DEBIAN_FRONTEND=noninteractive apt-get -q -y install --reinstall supervisor")


def corrupt_schedule(subject: Subject) -> None:
    subject.output(f"for f in /var/lib/{APP}/beat-schedule-*; do head -c 20000 /dev/urandom > $f; done")
    subject.output(f"kill -KILL {subject.main('scheduler')}")


def set_clock(subject: Subject, seconds: int) -> None:
    """So far beside the true time is the scheduler's clock from now on; nobody else's, and no container has its own."""
    subject.output(f"echo {seconds:+d} > {CLOCK}")
    subject.mark()


def set_clock_back(subject: Subject) -> None:
    """An hour back, where ticks have to go on, and then forward again."""
    name = subject.program("scheduler").name
    conf = f"{CONF_D}/{name}.conf"
    set_clock(subject, 0)
    subject.output(f"cp {conf} /root/scheduler.conf && cp -p $(readlink -f /etc/{APP}/env) /etc/{APP}/env-clock")
    subject.output(f"echo {shlex.quote(FAKETIME)} >> /etc/{APP}/env-clock")
    subject.output(f"sed -i 's|--env-file [^ ]*|--env-file /etc/{APP}/env-clock|' {conf} && supervisorctl update")
    wait_until(subject.ticks, 60, "a scheduler with a clock of its own")
    set_clock(subject, -3600)
    # The worker, whose clock is right, drops these ticks as long expired: what the scheduler says has to do.
    log = f"tail -n 20 /var/log/{APP}/{name}.log"
    wait_until(
        lambda: "Sending due" in subject.ask(log).partition("The clock was set back")[2], 60, "ticks while it is back"
    )
    set_clock(subject, 0)


def set_clock_right(subject: Subject) -> None:
    """The scheduler has the host's clock again."""
    conf = f"{CONF_D}/{subject.name_of('scheduler')}.conf"
    subject.output(f"mv /root/scheduler.conf {conf} && supervisorctl update && rm {CLOCK} /etc/{APP}/env-clock")


def deploy_of(subject: Subject, edits: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Begin to deploy another release."""
    directory, now = Path(f"/tmp/celery-ops-chaos-{subject.name}"), time.time()
    variant = Variants(directory).make(str(now), {"petct/__init__.py": f"AT = {now}\n", **(edits or {})})
    return start("deploy", subject, output=subprocess.PIPE, celery_app_source=str(variant))


def deployment(subject: Subject) -> tuple[str, dict[str, str]]:
    """What is deployed: the current release, and every program's conf by name."""
    return subject.current(), subject.confs()


def unnamed(deployed: tuple[str, dict[str, str]]) -> tuple[str, list[str]]:
    """What is deployed, without the names of generations."""
    release, confs = deployed
    return release, sorted(re.sub(r"-[0-9a-f]{8}(?![0-9a-f])", "", conf) for conf in confs.values())


def deploy_whose_web_fails(subject: Subject) -> None:
    """A deploy that has handed the workers over when its web server does not come up; it takes itself back."""
    before = deployment(subject)
    deploy = deploy_of(subject, {"petct/wsgi.py": "\nraise SystemExit('no web')\n"})
    said = deploy.communicate(timeout=600)[0]
    subject.mark()
    assert deploy.returncode != 0, said[-3000:]
    assert "the processes it starts keep ending" in said, said[-3000:]
    assert deployment(subject) == before, said[-3000:]


def control_node_killed_in_the_drain(subject: Subject) -> None:
    """A deploy's control node is gone while the old workers finish their tasks; a rollback is started at once."""
    before, [worker] = deployment(subject), subject.workers()
    subject.send("celery_ops.ledger", "keeps-the-old-worker-draining", 1, 45.0)
    deploy = deploy_of(subject)
    wait_until(lambda: subject.worker_states().get(worker) == "STOPPING", 300, "the drain")
    os.killpg(deploy.pid, signal.SIGKILL)
    deploy.communicate()
    back = play("rollback", subject)
    assert back.rc == 0, back.text[-3000:]
    # The generation from before still finishes its task, and was started anew beside itself, under another name.
    wait_until(
        lambda: unnamed(deployment(subject)) == unnamed(before), 90, f"the deployment before: {back.text[-3000:]}"
    )
    subject.mark()


def deploy_while_broker_restarts(subject: Subject) -> None:
    """A deploy whose handover meets a broker that restarts; it may fail, and then says so and leaves all as it was."""
    before = subject.current()
    deploy = deploy_of(subject)
    wait_until(lambda: len(subject.worker_states()) > 1, 120, "a second worker program")
    subject.mark()
    subject.output("systemctl restart rabbitmq-server")
    said = deploy.communicate(timeout=300)[0]
    assert (deploy.returncode == 0) == (subject.current() != before), said[-3000:]


FAULTS = [
    Fault("SIGKILL of the worker's main process", kill_worker, 30, doubles=RERUN),
    Fault("SIGKILL of a pool child", kill_child, 10, doubles=RERUN),
    Fault("supervisorctl restart of the worker", restart_worker, 30),
    Fault("systemctl restart supervisor", systemctl("restart", "supervisor"), 60),
    Fault("SIGKILL of supervisord", kill_supervisord, 60),
    Fault("restart of RabbitMQ", systemctl("restart", "rabbitmq-server"), 60, doubles=RERUN),
    Fault("network cut between worker and broker, 5 s", firewall("-I"), 30, firewall("-D"), lasts=5, doubles=RERUN),
    Fault("control node killed while a deploy drains, then a rollback", control_node_killed_in_the_drain, 30),
    # These eight run in CI; the others by `make chaos`.
    Fault("restart of the host", restart_host, 90, doubles=RERUN),
    Fault("deploy whose web phase fails", deploy_whose_web_fails, 30),
    Fault("TERM to the worker's process group", term_group, 30, doubles=RERUN),
    Fault("SIGKILL of the worker's biggest process, as when memory runs out", kill_biggest, 30, doubles=RERUN),
    Fault("power cut of the host", cut_power, 90, doubles=RERUN),
    Fault("SIGSTOP of the broker, 30 s", signal_broker("STOP"), 60, signal_broker("CONT"), lasts=30, doubles=RERUN),
    Fault("SIGKILL of RabbitMQ", signal_broker("KILL"), 60, doubles=RERUN),
    Fault("RabbitMQ stopped for 120 s", systemctl("stop", "rabbitmq-server"), 60,
          systemctl("start", "rabbitmq-server"), lasts=120, doubles=RERUN),
    Fault("restart of Redis", systemctl("restart", "redis-server"), 20),
    Fault("SIGKILL of Redis", kill_result_store, 20),
    Fault("network cut between worker and broker, 60 s", firewall("-I"), 90, firewall("-D"), lasts=60, doubles=RERUN),
    Fault("network cut between worker and broker, 200 s", firewall("-I"), 90, firewall("-D"), lasts=200, doubles=RERUN),
    Fault("disk alarm at the broker, 30 s", raise_disk_alarm, 60, clear_disk_alarm, lasts=30),
    Fault("reinstallation of the package supervisor", reinstall_supervisor, 90),
    Fault("corrupted beat schedule", corrupt_schedule, 20),
    Fault("the scheduler's clock set back by an hour, then forward", set_clock_back, 60, set_clock_right, lasts=20),
    Fault("deploy while RabbitMQ restarts", deploy_while_broker_restarts, 120, doubles=RERUN),
    Fault("SIGSTOP of the worker's main process", stop_worker, 60, doubles=RERUN),
    Fault("SIGSTOP of all pool children", stop_children, 60, doubles=RERUN),
]  # fmt: skip
COMMONEST = FAULTS[:8]
TWENTY_TIMES = [FAULTS[index] for index in (0, 1, 3, 4, 5)]
