"""Each row of the pidfile table: real processes, a real flock, a stand-in supervisord to kill."""

import fcntl
import json
import os
import pwd
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.stage import APP, BIN, PROGRAM_NAME, alive, clean_environment
from support.wait import wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of another user")
SUPERVISED = 73

WORKER = ("--work", 1)  # has something to finish when told to stop
SCHEDULER = ()  # leaves at once
both = pytest.mark.parametrize("kind", [WORKER, SCHEDULER], ids=["worker", "scheduler"])


# What the pidfile may hold before the start


@both
def test_no_pidfile(stage, kind):
    started = stage.up(*stage.program(*kind))
    assert started.output == ""
    assert started.stop() == 0
    assert not stage.pidfile.exists()


def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: f"{dead_pid()}\n", "which is gone"),
        (lambda: "", "is empty"),
        (lambda: "\n", "is empty"),
        (lambda: "worker\n", "holds no pid but 'worker"),
        (lambda: "-1\n", "holds no pid"),
        (lambda: "0\n", "holds no pid"),
        (lambda: "99999999999999999999\n", "holds no pid"),
        (lambda: "12 34\n", "holds no pid"),
        (lambda: "\x00\x00\x00", "holds no pid"),
        (lambda: "³\n", "holds no pid"),
    ],
    ids=["dead", "empty", "newline", "garbage", "negative", "zero", "huge", "two", "nuls", "superscript"],
)
def test_pidfile_that_means_nothing(stage, content, said):
    stage.pidfile.write_text(content())
    started = stage.up()
    assert said in started.output
    assert f"{stage.pidfile} " in started.output
    assert "; removed" in started.output


def test_own_pid(stage):
    # The guard's pid isn't known before it runs; a shell becomes the guard after writing its own.
    command = [sys.executable, "-m", "celery_ops.cli.guard", "--app", APP, "--program", APP]
    command += ["--pidfile", str(stage.pidfile), "--", *stage.program()]
    process = stage.spawn(
        "sh", "-c", f'echo $$ > {stage.pidfile}; exec "$@"', "sh", *command,
        stderr=subprocess.PIPE, text=True, env=clean_environment(),
    )  # fmt: skip
    assert "names this very process; removed" in process.stderr.readline()
    wait_until(lambda: stage.pid_in_file() == process.pid, 15, "the program's pidfile")


def test_pid_reused_by_another_program_of_the_same_user(stage):
    bystander = stage.spawn("sleep", 60)
    stage.pidfile.write_text(f"{bystander.pid}\n")
    started = stage.up()
    assert "now another program ('sleep 60' of " in started.output
    assert bystander.poll() is None


@as_root
def test_pid_reused_by_another_user(stage):
    bystander = stage.spawn("sleep", 60, user="nobody")
    stage.pidfile.write_text(f"{bystander.pid}\n")
    started = stage.up()
    assert "of nobody), which was left alone; removed" in started.output
    assert bystander.poll() is None


@pytest.mark.parametrize(
    "marks",
    [
        {"CELERY_OPS_APP": APP, "CELERY_OPS_PROGRAM": PROGRAM_NAME},
        {"CELERY_OPS_GUARDED": "not json"},
        {"CELERY_OPS_GUARDED": "another pid"},
    ],
    ids=["names", "garbage", "inherited"],
)
def test_look_alikes_are_never_signalled(stage, marks):
    """The same command line and the same names in the environment, even a copied mark, make nobody ours."""
    if marks.get("CELERY_OPS_GUARDED") == "another pid":
        marks = {"CELERY_OPS_GUARDED": json.dumps({
            "app": APP, "program": PROGRAM_NAME, "pidfile": str(stage.pidfile),
            "pid": 1, "start": 1, "parent": 1, "group": 1,
        })}  # fmt: skip
    other = stage.directory / "other.pid"
    look_alike = stage.spawn(
        sys.executable, stage.script, "--pidfile", other, env=clean_environment(**marks), process_group=0
    )
    wait_until(other.exists, 15, "the look-alike")
    stage.pidfile.write_text(f"{look_alike.pid}\n")
    started = stage.up()
    assert "now another program" in started.output
    assert look_alike.poll() is None


