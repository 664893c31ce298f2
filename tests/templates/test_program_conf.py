"""templates/supervisor/program.conf.j2, read by Supervisor's own parser as part of a whole configuration."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.celery_ops.kit.plugins.action import celery_programs
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.modules.supervisor_programs import ARGUMENTS
from hostile import each_newline, each_value
from supervisor.options import ProcessConfig, ServerOptions

PHASES = {
    "worker-default": "workers",
    "watchdog": "workers",
    "scheduler": "scheduler",
    "web": "web",
    "web-listener": "web",
}
each_program = pytest.mark.parametrize("kind", PHASES)


@pytest.fixture
def supervisor(tmp_path: Path):
    """Puts a conf where supervisord.conf includes it; returns the one process Supervisor reads from it."""
    (tmp_path / "conf.d").mkdir()
    main = tmp_path / "supervisord.conf"
    main.write_text(f"[supervisord]\n[include]\nfiles = {tmp_path}/conf.d/*.conf\n")

    def read(conf: str) -> ProcessConfig:
        (tmp_path / "conf.d" / "program.conf").write_text(conf.replace("/var/log/petct/", f"{tmp_path}/"))
        options = ServerOptions()
        options.realize(["-c", str(main)])
        options.poller.close()
        [group] = options.process_group_configs
        [process] = group.process_configs
        return process

    return read


@pytest.fixture
def program(arguments):
    """Returns a program as the module takes it, some variables replaced."""

    def first(kind: str, **variables) -> dict:
        variables = {"celery_web_command": "venv/bin/gunicorn petct.wsgi"} | variables
        return arguments(PHASES[kind], **variables)[f"petct-{kind}"]

    return first


@each_program
def test_every_program_is_one_that_supervisor_reads(kind, program, programs, supervisor):
    made = program(kind)
    process = supervisor(made["conf"])
    assert process.name == made["name"]
    assert re.fullmatch(rf"petct-{kind}-[0-9a-f]{{8}}", made["name"])
    assert process.stopwaitsecs == made["stop_timeout"]
    assert made["log"] == f"/var/log/petct/{made['name']}.log"
    assert Path(process.stdout_logfile).name == Path(made["log"]).name
    wanted = programs(PHASES[kind], celery_web_command="venv/bin/gunicorn petct.wsgi")[f"petct-{kind}"]
    assert [word.replace(wanted.name, made["name"]) for word in wanted.command] == shlex.split(process.command)


@each_program
def test_every_program_is_one_that_the_module_takes(kind, program):
    said = ArgumentSpecValidator(ARGUMENTS).validate({"program_prefixes": ["petct-"], "programs": [program(kind)]})
    assert said.error_messages == []


def test_the_owners_mark_is_the_longest_prefix(program):
    for kind, owner in {
        "worker-default": "petct-worker-",
        "web-listener": "petct-web-",
        "watchdog": "petct-watchdog-",
    }.items():
        assert f"# owner: celery-ops {owner}\n" in program(kind)["conf"]


@each_program
def test_a_generation_is_named_by_its_options_and_nothing_else(kind, program, tmp_path, monkeypatch):
    before = program(kind)
    text = celery_programs.TEMPLATE.read_text().replace("redirect_stderr=true", "redirect_stderr = true ; both")
    text = text.replace("{{ ansible_managed | comment }}", "# Managed since 2026-11-26 03:50\n; by hand")
    (tmp_path / "program.conf.j2").write_text(text)
    monkeypatch.setattr(celery_programs, "TEMPLATE", tmp_path / "program.conf.j2")
    after = program(kind)
    assert after["conf"] != before["conf"] and "03:50" in after["conf"]
    assert after["name"] == before["name"]
    assert options(after) == options(before)


@pytest.mark.parametrize(
    "changed",
    [
        {"celery_worker_programs": [{"name": "default", "queues": ["petct"], "concurrency": 3}]},
        {"celery_app_environment": {"DEBUG": "1"}},
        {"celery_app_task_time_limit": 301},
        {"celery_worker_ready_timeout": 61},
        {"__celery_app_source": {"id": "ffffffffffff"}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_a_program_runs_with_makes_another_generation(changed, program):
    mine = {"celery_worker_programs": [{"name": "default", "queues": ["petct"], "concurrency": 2}]}
    assert program("worker-default", **mine)["name"] != program("worker-default", **{**mine, **changed})["name"]


def options(program: dict) -> dict:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(program["conf"])
    return dict(parser[f"program:{program['name']}"])


@each_program
def test_syslog_gets_what_a_program_writes_only_if_asked(kind, program, supervisor):
    assert not supervisor(program(kind)["conf"]).stdout_syslog
    asked = supervisor(program(kind, celery_app_log_syslog=True)["conf"])
    assert asked.stdout_syslog and asked.stdout_logfile


def test_a_worker_without_queues_consumes_the_applications_own(programs):
    build = {"python": "3.13", "inspect": {"queues": ["celery"], "routes": ["mail"]}}
    made = programs("workers", celery_worker_programs=[{"name": "default"}], __celery_app_build=build)
    for words in (made["petct-worker-default"].command, made["petct-worker-default"].ready):
        assert words[words.index("-Q" if "-Q" in words else "--queues") + 1] == "celery,mail"


@each_program
def test_a_stop_is_warm_and_a_program_is_never_left_down(kind, program, supervisor):
    process = supervisor(program(kind)["conf"])
    assert (process.stopsignal.name, process.stopasgroup, process.killasgroup) == ("SIGTERM", False, True)
    assert (process.autostart, process.autorestart.__name__) == (True, "RestartUnconditionally")


@each_program
def test_no_environment_and_no_secret_is_in_a_conf(kind, program, supervisor):
    made = program(kind, celery_app_secrets={"PETCT_SECRET_KEY": "s3cr3t-value"})
    assert not supervisor(made["conf"]).environment
    for secret in ("s3cr3t-value", "of-the-broker", "of-the-store"):
        assert secret not in str(made)


@each_value
def test_an_option_of_a_worker_arrives_as_written(value, program, supervisor):
    workers = [{"name": "default", "queues": ["petct"], "options": ["--hostile", value, "--end"]}]
    process = supervisor(program("worker-default", celery_worker_programs=workers)["conf"])
    assert shlex.split(process.command)[-3:] == ["--hostile", value, "--end"]


@each_value
def test_a_word_of_the_web_command_arrives_as_written(value, program, supervisor):
    command = f"gunicorn --name {shlex.quote(value)} petct.wsgi"
    process = supervisor(program("web", celery_web_command=command)["conf"])
    assert shlex.split(process.command)[-3:] == ["--name", value, "petct.wsgi"]


@each_newline
def test_a_newline_is_refused(value, program):
    workers = [{"name": "default", "queues": ["petct"], "options": [value]}]
    with pytest.raises(OperatorError, match="newline"):
        program("worker-default", celery_worker_programs=workers)


def test_the_time_limits_stand_in_order(program):
    for limit in (2, 20, 300, 7200):
        wanted = program("worker-default", celery_app_task_time_limit=limit)
        words = shlex.split(options(wanted)["command"])
        soft, hard, drain = (
            int(words[words.index(option) + 1]) for option in ("--soft-time-limit", "--time-limit", "--drain-timeout")
        )
        assert soft <= hard < wanted["stop_timeout"]
        assert hard < drain <= wanted["stop_timeout"]
