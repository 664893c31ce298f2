"""A deploy tells that it started and finished or failed, a rollback that it went back, a run that is killed that it
died, and a host what its watchdog did.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest
from support.control import ROOT, Variants, deployed, play, start
from support.host import APP
from support.long import LONG
from support.wait import wait_until
from support.webhook import webhook


@pytest.fixture
def told():
    """The texts that a webhook was told, and the variable that names it."""
    with webhook() as (lines, url):
        yield lines, [{"webhook": url}, {"webhook": "http://127.0.0.1:9/s3cret"}]


@pytest.mark.timeout(600)
def test_of_a_deploy(host, told):
    lines, targets = told
    done = play("deploy", celery_app_notify=targets)
    assert done.rc == 0, done.text
    assert ["started" in lines[0], "finished" in lines[1], len(lines)] == [True, True, 2]
    assert "celery_app_notify[1] (webhook 127.0.0.1) got no notice" in done.words
    assert "s3cret" not in done.text


@pytest.mark.timeout(600)
def test_of_a_run_that_is_killed(host, told):
    lines, targets = told
    run = start("deploy", host, celery_app_notify=targets)
    wait_until(lambda: host.lock() and lines, 120, "it holds the lock")
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    wait_until(lambda: any("DIED" in line for line in lines), 60, "the keeper told that it died")
    wait_until(lambda: not host.lock(), 60, "the keeper has freed the lock")
    assert play("deploy").rc == 0  # what it may have begun is completed


@LONG
@pytest.mark.timeout(900)
def test_of_a_deploy_that_fails_and_of_a_rollback(host, told, tmp_path):
    texts, targets = told
    variants, before = Variants(tmp_path), host.current()
    broken = variants.make("broken", {"petct/celery.py": "\nraise RuntimeError('no release')\n"})
    assert play("deploy", celery_app_source=str(broken), celery_app_notify=targets[:1]).rc != 0
    assert ["deploy started" in texts[0], "deploy FAILED" in texts[1], len(texts)] == [True, True, 2], texts
    assert f"release on {host.name}: Importing petct" in texts[1] and ".." not in texts[1], texts[1]
    deployed(celery_app_source=str(variants.make("next")))
    texts.clear()
    assert play("rollback", celery_app_notify=targets[:1]).rc == 0
    assert ["rollback started" in texts[0], f"rolled back, release {before}" in texts[1]] == [True, True], texts


@LONG
@pytest.mark.timeout(900)
def test_a_deploy_from_git_says_which_commits_it_brings(host, told, tmp_path):
    texts, targets = told
    source = tmp_path / "petct"
    ignore = shutil.ignore_patterns("__pycache__", "data", "*.sqlite3*", "tests")
    shutil.copytree(ROOT / "app", source, ignore=ignore)

    def commit(message: str) -> None:
        with (source / "petct/celery.py").open("a") as file:
            file.write(f"# {message}\n")
        identity = ["-c", "user.name=Bob", "-c", "user.email=bob@example.org", "-c", "init.defaultBranch=main"]
        for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", message]):
            subprocess.run(["git", *identity, *words], cwd=source, check=True, capture_output=True)

    commit("Begin")
    url = f"file://{source}"
    try:
        deployed(host, celery_app_source=url)
        for message in ("Retry the mail", "Bigger thumbnails"):
            commit(message)
        deployed(host, celery_app_source=url, celery_app_notify=targets[:1])
        notice = [line.partition(" ")[2] for line in texts[-1].splitlines()]
        assert notice[1:] == ["Bob: Bigger thumbnails", "Bob: Retry the mail"], texts
        assert [line.partition(" ")[2] for line in host.last_deploy()["commits"]] == notice[1:]
        assert "Bob: Bigger thumbnails; 1 more]" in play("status", status_exit=False).words
    finally:
        deployed(host)


@LONG
@pytest.mark.timeout(900)
def test_the_watchdog_tells_what_it_did(host):
    told = f"/var/lib/{APP}/told"
    command = f"sh -c 'printenv CELERY_OPS_EVENT >> {told}; cat >> {told}'"
    targets = [{"command": command, "events": ["watchdog"]}, {"webhook": "http://127.0.0.1:9/s3cret"}]
    try:
        deployed(host, celery_app_notify=targets)
        file = f"/etc/{APP}/notify.json"
        assert host.output(f"stat -c '%a %U %G' {file}") == f"640 root {APP}"
        assert "s3cret" not in host.output(f"cat {file}"), "a target that did not ask for it"
        worker = host.main("worker")
        host.output(f"kill -STOP {worker}")
        wait_until(lambda: f"SIGCONT sent to {worker}" in host.ask(f"cat {told}"), 40, "what the watchdog did is told")
        lines = host.output(f"cat {told}").splitlines()
        assert lines[:2] == ["watchdog", f"{APP} (production): the watchdog acted, on {host.name}"]
    finally:
        host.run(f"rm -f {told}")
        deployed(host)
    assert host.run(f"test -e {file}").rc != 0