def test_another_guarded_program_of_the_same_app_is_a_stranger(stage):
    neighbour = stage.run / "neighbour.pid"
    command = [sys.executable, stage.script, "--pidfile", neighbour]
    other = stage.start(*command, name=f"{APP}-worker-neighbour", pidfile=neighbour)
    wait_until(neighbour.exists, 15, "the neighbour")
    stage.pidfile.write_text(f"{other.pid}\n")
    stage.up()
    assert alive(other.pid)


# The directory


def test_directory_missing(stage):
    stage.run.rmdir()
    stage.up()
    assert stat.S_IMODE(stage.run.stat().st_mode) == 0o755


@as_root
def test_directory_missing_is_made_by_root_for_the_user(open_stage):
    shutil.rmtree(open_stage.run)
    started = open_stage.start("sleep", "60", options=["--user", "nobody"])
    wait_until(started.is_the_program, 15, "the program")
    nobody = pwd.getpwnam("nobody")
    made = open_stage.run.stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (nobody.pw_uid, nobody.pw_gid, 0o755)
    assert open_stage.lock.stat().st_uid == nobody.pw_uid


@as_root
def test_directory_of_somebody_else_says_what_to_type(open_stage):
    started = open_stage.start("sleep", "60", options=["--user", "nobody"])
    assert started.exit_status() == 78
    assert f"{open_stage.lock}: Permission denied" in started.output
    assert "type: ls -ld" in started.output


# An older one of ours


@both
@pytest.mark.parametrize("deaf", [(), ("--deaf",)], ids=["death-signal", "no-death-signal"])
def test_orphan_finishes_its_work_and_is_replaced(stage, kind, deaf):
    done = stage.directory / "done"
    old = stage.up(*stage.program(*(("--work-until", done) if kind else ()), *deaf))
    old.lose_supervisor()
    new = stage.start(*stage.program())
    if deaf or kind:
        # The guard has to come while the old one works, however long it takes to start.
        wait_until(lambda: "SIGTERM sent" in new.output, 15, "the guard waits")
        done.touch()
    wait_until(lambda: stage.pid_in_file() == new.pid, 15, f"the program's pidfile:\n{new.output}")
    assert not alive(old.pid)
    assert stage.terms(old.pid) in ([1] if deaf else [1, 2])  # the kernel's, the guard's
    if deaf or kind:
        assert f"pid {old.pid} ({PROGRAM_NAME}, since " in new.output
        assert "has lost its supervisor, has 330 s to finish its work: SIGTERM sent" in new.output
        assert new.output.count("SIGTERM sent") == 1


def test_a_new_generation_replaces_the_orphan_of_an_old_one(stage):
    """The scheduler's pidfile stays the same while its program name carries the generation."""
    old = stage.up(*stage.program("--deaf"), name=f"{APP}-scheduler-00000001")
    old.lose_supervisor()
    new = stage.up(name=f"{APP}-scheduler-00000002")
    assert f"({APP}-scheduler-00000001, since" in new.output
    assert not alive(old.pid)


def test_orphan_that_does_not_drain_is_killed(stage):
    old = stage.up(*stage.program("--stubborn"))
    old.lose_supervisor()
    before = time.monotonic()
    new = stage.up(options=["--drain-timeout", "1"])
    assert time.monotonic() - before >= 1
    assert not alive(old.pid)
    assert "did not finish within 1 s: SIGKILL sent" in new.output


def test_killing_an_orphan_takes_its_group_along(stage):
    command = [
        "sh",
        "-c",
        f"trap '' TERM; sleep 61 & echo $! > {stage.directory}/child; echo $$ > {stage.pidfile}; wait",
    ]
    old = stage.up(*command)
    child = int((stage.directory / "child").read_text())
    assert alive(child)
    old.lose_supervisor()
    stage.up(options=["--drain-timeout", "0.5"])
    assert not alive(old.pid)
    assert not alive(child)


