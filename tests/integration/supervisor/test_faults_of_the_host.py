"""supervisor_programs on a host that is not as it should be: a full disk, missing files, files that somebody edited."""

import subprocess
import sys

import pytest
from support.supervisord import A1, A2, B1, B2, S1, S2, SCHEDULER, actions, scheduler, serving
from support.wait import wait_until

# A full disk.


@pytest.fixture
def full(host):
    """conf.d on a file system of its own, and what fills it."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "conf-d", host.conf_d], check=False)
    if done.returncode:
        pytest.skip("needs to mount a tmpfs")

    def fill():
        with (host.conf_d / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(b"x" * 4096)

    yield fill
    subprocess.run(["umount", "--lazy", host.conf_d], check=True)


@pytest.mark.parametrize("strategy", ["overlap", "replace", "rolling"])
def test_a_full_disk_is_met_before_a_program_is_touched(host, full, strategy):
    host.apply([host.program(A1), host.program("app-worker-socket")])
    pids, names = host.pids(), set(host.files())
    full()
    new = [host.program(A2), host.program("app-worker-socket", ["--drain", 0.1])]
    result = host.refuse(new, strategy=strategy)
    assert "No space left on device" in result["msg"] and f"df -h {host.conf_d}" in result["msg"]
    assert "Nothing was changed." in result["msg"] and result["release_fault"] is False
    assert host.pids() == pids and set(host.files()) - {"filler"} == names
    (host.conf_d / "filler").unlink()
    host.apply(new, strategy=strategy)


@pytest.mark.parametrize("strategy", ["overlap", "replace", "rolling"])
def test_a_rollback_on_a_full_disk(host, full, strategy):
    """It takes the file of what it replaces, and outlives a reboot."""
    old = [host.program(A1), host.program(B1)]
    host.apply(old)
    host.apply([host.program(A2), host.program(B2)])
    full()
    assert not host.apply(old, strategy=strategy).get("warnings")
    (host.conf_d / "filler").unlink()
    assert serving(host, A1, B1) and host.files() == {f"{each['name']}.conf": each["conf"] for each in old}
    assert not host.apply(old)["changed"]


@pytest.mark.parametrize("name", [A1, "app-worker-socket"])
def test_a_disk_that_fills_up_meanwhile_keeps_nothing_stopped(host, full, name):
    """What was stopped to make room for the new one is started again, without a byte to write."""
    host.apply([host.program(name)])
    files = host.files()
    new = host.program(A2 if name == A1 else name, ["--drain", 0.1], ready=["false"], ready_timeout=3)
    process = host.begin([new], strategy="replace")
    wait_until(
        lambda: name not in host.pids() if name == A1 else "term" in host.events(name),
        10,
        f"{name} told to stop",
    )
    wait_until(lambda: host.states().get(new["name"]) == "RUNNING", 10, "the new one RUNNING")
    full()
    result = process.result()
    assert result["failed_program"] == new["name"] and f"{name} was started again" in result["msg"]
    (host.conf_d / "filler").unlink()
    assert host.states() == {name: "RUNNING"} and host.files() == files


# Whose fault it is.


@pytest.mark.parametrize("inside", [True, False], ids=["in the release", "on the host"])
@pytest.mark.parametrize("what", ["command", "ready"])
def test_a_missing_file_is_the_fault_of_where_it_belongs(host, inside, what):
    host.apply([host.program(A1)])
    pids, files = host.pids(), host.files()
    missing = f"{host.directory}/releases/1/venv/bin/tool" if inside else "/nowhere/tool"
    new = host.program(A2, **({"ready": [missing]} if what == "ready" else {}))
    if what == "command":
        new["conf"] = new["conf"].replace(sys.executable, missing)
    result = host.refuse([new])
    assert missing in result["msg"] and result["release_fault"] is inside
    assert host.pids() == pids and host.files() == files


def test_a_ready_command_in_sbin_is_found_by_a_login_without_it(host, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    host.apply([host.program(A1, ready=["runuser", "-u", "root", "--", "/bin/true"])])


def test_a_ready_command_is_not_told_to_write_where_ansible_unpacks_the_module(host, monkeypatch):
    """The application, which it may import, can't write in /run."""
    monkeypatch.setenv("TMPDIR", "/run")
    host.apply([host.program(A1, ready=["sh", "-c", "env | grep -q ^TMPDIR=/run && exit 1; exit 0"], ready_timeout=2)])
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    host.apply([host.program(A2, ready=["sh", "-c", '[ "$TMPDIR" = /var/tmp ]'], ready_timeout=2)])


def test_somebody_elses_broken_file_is_not_the_releases_fault(host):
    host.apply([scheduler(host, S1, "--drain", 1)], **SCHEDULER)
    broken = host.conf_d / "shop.conf"
    broken.write_text("[program:shop]\ncommand=/bin/cat %nonsense\n")
    assert host.refuse([scheduler(host, S2)], **SCHEDULER)["release_fault"] is False
    broken.unlink()

    files = host.files()
    process = host.begin([scheduler(host, S2)], **SCHEDULER)
    wait_until(lambda: "term" in host.events(S1), 10, f"{S1}: term")
    broken.write_text("[program:shop]\ncommand=/bin/cat %nonsense\n")
    result = process.result()
    assert "supervisord can't read its configuration" in result["msg"] and result["release_fault"] is False
    assert f"{S1} was started again" in result["msg"]
    broken.unlink()
    assert host.states() == {S1: "RUNNING"} and host.files() == files


def test_a_program_that_somebody_stops_meanwhile_is_not_the_releases_fault(host):
    process = host.begin([host.program(A1, ready=["false"], ready_timeout=60)])
    wait_until(lambda: host.states().get(A1) == "RUNNING", 10, f"{A1} RUNNING")
    host.rpc.stopProcess(A1)
    result = process.result()
    assert "it was stopped manually" in result["msg"] and result["release_fault"] is False


# A conf file that somebody edited.


def edited(text):
    return text.replace("autorestart=true", "autorestart=false")


@pytest.mark.parametrize("how", ["edited", "edited and reread", "broken"])
def test_a_file_edited_and_never_loaded_is_put_right_without_a_restart(host, how):
    program = host.program(A1)
    host.apply([program])
    pids, file = host.pids(), host.conf_d / f"{A1}.conf"
    file.write_text(f"{program['conf']}nonsense\n" if how == "broken" else edited(program["conf"]))
    if how == "edited and reread":
        assert host.rpc.reloadConfig() == [[[], [A1], []]]
    for check in (True, False):
        assert actions(host.apply([program], check=check)) == {A1: "rewritten"}
    assert host.pids() == pids and file.read_text() == program["conf"]
    assert not host.apply([program])["changed"]


@pytest.mark.parametrize("and_back", [False, True], ids=["edited", "edited back afterwards"])
def test_a_file_edited_and_loaded_is_loaded_anew(host, and_back):
    program = host.program(A1)
    host.apply([program])
    file = host.conf_d / f"{A1}.conf"
    file.write_text(edited(program["conf"]))
    host.rpc.stopProcess(A1)
    host.rpc.removeProcessGroup(A1)
    host.rpc.reloadConfig()
    host.rpc.addProcessGroup(A1)
    wait_until(lambda: host.states() == {A1: "RUNNING"}, 10, f"{A1} alone, RUNNING")
    pids = host.pids()
    if and_back:
        file.write_text(program["conf"])
    for check in (True, False):
        assert actions(host.apply([program], check=check)) == {A1: "restarted"}
    assert host.pids() != pids and file.read_text() == program["conf"]
    assert host.rpc.reloadConfig() == [[[], [], []]]
