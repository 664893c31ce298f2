"""Waiting for apt's locks; and which processes a removal may end: those of this host, not those of containers on it."""

import contextlib
import datetime
import fcntl
import functools
import hashlib
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.services import debian, packages
from support.wait import wait_until

# For a time of its own: other runs of this test on the machine have theirs.
SECONDS = f"61.{os.getpid()}"
SLEEP = ["setpriv", "--reuid", "games", "--clear-groups", "sleep", SECONDS]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs dpkg, or processes of another user")
HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
input()
"""


def sleeping():
    """Pids of the sleeps; a process may be gone before it is looked at."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == f"sleep\0{SECONDS}\0".encode():
                found.add(int(path.parent.name))
    return found


@needs_root
def test_a_process_in_a_container_is_not_one_of_ours():
    outside = subprocess.Popen(SLEEP)
    # A pid namespace of its own is what every container's process has.
    around = subprocess.Popen(["unshare", "--pid", "--fork", *SLEEP])
    try:
        wait_until(lambda: len(sleeping()) == 2, 10, "two processes")
        assert sleeping() & set(packages.processes_of("games")) == {outside.pid}
    finally:
        for pid in sleeping():
            os.kill(pid, signal.SIGKILL)
        for process in (around, outside):
            process.wait()


@pytest.fixture
def apt_host(tmp_path, monkeypatch):
    """A host of its own for apt: its lists, cache and status are in a directory."""
    for directory in ("lists/partial", "cache/archives/partial", "etc"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "status").touch()
    settings = {
        "Dir::State::lists": "lists", "Dir::State::status": "status", "Dir::Cache": "cache",
        "Dir::Etc::sourcelist": "etc/none", "Dir::Etc::sourceparts": "etc",
    }  # fmt: skip
    lines = [f'{name} "{tmp_path / place}";\n' for name, place in settings.items()]
    (tmp_path / "apt.conf").write_text("".join(lines) + f'APT::Sandbox::User "{Path.home().owner()}";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))


@pytest.fixture
def holder(tmp_path, apt_host):
    """Another program that holds the lock of apt's lists, until it reads a line."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / "lists/lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_locked_package_lists_are_waited_for(holder, monkeypatch):
    tries = []

    def pause(seconds):
        tries.append(seconds)
        if len(tries) == 2:
            holder.communicate("\n")

    monkeypatch.setattr(packages.time, "sleep", pause)
    assert packages.apt(["update"], "") is not None
    assert len(tries) >= 2


@pytest.mark.parametrize(("jump", "says"), [(365, "is not valid yet"), (-365, "is expired")])
def test_a_clock_that_apt_stumbles_over_is_named_and_how_it_is_set(apt_host, tmp_path, jump, says):
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=jump)
    made, until = (f"{at:%a, %d %b %Y %H:%M:%S} UTC" for at in (now, now + datetime.timedelta(days=7)))
    (tmp_path / "Packages").touch()
    nothing = hashlib.sha256(b"").hexdigest()
    (tmp_path / "Release").write_text(f"Date: {made}\nValid-Until: {until}\nSHA256:\n {nothing} 0 Packages\n")
    (tmp_path / "etc/here.list").write_text(f"deb [trusted=yes] file:{tmp_path} ./\n")
    with (tmp_path / "apt.conf").open("a") as settings:  # this machine's own may switch the check off
        settings.write(f'Dir::Etc::parts "{tmp_path}/cache";\nDir::Etc::main "none";\n')
    with pytest.raises(OperatorError) as caught:
        packages.apt(["update"], "")
    assert says in str(caught.value)
    assert "The clock of this host says 2" in str(caught.value) and "timedatectl set-ntp true" in str(caught.value)


def test_package_lists_of_a_time_that_the_clock_has_not_reached_are_stale(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "LISTS", tmp_path)
    assert packages.lists_are_stale()
    (tmp_path / "deb.example_Packages").touch()
    assert not packages.lists_are_stale()
    for moment in (time.time() + 86400, time.time() - 86400):
        os.utime(tmp_path, (moment, moment))
        assert packages.lists_are_stale()


def test_locks_that_are_not_released_are_named_with_their_holder(holder, monkeypatch):
    monkeypatch.setattr(packages, "LOCK_TIMEOUT", 0.0)
    with pytest.raises(OperatorError) as caught:
        packages.apt(["update"], "")
    said = str(caught.value)
    assert f"lists/lock. It is held by process {holder.pid}" in said
    assert "then run this again" in said


@pytest.fixture
def debs(tmp_path, monkeypatch):
    """A host of its own for apt and dpkg, with a repository; returns the directory of its packages."""
    root, repository = tmp_path / "root", tmp_path / "repository"
    for directory in (root / "var/lib/dpkg/info", root / "var/lib/dpkg/updates", repository):
        directory.mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    for place in ("lists/partial", "cache/archives/partial", "log"):
        (tmp_path / place).mkdir(parents=True)
    stanzas = []
    for name in ("mine", "theirs", "configured", "broken", "rabbitmq-server"):
        control = tmp_path / name / "DEBIAN"
        control.mkdir(parents=True)
        about = {"Package": name, "Version": "1", "Architecture": "all", "Maintainer": "a <a@b.example>"}
        stanza = "".join(f"{key}: {of}\n" for key, of in about.items()) + "Description: x\n"
        (control / "control").write_text(stanza)
        if name in ("broken", "rabbitmq-server"):  # the root has no shell for it
            (control / "postinst").write_text("#!/bin/sh\n")
            (control / "postinst").chmod(0o755)
        if name == "configured":
            (control / "conffiles").write_text("/settings\n")
            (control.parent / "settings").touch()
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", control.parent, repository], check=True)
        packed = (repository / f"{name}_1_all.deb").read_bytes()
        digest = hashlib.sha256(packed).hexdigest()
        stanzas.append(f"{stanza}Filename: ./{name}_1_all.deb\nSize: {len(packed)}\nSHA256: {digest}\n")
    (repository / "Packages").write_text("\n".join(stanzas))
    (tmp_path / "sources").write_text(f"deb [trusted=yes] file:{repository} ./\n")
    settings = {
        "Dir::State::lists": "lists", "Dir::State::status": "root/var/lib/dpkg/status", "Dir::Cache": "cache",
        "Dir::Log": "log", "Dir::Etc::sourcelist": "sources", "Dir::Etc::sourceparts": "log", "Dir::Etc::parts": "log",
    }  # fmt: skip
    lines = [f'{name} "{tmp_path / place}";\n' for name, place in settings.items()]
    (tmp_path / "apt.conf").write_text("".join(lines) + 'APT::Sandbox::User "root";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setenv("DPKG_ROOT", str(root))
    monkeypatch.setattr(packages, "LISTS", tmp_path / "lists")  # this machine's own may be fresh
    monkeypatch.setattr(packages, "RECORD", tmp_path / "record/packages.json")
    monkeypatch.setattr(debian, "RECORD", tmp_path / "record/packages.json")
    return repository


def install(package):
    """Install a package as an administrator does; where it does not start it stays half-configured."""
    environment = {**os.environ, "DPKG_FRONTEND_LOCKED": "1"}
    subprocess.run(["dpkg", "--install", str(package)], capture_output=True, check=False, env=environment)


@needs_root
def test_what_others_install_while_apt_is_locked_is_not_recorded(debs, tmp_path, monkeypatch):
    # As unattended-upgrades, cloud-init or an administrator's apt does.
    with (tmp_path / "root/var/lib/dpkg/lock-frontend").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        monkeypatch.setattr(packages.time, "sleep", lambda _: (install(debs / "theirs_1_all.deb"), lock.close()))
        assert packages.install(["mine"], {})["packages"] == ["mine"]
    assert set(packages.installed()) == {"mine", "theirs"}
    assert packages.read_record() == ["mine"]
    assert packages.purge()["packages"] == ["mine"]
    assert set(packages.installed()) == {"theirs"}


@needs_root
def test_what_apt_could_not_start_is_recorded_and_purged(debs, monkeypatch):
    with pytest.raises(OperatorError, match="post-installation"):
        packages.install(["broken", "mine"], {})
    assert packages.read_record() == ["broken", "mine"]
    assert packages.purge()["packages"] == ["broken", "mine"]
    assert not packages.installed(debian.ON_HOST)


@needs_root
def test_a_broker_that_was_there_and_could_not_be_started_is_no_package_of_the_kits(debs):
    install(debs / "rabbitmq-server_1_all.deb")
    assert debian.was_there_before("rabbitmq")
    with pytest.raises(OperatorError):
        packages.install(["rabbitmq-server"], {})
    assert packages.read_record() == []
    assert debian.was_there_before("rabbitmq")
    assert not debian.was_there_before("supervisor")


@needs_root
def test_what_was_removed_and_not_purged_is_no_package_of_the_kits(debs):
    install(debs / "configured_1_all.deb")
    subprocess.run(["dpkg", "--remove", "configured"], capture_output=True, check=True)
    assert packages.installed(["config-files"])
    assert packages.install(["configured", "mine"], {})["packages"] == ["configured", "mine"]
    assert packages.read_record() == ["mine"]


@pytest.fixture
def mirror(debs, tmp_path):
    """The repository by HTTP, as apt keeps a copy of its lists."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(debs))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "sources").write_text(f"deb [trusted=yes] http://127.0.0.1:{server.server_port} ./\n")
    with (tmp_path / "apt.conf").open("a") as settings:
        settings.write('Acquire::http::Proxy::127.0.0.1 "DIRECT";\n')
    yield debs / "Packages"
    server.shutdown()


@needs_root
def test_lists_that_are_older_than_the_mirror_are_read_again(mirror):
    """As where a repository was added after the last update, and where a version was replaced by the next."""
    now = mirror.read_text()
    older = now.replace("1_all", "0_all")

    def publish(text, ago):  # seconds: an answer is "not modified" where the date is the same
        mirror.write_text(text)
        os.utime(mirror, (time.time() - ago,) * 2)

    publish("\n\n".join(stanza for stanza in now.split("\n\n") if "configured" not in stanza), 400)
    packages.refresh_lists()
    assert not packages.lists_are_stale()
    publish(now, 300)
    assert packages.install(["configured"], {})["packages"] == ["configured"]
    publish(older, 200)
    packages.refresh_lists()
    publish(now, 100)
    assert packages.install(["mine"], {})["packages"] == ["mine"]


@needs_root
def test_a_repository_of_somebody_elses_that_is_dead_hides_no_package(debs, tmp_path):
    with (tmp_path / "sources").open("a") as sources:
        sources.write(f"deb file:{tmp_path}/gone ./\n")
    with pytest.raises(
        OperatorError, match=r"(?s)apt-get none ended with 100.+\nBefore, apt-get update ended with 100"
    ):
        packages.install(["none"], {})
    assert packages.install(["mine"], {})["packages"] == ["mine"]


def test_what_apt_says_may_be_any_bytes(apt_host, tmp_path):
    with (tmp_path / "apt.conf").open("a") as settings:
        settings.write("APT::Update::Pre-Invoke { \"printf '\\374'\"; };\n")
    assert "\ufffd" in packages.apt(["update"], "")