def test_children_that_outlived_their_program_are_ended(stage):
    """A main process that was SIGKILLed leaves children that hold the lock."""
    command = ["sh", "-c", f"sleep 62 & echo $! > {stage.directory}/child; echo $$ > {stage.pidfile}; wait"]
    old = stage.up(*command)
    child = int((stage.directory / "child").read_text())
    os.kill(old.pid, signal.SIGKILL)
    old.exit_status()
    assert alive(child) and not stage.lock_is_free()
    new = stage.up()
    assert not alive(child)
    assert f"pid {child} ({PROGRAM_NAME}, since " in new.output
    assert "is a child that outlived it" in new.output


@both
def test_supervised_holder_is_untouched(stage, kind):
    old = stage.up(*stage.program(*kind))
    new = stage.start(*stage.program(*kind))
    assert new.exit_status() == SUPERVISED
    assert f"{PROGRAM_NAME} runs already: pid {old.pid}, since 20" in new.output
    assert f"supervisorctl stop {PROGRAM_NAME}" in new.output
    assert alive(old.pid)
    assert stage.pid_in_file() == old.pid
    old.stop()
    assert stage.terms(old.pid) == 1


@both
def test_two_started_at_once_leave_exactly_one(stage, kind):
    started = [stage.start(*stage.program(*kind)) for _ in range(4)]
    wait_until(lambda: sum(one.supervisor.poll() is None for one in started) == 1, 15, "one is left")
    (winner,) = (one for one in started if one.supervisor.poll() is None)
    assert [one.supervisor.returncode for one in started if one is not winner] == [SUPERVISED] * 3
    wait_until(lambda: stage.pid_in_file() == winner.pid, 15, "the winner's pidfile")


def test_two_started_at_once_after_an_orphan_leave_exactly_one(stage):
    stage.up(*stage.program(*WORKER)).lose_supervisor()
    test_two_started_at_once_leave_exactly_one(stage, WORKER)


def test_deleted_lock_file_with_a_live_orphan(stage):
    old = stage.up(*stage.program("--deaf", *WORKER))
    old.lose_supervisor()
    stage.lock.unlink()
    new = stage.up()
    assert "SIGTERM sent" in new.output
    assert stage.terms(old.pid) == 1


def test_deleted_lock_file_and_pidfile_with_a_live_orphan(stage):
    old = stage.up(*stage.program("--stubborn"))
    old.lose_supervisor()
    stage.lock.unlink()
    stage.pidfile.unlink()
    stage.up(options=["--drain-timeout", "0.5"])
    assert not alive(old.pid)


def test_deleted_lock_file_with_a_supervised_holder(stage):
    old = stage.up()
    stage.lock.unlink()
    new = stage.start(*stage.program())
    assert new.exit_status() == SUPERVISED
    assert alive(old.pid)


def test_lock_of_a_stranger_is_respected(stage):
    with stage.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new = stage.start(*stage.program())
        assert new.exit_status(20) == SUPERVISED
    assert "is not ours, and was left alone" in new.output
    find = new.output.split("see who: ")[1]
    assert find.startswith("find /proc/")


def test_patience_with_a_foreign_lock_holder_begins_when_the_orphan_has_gone(stage):
    """A draining orphan takes longer than that patience; something unmarked holds the lock a moment longer."""
    old = stage.up("sh", "-c", 'env -i sleep 7 & exec "$@"', "sh", *stage.program("--work", 5.5))
    old.lose_supervisor()
    new = stage.start(*stage.program())
    wait_until(lambda: stage.pid_in_file() == new.pid, 15, f"the new one runs:\n{new.output}")
    assert "not ours" not in new.output


# While waiting, and after


def test_term_while_waiting(stage):
    old = stage.up(*stage.program("--stubborn"))
    old.lose_supervisor()
    new = stage.start(*stage.program())
    wait_until(lambda: "SIGTERM sent" in new.output, 15, "the guard waits")
    assert new.stop() == 0  # long before the 330 s that the old one has
    assert "told to stop while waiting" in new.output
    assert alive(old.pid)


