"""What is made of an application's variables: programs, commands, environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.action.celery_programs import (
    has_one_scheduler,
    is_without,
    of_leavers,
    phase_of,
    producers_of,
    rollback_phase,
)
from ansible_collections.celery_ops.kit.plugins.action.celery_status import arguments_of as status_arguments
from ansible_collections.celery_ops.kit.plugins.action.round_trip import command as check_command
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Release
from ansible_collections.celery_ops.kit.plugins.plugin_utils.app_command import check_failed, last_words
from ansible_collections.celery_ops.kit.plugins.plugin_utils.deployment import Deployment
from ansible_collections.celery_ops.kit.plugins.plugin_utils.environment import service_host, tick_queue
from ansible_collections.celery_ops.kit.plugins.plugin_utils.programs import (
    Programs,
    deploy_phase,
    generation_of,
    lacks_queues,
    left,
    left_groups,
    own_queues,
    prefixes_of,
    scheduler_class,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import (
    Variables,
    members_of_app,
    migrate_host,
    schedulers,
    worker_programs,
)

RELEASE = Path("/srv/shop/releases/0123456789ab")
VARIABLES = {
    "inventory_hostname": "one", "group_names": ["worker", "scheduler", "web"],
    "celery_app_name": "shop", "celery_app_module": "shop.main", "celery_app_task_time_limit": 300,
    "celery_worker_programs": [{"name": "default"}], "celery_worker_handover": "overlap",
    "celery_worker_ready_timeout": 60, "celery_worker_min_uptime": 6,
    "celery_scheduler_enabled": True, "celery_scheduler_options": [],
    "celery_web_command": "gunicorn shop:web", "celery_web_bind": "127.0.0.1:8000", "celery_web_stop_timeout": 60,
    "celery_web_handover": "overlap", "celery_web_min_uptime": 4,
}  # fmt: skip
BUILD = {"python": "3.13", "listener": "/srv/shop/listeners/0123456789ab", "inspect": {"queues": ["celery"]}}


@pytest.fixture
def names():
    """Returns the programs of a phase, some variables replaced."""

    def of(phase: str, build: dict | None = None, **variables) -> list[str]:
        deployment = Deployment("shop", Release(RELEASE), Path("/etc/shop/env-1"))
        return list(Programs(VARIABLES | variables, deployment, BUILD if build is None else build).of(phase))

    return of


@pytest.mark.parametrize(
    ("phase", "groups", "expected"),
    [
        ("workers", ["worker", "web"], ["worker-default", "watchdog"]),
        ("scheduler", ["worker", "scheduler"], ["scheduler"]),
        ("scheduler", ["scheduler"], ["scheduler", "watchdog"]),
        ("web", ["web"], ["web-listener", "web"]),
        ("producers", ["web", "scheduler", "worker"], ["web-listener", "web", "scheduler"]),
        ("producers", ["worker"], []),
        ("all", ["web", "worker"], ["worker-default", "web-listener", "web", "watchdog"]),
    ],
)
def test_a_phase_has_the_programs_of_the_hosts_groups(phase, groups, expected, names):
    assert names(phase, group_names=groups) == [f"shop-{name}" for name in expected]


def test_what_is_switched_off_is_not_there(names):
    assert names("scheduler", celery_scheduler_enabled="false") == []
    assert names("web", celery_web_command="") == []


@pytest.mark.parametrize(
    ("phase", "groups", "expected"),
    [
        ("workers", ["worker"], ["worker", "watchdog", "health"]),
        ("scheduler", ["worker", "scheduler"], ["scheduler"]),
        ("scheduler", ["scheduler"], ["scheduler", "watchdog", "health"]),
        ("web", ["web"], ["web", "listener"]),
        ("producers", ["worker", "web"], ["web", "listener"]),
        ("producers", ["worker"], []),
    ],
)
def test_a_phase_owns_what_its_programs_names_begin_with(phase, groups, expected):
    assert prefixes_of(VARIABLES | {"group_names": groups}, phase) == [f"shop-{name}-" for name in expected]


def test_what_is_removed_is_removed_from_hosts_that_have_left_their_group_too():
    left = VARIABLES | {"group_names": []}
    assert prefixes_of(left, "web", everywhere=True) == ["shop-web-", "shop-listener-"]
    assert prefixes_of(left, "scheduler", everywhere=True) == ["shop-scheduler-", "shop-watchdog-", "shop-health-"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python manage.py migrate", ["python", "manage.py", "migrate"]),
        ("bash script.sh", ["bash", "script.sh"]),
        ("env A=1 own", ["env", "A=1", "own"]),
        ("bin/own 'a b'", ["bin/own", "a b"]),
        ("celery-ops-check -A shop", ["/srv/shop/current/bin/celery-ops-check", "-A", "shop"]),
    ],
)
def test_a_commands_first_word_is_looked_up_on_the_host(command, words):
    [found] = Deployment.current("shop").commands_as_app(command)
    assert found[found.index("/srv/shop/current/app") + 2 :] == words
    assert found[:4] == ["/usr/sbin/runuser", "-u", "shop", "--"]


def test_a_release_that_0_1_built_has_its_commands_elsewhere():
    [*_, command, option, module] = Deployment.current("shop", of_0_1=True).as_app(["celery-ops-check", "-A", "shop"])
    assert (command, option, module) == ("/srv/shop/current/venv/bin/celery-ops-prove", "-A", "shop")


def test_no_command_is_none():
    current = Deployment.current("shop")
    assert current.commands_as_app(" ") == current.commands_as_app([]) == []
    assert len(current.commands_as_app(["a", "", "b c"])) == 2


@pytest.mark.parametrize(
    ("report", "named", "queues"),
    [
        ({"queues": ["celery"], "routes": []}, [None], ["celery"]),
        ({"queues": ["celery", "bills"], "routes": ["bills", "mail"]}, [None], ["celery", "bills", "mail"]),
        ({"queues": ["celery"], "routes": ["mail"]}, [None, ["mail"]], ["celery"]),
        ({"queues": ["celery"], "routes": []}, [None, ["celery"]], ["celery"]),
        ({}, [None], []),
    ],
)
def test_a_program_without_queues_consumes_the_applications_own_that_no_other_names(report, named, queues):
    assert own_queues(report, programs_with(named)) == queues


def test_queues_that_nobody_can_tell_are_known_to_be_unknown():
    mine = VARIABLES | {"celery_worker_programs": programs_with([None, ["mail"]])}
    assert lacks_queues(mine, {}, "workers") == lacks_queues(mine, {}, "all") == ["p0"]
    assert lacks_queues(mine, BUILD, "workers") == lacks_queues(mine, {}, "web") == []
    assert lacks_queues(mine | {"group_names": ["web"]}, {}, "all") == []


@pytest.mark.parametrize(
    ("queues", "expected"),
    [
        ([["shop"]], "shop"),
        ([["mail"], ["shop", "bulk"]], "shop"),
        ([["mail", "bulk"], ["reports"]], "mail"),
        ([["mail"], None], ""),
        ([], ""),
    ],
    ids=["default", "default of another", "named ones alone", "the application's own", "no program"],
)
def test_ticks_go_to_a_queue_that_a_program_consumes(queues, expected):
    assert tick_queue(programs_with(queues), "shop") == expected


def test_a_host_finds_the_services_of_the_groups():
    known = {
        "groups": {"rabbitmq": ["r1", "r2"], "result_store": ["one"], "worker": ["one"], "web": []},
        "hostvars": {"r1": {"ansible_host": "10.0.0.5"}, "one": {}},
    }
    assert service_host({**known, "group_names": ["worker"]}, "rabbitmq") == "10.0.0.5"
    assert service_host({**known, "group_names": ["rabbitmq"], "inventory_hostname": "r1"}, "rabbitmq") == "127.0.0.1"
    assert service_host({**known, "group_names": []}, "result_store") == "one"
    assert service_host({"groups": {}, "hostvars": {}, "group_names": []}, "rabbitmq") == "127.0.0.1"
    assert migrate_host(known) == "one"
    assert migrate_host({"groups": {"worker": ["one"], "web": ["w"]}}) == "w"


def programs_with(queues: list) -> list[dict]:
    return [{"name": f"p{number}", **({"queues": names} if names else {})} for number, names in enumerate(queues)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ""),
        (["-S", "redbeat.RedBeatScheduler"], "redbeat.RedBeatScheduler"),
        (["--max-interval", 5, "--scheduler=x.Y"], "x.Y"),
    ],
)
def test_the_scheduler_is_read_out_of_the_options_of_beat(options, expected):
    assert scheduler_class(options) == expected


def test_a_host_without_workers_looks_at_the_first_that_has_some():
    mine = [{"name": "long", "time_limit": 900}]
    there = {"groups": {"worker": ["a", "b"]}, "hostvars": {"a": {}, "b": {"celery_worker_programs": mine}}}
    assert worker_programs(VARIABLES | there | {"group_names": ["web"]}) == mine


@pytest.mark.parametrize(("events", "expected"), [(None, False), (False, False), ("true", True)])
def test_workers_send_events_where_somebody_hears_them(events, expected):
    given = {} if events is None else {"celery_worker_events": events}
    deployment = Deployment("shop", Release(RELEASE), Path("/etc/shop/env-1"))
    worker = Programs(VARIABLES | given, deployment, BUILD).worker({"name": "default"}, "shop-worker-default-1")
    assert ("--task-events" in worker.command) is expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "--timeout 60"),
        ({"celery_worker_ready_timeout": 90}, "--timeout 90"),
        ({"celery_scheduler_enabled": "false"}, "--timeout 60 --no-scheduler"),
        ({"groups": {}}, "--timeout 60 --no-scheduler"),
        ({"celery_scheduler_options": ["-S", "x.Y"]}, "--timeout 60 --scheduler x.Y"),
    ],
)
def test_the_check_asks_for_what_the_application_has(given, expected):
    known = VARIABLES | {"groups": {"scheduler": ["one"]}} | given
    assert " ".join(check_command(known)).partition("-A shop.main ")[2] == expected


@pytest.mark.parametrize(
    ("groups", "url", "asked", "programs", "broker"),
    [
        (["worker"], "", False, True, False),
        (["worker"], "amqp://x", True, True, False),
        (["web"], "amqp://x", False, True, False),
        (["rabbitmq"], "", False, False, True),
    ],
)
def test_the_status_looks_at_what_the_host_has(groups, url, asked, programs, broker):
    around = {"groups": {}, "hostvars": {"one": {}}}
    more = around | {"celery_app_broker_url": url, "celery_app_secrets_dir": "/nowhere"}
    made = status_arguments(VARIABLES | {"group_names": groups, **more})
    assert (bool(made["ask_broker"]), made["programs"], made["broker"]) == (asked, programs, broker)


def test_a_command_that_fails_is_quoted_with_its_last_lines():
    said = {"rc": 2, "stdout_lines": [str(number) for number in range(20)], "stderr_lines": ["no such file"]}
    assert last_words(said) == f"status 2, {' / '.join(map(str, range(11, 20)))} / no such file"
    assert last_words({"rc": 3}) == "status 3, nothing said"
    failed = check_failed("celery_app_check_command", "shop-check -v", last_words(said))
    assert failed.startswith("celery_app_check_command: shop-check -v failed: status 2, 11 / ")


def test_a_variable_is_evaluated_once_and_only_when_it_is_asked_for():
    asked = []
    known = Variables({"a": 1, "b": 2, "hostvars": {"one": {}}}, lambda value: asked.append(value) or value * 10)
    assert (known["a"], known["a"], "b" in known, known["hostvars"]) == (10, 10, True, {"one": {}})
    assert asked == [1]


def test_another_python_is_another_generation_and_a_comment_is_none():
    conf, ready = "[program:shop-web]\ncommand=/srv/shop/venv/bin/gunicorn\n", ["ready"]
    assert generation_of(conf, ready, "3.11") != generation_of(conf, ready, "3.13") != generation_of(conf, ready)
    assert generation_of(f"# a comment\n{conf}", ready, "3.11") == generation_of(conf, ready, "3.11")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, []),
        ({"max_memory": "500M"}, ["--max-memory", "524288000"]),
        ({"max_memory": "2G", "handover": "replace"}, ["--max-memory", "2147483648", "--no-stand-in"]),
        ({"max_memory": "70000K", "handover": "rolling"}, ["--max-memory", "71680000"]),
    ],
)
def test_the_guard_is_told_of_a_limit_of_memory(entry, expected):
    programs = Programs(
        VARIABLES | {"inventory_hostname": "one"}, Deployment("shop", Release(RELEASE), Path("/etc/shop/env-1")), BUILD
    )
    command = programs.worker({"name": "a", "queues": ["a"]} | entry, "shop-worker-a-1a2b3c4d").command
    guard = command[: command.index("--")]
    assert guard[guard.index("--drain-timeout") + 2 :] == expected


TWO = {"groups": {"rabbitmq": ["hub"], "scheduler": ["one", "two"]}, "hostvars": {"one": {}, "two": {}, "hub": {}}}
ALONE = {"groups": {"rabbitmq": ["one"], "scheduler": ["one"]}, "hostvars": {"one": {}}}


@pytest.fixture
def scheduler():
    """Returns the scheduler of a host, some variables replaced."""

    def of(**variables):
        deployment = Deployment("shop", Release(RELEASE), Path("/etc/shop/env-1"))
        return Programs(VARIABLES | variables, deployment, BUILD).scheduler("shop-scheduler-1a2b3c4d")

    return of


def test_a_scheduler_that_is_alone_has_no_lease(scheduler):
    alone = scheduler(**ALONE)
    assert str(RELEASE / "venv/bin/celery") in alone.command
    assert "/run/shop/scheduler.pid" in alone.command
    assert (alone.ready, alone.strategy, alone.beside) == ([], "replace", "")
    assert alone == scheduler()


def test_of_several_schedulers_each_stands_by_the_lease_beside_the_one_before(scheduler):
    leased = scheduler(**TWO)
    assert str(RELEASE / "bin/celery-ops-scheduler") in leased.command
    assert "/run/shop/shop-scheduler-1a2b3c4d.pid" in leased.command
    assert leased.ready == ["test", "-s", "/run/shop/shop-scheduler-1a2b3c4d.heartbeat"]
    assert (leased.strategy, leased.beside) == ("overlap", "celery-ops-scheduler")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ["one", "two"]),
        ({"two": {"celery_scheduler_enabled": "false"}}, ["one"]),
        ({"two": {"celery_app_name": "other"}}, ["one"]),
        ({"two": {"celery_app_broker_host": "10.0.0.9"}}, ["one", "two"]),
        ({"one": {"celery_app_broker_host": "b1"}, "two": {"celery_app_broker_host": "b2"}}, ["one"]),
        ({"one": {"celery_app_broker_host": "b1,b2"}, "two": {"celery_app_broker_host": "b2,b1"}}, ["one", "two"]),
        ({"one": {"celery_app_broker_url": "amqp://a"}, "two": {"celery_app_broker_url": "amqp://b"}}, ["one"]),
        ({"one": {"celery_app_broker_url": "amqp://a"}, "two": {"celery_app_broker_url": "amqp://a"}}, ["one", "two"]),
    ],
)
def test_the_schedulers_of_an_application_are_those_at_its_broker(changed, expected):
    assert schedulers(VARIABLES | TWO | {"hostvars": TWO["hostvars"] | changed}) == expected


@pytest.mark.parametrize(
    ("result_stores", "expected"), [(["one"], ["one", "two", "three"]), (["one", "two", "three"], ["one"])]
)
def test_hosts_that_are_each_a_system_of_its_own_have_each_a_scheduler_of_its_own(result_stores, expected):
    hosts = ["one", "two", "three"]
    groups = {"rabbitmq": hosts, "scheduler": hosts, "result_store": result_stores}
    assert schedulers(VARIABLES | {"groups": groups, "hostvars": {name: {} for name in hosts}}) == expected


def test_the_status_knows_the_hosts_of_the_application_in_the_whole_inventory():
    given = {"one": {"celery_app_name": "shop"}, "two": {"celery_app_name": "shop"}, "three": {"celery_app_name": "x"}}
    groups = {"rabbitmq": ["one", "three"], "worker": ["two", "three"], "somebody_elses": ["three"]}
    known = {"inventory_hostname": "one", "hostvars": given, "groups": groups}
    assert members_of_app(known) == {"rabbitmq": ["one", "three"], "worker": ["two"]}


LEFT_NOTHING = {"groups": {"scheduler": ["two"]}, "__celery_app_build": {"groups": ["worker", "web"]}}


@pytest.mark.parametrize(
    ("groups", "left_here", "prefixes"),
    [
        (["worker", "scheduler", "web"], [], []),
        (["scheduler"], ["worker", "web"], ["worker", "web", "listener"]),
        (["web"], ["worker"], ["worker", "scheduler", "watchdog", "health"]),
        (["worker"], ["web"], ["web", "listener", "scheduler"]),
    ],
)
def test_what_a_host_has_of_groups_that_it_has_left(groups, left_here, prefixes):
    known = VARIABLES | LEFT_NOTHING | {"group_names": groups}
    assert left(known) == left_here
    assert prefixes_of(known, "left") == [f"shop-{name}-" for name in prefixes]


def test_a_rollback_brings_no_second_scheduler_back():
    known = VARIABLES | {"group_names": ["worker"], "groups": {"scheduler": ["two"]}}
    assert left_groups(known | {"__celery_app_target": {"without_record": []}}) == ["web", "scheduler"]
    assert left_groups(known | {"__celery_app_target": {"without_record": ["two"]}}) == ["web"]


def test_a_rollback_looks_for_what_a_host_has_left_in_the_record_alone():
    known = {"inventory_hostname": "one", "ansible_play_hosts_all": ["one"]}
    target = {"deployment": "d1", "without_record": []}
    assert rollback_phase("left", known) == "left"
    assert not is_without("left", known | {"__celery_app_target": target})
    assert not is_without("left", known)
    assert is_without("left", known | {"__celery_app_target": target | {"without_record": ["one"]}})
    assert is_without("left", known | {"__celery_app_target": target | {"deployment": ""}})
    assert not is_without("workers", known | {"__celery_app_target": target | {"without_record": ["one"]}})


ALONE = {
    "group_names": ["worker", "scheduler", "web"], "celery_app_hooks": {"after_release": "x", "before_workers": "y"},
    "celery_app_on_failure": "rollback", "celery_app_deploy": "handover", "groups": {},
    "__celery_app_build": {"alone": True, "groups": ["worker", "web"]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "at_once"),
    [
        ({}, True),
        ({"group_names": ["worker", "web"]}, True),
        ({"group_names": ["worker"], "__celery_app_build": {"alone": True}}, False),
        ({"group_names": ["scheduler", "web"], "__celery_app_build": {"alone": True}}, False),
        ({"__celery_app_build": {"alone": False}}, False),
        ({"__celery_app_build": {}}, False),
        ({"celery_app_on_failure": "keep"}, False),
        ({"celery_app_deploy": "stop"}, False),
        ({"celery_app_hooks": {"after_workers": "x"}}, False),
        ({"group_names": ["worker", "scheduler"]}, False),
    ],
)
def test_a_host_that_is_alone_hands_all_over_at_once_unless_something_comes_between(changes, at_once):
    known = Variables(ALONE | changes, lambda value: value)
    phases = [deploy_phase(phase, known) for phase in ("workers", "left", "scheduler", "web")]
    assert phases == (["all", "left", "", ""] if at_once else ["workers", "left", "scheduler", "web"])


def test_of_programs_that_go_at_once_it_is_known_which_send_tasks_and_in_which_phase_one_has_failed():
    assert {"shop-scheduler", "shop-web", "shop-web-listener"} <= set(producers_of("shop"))
    names = ("shop-worker-web-12345678", "shop-web-12345678", "shop-web-listener-12345678", "shop-scheduler-12345678")
    assert [phase_of(name, "shop") for name in names] == ["workers", "web", "web", "scheduler"]
    assert phase_of("shop-watchdog-12345678", "shop") == "workers"


@pytest.mark.parametrize(
    ("alone", "group", "one"), [([], ["a", "b"], False), (["a"], ["a", "b"], True), (["a"], ["b"], False)]
)
def test_a_rollback_to_a_single_scheduler_gives_none_to_a_host_that_is_new(alone, group, one):
    """The one of a host that has left the group since does not come back: then the new host's is the only one."""
    variables = {"__celery_app_target": {"lone_schedulers": alone}, "groups": {"scheduler": group}}
    assert has_one_scheduler(variables) is one


def test_of_a_host_with_scheduler_and_watchdog_the_scheduler_alone_may_leave():
    programs = [{"program": "shop-watchdog", "name": "w-1"}, {"program": "shop-scheduler", "name": "s-1"}]
    for given, expected in ((programs, programs[1:]), (programs[:1], []), ([], [])):
        found = of_leavers(
            {"program_prefixes": ["shop-scheduler-", "shop-watchdog-"], "programs": given}, "shop-scheduler"
        )
        assert found == {"leavers_only": True, "program_prefixes": ["shop-scheduler-"], "programs": expected}
