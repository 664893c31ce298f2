"""templates/supervisor/program.conf.j2, read by Supervisor's own parser as part of a whole configuration."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from hostile import each_newline, each_value
from supervisor.options import ProcessConfig, ServerOptions

TEMPLATE = Path(__file__).resolve().parents[2] / "templates" / "supervisor" / "program.conf.j2"
MANIFESTS = {
    "worker": "__celery_worker_manifest",
    "scheduler": "__celery_scheduler_manifest",
    "web": "__celery_web_manifest",
    "web-listener": "__celery_web_manifest",
}
NAME = "petct-any-01234567"


@pytest.fixture
def supervisor(tmp_path: Path):
    """Puts a conf where supervisord.conf includes it; returns the one process Supervisor reads from it."""
    (tmp_path / "conf.d").mkdir()
    main = tmp_path / "supervisord.conf"
    main.write_text(f"[supervisord]\n[include]\nfiles = {tmp_path}/conf.d/*.conf\n")

    def read(conf: str) -> ProcessConfig:
        (tmp_path / "conf.d" / "program.conf").write_text(conf)
        options = ServerOptions()
        options.realize(["-c", str(main)])
        options.poller.close()
        [group] = options.process_group_configs
        [process] = group.process_configs
        return process

    return read


@pytest.fixture
def program(evaluate):
    """Returns a program of the manifest that a role hands to Supervisor, some variables replaced."""

    def first(kind: str, **variables) -> dict:
        variables = {"celery_web_command": "venv/bin/gunicorn petct.wsgi"} | variables
        wanted = {f"petct-{kind}", f"petct-{kind}-default"}
        [found] = [one for one in evaluate(MANIFESTS[kind], **variables) if one["family"] in wanted]
        return dict(found) | {"name": NAME, "log": f"/tmp/{NAME}.log", "family_prefix": "petct-any-"}

    return first


@pytest.mark.parametrize("kind", MANIFESTS)
def test_every_program_is_one_that_supervisor_reads(kind, program, render, supervisor):
    wanted = program(kind)
    process = supervisor(render(TEMPLATE, program=wanted))
    assert process.name == NAME
    assert shlex.split(process.command) == [str(word) for word in wanted["command"]]
    assert process.stopwaitsecs == wanted["stop_timeout"]
    assert process.stdout_logfile == wanted["log"]


def test_a_worker_without_queues_consumes_the_applications_own(program):
    build = {"python": "3.13", "inspect": {"queues": ["celery"], "routes": ["mail"]}}
    wanted = program("worker", celery_worker_programs=[{"name": "default"}], __celery_app_build=build)
    for words in (wanted["command"], wanted["ready"]):
        assert words[words.index("-Q" if "-Q" in words else "--queues") + 1] == "celery,mail"


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_stop_is_warm_and_a_program_is_never_left_down(kind, program, render, supervisor):
    process = supervisor(render(TEMPLATE, program=program(kind)))
    assert (process.stopsignal.name, process.stopasgroup, process.killasgroup) == ("SIGTERM", False, True)
    assert (process.autostart, process.autorestart.__name__) == (True, "RestartUnconditionally")


@pytest.mark.parametrize("kind", MANIFESTS)
def test_no_environment_and_no_secret_is_in_a_conf(kind, program, render, supervisor):
    text = render(TEMPLATE, program=program(kind, celery_app_secrets={"PETCT_SECRET_KEY": "s3cr3t-value"}))
    assert not supervisor(text).environment
    for secret in ("s3cr3t-value", "of-the-broker", "of-the-store"):
        assert secret not in text


@each_value
def test_an_option_of_a_worker_arrives_as_written(value, program, render, supervisor):
    workers = [{"name": "default", "queues": ["petct"], "options": ["--hostile", value, "--end"]}]
    process = supervisor(render(TEMPLATE, program=program("worker", celery_worker_programs=workers)))
    assert shlex.split(process.command)[-3:] == ["--hostile", value, "--end"]


@each_value
def test_a_word_of_the_web_command_arrives_as_written(value, program, render, supervisor):
    command = f"gunicorn --name {shlex.quote(value)} petct.wsgi"
    process = supervisor(render(TEMPLATE, program=program("web", celery_web_command=command)))
    assert shlex.split(process.command)[-3:] == ["--name", value, "petct.wsgi"]


@each_newline
def test_a_newline_is_refused(value, program, render):
    workers = [{"name": "default", "queues": ["petct"], "options": [value]}]
    with pytest.raises(AnsibleError, match="newline"):
        render(TEMPLATE, program=program("worker", celery_worker_programs=workers))


def test_the_time_limits_stand_in_order(evaluate, program):
    for limit in (1, 20, 300, 7200):
        wanted = program("worker", celery_app_task_time_limit=limit)
        words = [str(word) for word in wanted["command"]]
        soft, hard, drain = (
            int(words[words.index(option) + 1]) for option in ("--soft-time-limit", "--time-limit", "--drain-timeout")
        )
        systemd = int(evaluate("supervisor_stop_timeout", celery_app_task_time_limit=limit))
        consumer = int(evaluate("rabbitmq_consumer_timeout", celery_app_task_time_limit=limit))
        assert soft <= hard < wanted["stop_timeout"] < systemd
        assert hard < drain <= systemd
        assert hard < consumer