def test_a_waiting_guard_leaves_with_its_supervisor(stage):
    stage.up(*stage.program("--stubborn")).lose_supervisor()
    new = stage.start(*stage.program())
    wait_until(lambda: "SIGTERM sent" in new.output, 15, "the guard waits")
    new.lose_supervisor()
    wait_until(lambda: not alive(new.pid), 15, "the guard has gone")


def test_program_gets_term_when_its_supervisor_is_killed(stage):
    started = stage.up()
    started.lose_supervisor()
    wait_until(lambda: not alive(started.pid), 15, "the program has gone")
    assert stage.terms(started.pid) == 1


@as_root
def test_program_of_another_user_gets_term_too(open_stage):
    started = open_stage.start("sleep", "60", options=["--user", "root"])
    wait_until(started.is_the_program, 15, "the program")
    open_stage.run.chmod(0o777)
    other = open_stage.start("sleep", "60", options=["--user", "nobody"], pidfile=open_stage.run / "other.pid")
    wait_until(other.is_the_program, 15, "the other program")
    for one in (started, other):
        one.lose_supervisor()
        wait_until(lambda pid=one.pid: not alive(pid), 15, "the program has gone")


def test_lock_goes_through_exec_and_is_free_afterwards(stage):
    started = stage.up()
    assert not stage.lock_is_free()
    holder = json.loads(stage.lock.read_text())
    assert (holder["pid"], holder["program"], holder["app"]) == (started.pid, PROGRAM_NAME, APP)
    assert holder["parent"] == started.supervisor.pid
    inode = stage.lock.stat().st_ino
    assert any(line.split()[5].endswith(f":{inode}") for line in Path("/proc/locks").read_text().splitlines())
    started.stop(signal.SIGKILL)
    assert stage.lock_is_free()


def test_signals_are_as_a_program_expects_them(stage):
    started = stage.up()
    status = Path(f"/proc/{started.pid}/status").read_text()
    assert "SigBlk:\t0000000000000000" in status


# What the program is given


def test_environment_file_and_directory_and_nothing_on_the_command_line(stage):
    file = stage.directory / "env"
    file.write_text("CELERY_BROKER_URL='amqp://demo:se cret@there//'\nDEMO=1\n")
    shown = stage.directory / "shown"
    script = f"env > {shown}.new; pwd >> {shown}.new; mv {shown}.new {shown}; exec sleep 60"
    started = stage.start("sh", "-c", script, options=["--env-file", file, "--chdir", stage.run])
    wait_until(shown.exists, 15, started.output)
    lines = shown.read_text().splitlines()
    assert "CELERY_BROKER_URL=amqp://demo:se cret@there//" in lines
    assert {"DEMO=1", f"CELERY_OPS_APP={APP}", f"CELERY_OPS_PROGRAM={PROGRAM_NAME}"} <= set(lines)
    assert f"CELERY_OPS_CANARY_FILE={stage.run}/{PROGRAM_NAME}.canary" in lines
    assert lines[-1] == str(stage.run)
    assert b"cret" not in Path(f"/proc/{started.pid}/cmdline").read_bytes()


@as_root
def test_privileges_are_dropped_for_good(open_stage):
    shutil.rmtree(open_stage.run)
    shown = open_stage.run / "shown"
    script = f"cat /proc/self/status > {shown}.new; env >> {shown}.new; mv {shown}.new {shown}; exec sleep 60"
    started = open_stage.start("sh", "-c", script, options=["--user", "nobody"], environment={"HOME": "/root"})
    wait_until(shown.exists, 15, started.output)
    nobody, lines = pwd.getpwnam("nobody"), shown.read_text().splitlines()
    assert "Uid:" + f"\t{nobody.pw_uid}" * 4 in lines
    assert "Gid:" + f"\t{nobody.pw_gid}" * 4 in lines
    groups = next(line for line in lines if line.startswith("Groups:")).split()[1:]
    assert set(map(int, groups)) == set(os.getgrouplist("nobody", nobody.pw_gid))
    assert f"HOME={nobody.pw_dir}" in lines
    assert "USER=nobody" in lines


@as_root
def test_guards_of_one_user_see_each_other_after_dropping_root(open_stage):
    shutil.rmtree(open_stage.run)
    old = open_stage.start("sleep", "63", options=["--user", "nobody"])
    wait_until(old.is_the_program, 15, "the program")
    new = open_stage.start("sleep", "64", options=["--user", "nobody"])
    assert new.exit_status() == SUPERVISED
    assert f"runs already: pid {old.pid}" in new.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--user", "no-such-user"], "there is no user 'no-such-user'"),
        (["--chdir", "/no/such/directory"], "--chdir /no/such/directory: No such file"),
        (["--env-file", "/no/such/file"], "/no/such/file: No such file"),
    ],
)
def test_configuration_errors_leave_the_running_one_alone(stage, options, said):
    old = stage.up()
    old.lose_supervisor() if options[0] == "--user" else None
    new = stage.start(*stage.program(), options=options)
    assert new.exit_status() == 78
    assert said in new.output
    assert "Traceback" not in new.output


def test_missing_program(stage):
    started = stage.start("/srv/demo/venv/bin/celery")
    assert started.exit_status() == 78
    assert "no program /srv/demo/venv/bin/celery" in started.output


def test_damaged_environment_file_is_named_without_its_secrets(stage):
    file = stage.directory / "env"
    file.write_text("A=1\nPASSWORD=top secret\n")
    started = stage.start(*stage.program(), options=["--env-file", file])
    assert started.exit_status() == 78
    assert f"{file}:2: the value of PASSWORD must be quoted" in started.output
    assert "secret" not in started.output.replace("secrets", "")


# Celery itself, with its own pidfile


@pytest.fixture
def celery(stage):
    """Commands of a minimal Celery app whose broker is a directory; `send` queues a task that waits for a file."""
    (stage.directory / "queue").mkdir()
    (stage.directory / "control").mkdir()
    (stage.directory / "mini.py").write_text(f"""
import time
from pathlib import Path
import support.directory_broker
from celery import Celery
app = Celery("mini", broker="filesystem://")
directory = Path({str(stage.directory)!r})
queue = str(directory / "queue")
app.conf.update(
    broker_transport_options={{"data_folder_in": queue, "data_folder_out": queue, "polling_interval": 0.1,
                               "control_folder": str(directory / "control")}},
    worker_enable_remote_control=False, broker_connection_retry_on_startup=True, task_ignore_result=True,
)
@app.task(name="work")
def work(name, until):
    with (directory / "begun").open("a") as file:
        file.write(f"{{name}}\\n")
    while until and not Path(until).exists():
        time.sleep(0.02)
    print("printed by", name)
    with (directory / "done").open("a") as file:
        file.write(f"{{name}}\\n")
""")

    class Commands:
        def worker(*options):
            return [
                BIN / "celery", "-A", "mini", "worker", "-l", "INFO", "-c", "1", "--pidfile", stage.pidfile,
                "--without-mingle", "--without-gossip", "--without-heartbeat", *options,
            ]  # fmt: skip

        def beat():
            return [
                BIN / "celery",
                "-A",
                "mini",
                "beat",
                "-l",
                "INFO",
                "--pidfile",
                stage.pidfile,
                "-s",
                stage.directory / "beat",
            ]

        def send(name, until=""):
            code = f"import mini; mini.work.delay({name!r}, {str(until)!r})"
            subprocess.run([sys.executable, "-c", code], cwd=stage.directory, env=clean_environment(), check=True)

        def ready(started):
            wait_until(lambda: "ready." in started.output or "beat: Starting" in started.output, 15, "it is up")

        def lines(name):
            path = stage.directory / name
            return path.read_text().split() if path.exists() else []

    return Commands


def holds_lock(pid, lock):
    return any(os.path.realpath(entry) == str(lock) for entry in Path(f"/proc/{pid}/fd").iterdir())


def children(pid):
    found = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return {int(child) for pids in found for child in pids}


def test_celery_worker_finishes_its_task_as_an_orphan_and_is_replaced(stage, celery):
    old = stage.up(*celery.worker())
    celery.ready(old)
    celery.send("first", stage.directory / "go-on")
    wait_until(lambda: celery.lines("begun"), 15, "the task has begun")
    old.lose_supervisor()
    new = stage.start(*celery.worker())
    wait_until(lambda: "SIGTERM sent" in new.output, 15, "the guard waits")
    (stage.directory / "go-on").touch()
    wait_until(lambda: stage.pid_in_file() == new.pid, 15, f"the program's pidfile:\n{new.output}")
    assert celery.lines("done") == ["first"]


def test_celery_worker_killed_outright_starts_again_over_its_pidfile(stage, celery):
    old = stage.up(*celery.worker())
    celery.ready(old)
    pool = children(old.pid)
    old.stop(signal.SIGKILL)
    assert stage.pid_in_file() == old.pid
    new = stage.up(*celery.worker())
    assert f"names pid {old.pid}, which is gone; removed" in new.output
    assert not any(alive(child) for child in pool)


def test_celery_worker_and_its_pool_hold_the_lock_through_respawns(stage, celery):
    started = stage.up(*celery.worker("--max-tasks-per-child", "1"))
    celery.ready(started)
    first = children(started.pid)
    assert first and all(holds_lock(pid, stage.lock) for pid in {started.pid, *first})
    celery.send("one")
    second = wait_until(lambda: children(started.pid) - first, 15, "the pool's child is replaced")
    assert all(holds_lock(pid, stage.lock) for pid in second)
    assert started.stop() == 0
    assert not stage.pidfile.exists()
    assert stage.lock_is_free()


@pytest.mark.parametrize("program", ["worker", "beat"])
def test_second_celery_is_refused(stage, celery, program):
    command = getattr(celery, program)()
    old = stage.up(*command)
    new = stage.start(*command)
    assert new.exit_status() == SUPERVISED
    assert alive(old.pid) and stage.pid_in_file() == old.pid


@pytest.mark.parametrize("content", ["", "garbage", "{pid of a sleep}\n"], ids=["empty", "garbage", "reused"])
@pytest.mark.parametrize("program", ["worker", "beat"])
def test_celery_starts_over_a_pidfile_that_means_nothing(stage, celery, program, content):
    stage.pidfile.write_text(content.replace("{pid of a sleep}", str(stage.spawn("sleep", 60).pid)))
    started = stage.up(*getattr(celery, program)())
    assert "; removed" in started.output


def test_celery_beat_follows_its_supervisor_and_is_replaced(stage, celery):
    old = stage.up(*celery.beat())
    celery.ready(old)
    old.lose_supervisor()
    stage.up(*celery.beat())
    assert not alive(old.pid)


# A worker's slots, each of which holds a socket and more


def open_files_of(pid):
    """A process's limits of open files, soft and hard."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return [int(word) for line in lines if line.startswith("Max open files") for word in line.split()[3:5]]


@pytest.fixture
def few_open_files():
    """What Supervisor hands on: 1024."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_program_may_open_more_files_than_supervisor_hands_on(stage, few_open_files):
    started = stage.up()
    soft, hard = open_files_of(started.pid)
    assert soft == min(65536, hard)
    assert soft > 1024


def test_500_slots_that_hold_three_sockets_each_work(stage, few_open_files):
    holds = "import socket; kept = [socket.socket() for _ in range(1500)]; print(len(kept), flush=True)"
    started = stage.start(sys.executable, "-c", holds)
    assert started.exit_status() == 0, started.output
    assert "1500" in started.output


def test_a_hard_limit_that_nobody_may_raise_is_made_use_of(few_open_files):
    code = """
import os, resource
from celery_ops.launch.guard import allow_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 2048))
if os.geteuid() == 0:
    os.setuid(65534)
print(allow_open_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    done = subprocess.run([sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True)
    assert done.stdout.split() == ["2048", "2048", "2048"], done.stderr
