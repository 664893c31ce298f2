"""What only a host can tell, where the end-to-end tests beside this one have no host that is like that."""

from __future__ import annotations

import getpass
import grp
import os
import pwd
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements import (
    application,
    broker,
    ports,
    shared,
    store,
    supervisor,
    system,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements.supervisor import Supervisord
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements.system import Distribution
from ansible_collections.celery_ops.kit.plugins.module_utils.services import rabbitmq, redis
from support.wait import wait_until

TABLE = yaml.safe_load((Path(__file__).resolve().parents[3] / "roles/preflight/vars/main.yml").read_text())
SUPPORTED, UNTESTED = TABLE["__preflight_supported"], TABLE["__preflight_untested"]


@pytest.mark.parametrize(
    ("release", "refused"),
    [
        ('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n', False),
        ('ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\n', True),
        ('ID=ubuntu\nVERSION_ID="22.04"\nPRETTY_NAME="Ubuntu 22.04"\n', True),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\nPRETTY_NAME="Linux Mint 22"\n', True),
        ("ID=debian\nPRETTY_NAME='Debian GNU/Linux forky/sid'\n", True),
        ("", True),
    ],
    ids=["bookworm", "bullseye", "old ubuntu", "mint", "sid", "nothing"],
)
def test_only_debian_12_and_13(release, refused, tmp_path):
    (tmp_path / "os-release").write_text(release)
    runs = Distribution.read(tmp_path / "os-release")
    for allowed in (False, True):
        said = list(system.distribution(runs, SUPPORTED, UNTESTED, allowed))
        assert bool(said) is refused
        assert all("the kit supports Debian 12 and 13" in text for text in said)


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ('ID=ubuntu\nVERSION_ID="24.04"\n', "Ubuntu 24.04.1 LTS"),
        ('ID=ubuntu\nVERSION_ID="26.04"\n', "Ubuntu 26.04.1 LTS"),
        ('ID=debian\nVERSION_ID="14"\nVERSION_CODENAME=forky\n', "Debian GNU/Linux 14 (forky)"),
        ("ID=debian\nVERSION_CODENAME=forky\n", "Debian GNU/Linux forky/sid"),
    ],
)
def test_an_untested_distribution_is_accepted_by_whoever_says_so(release, name, tmp_path):
    (tmp_path / "os-release").write_text(f'{release}PRETTY_NAME="{name}"\n')
    runs = Distribution.read(tmp_path / "os-release")
    assert list(system.distribution(runs, SUPPORTED, UNTESTED, True)) == []
    [said] = system.distribution(runs, SUPPORTED, UNTESTED, False)
    assert said == (
        f"it runs {name}, not tested by this project. Write: preflight_allow_untested: true, or use Debian 12 and 13"
    )


def test_a_user_without_a_group_of_its_own_is_refused(monkeypatch):
    monkeypatch.setattr(application.Layout, "state", pwd.getpwnam("nobody").pw_dir)
    [said] = application.name("nobody")
    assert "in the group nogroup" in said
    assert "type: groupadd --system --force nobody; usermod -g nobody nobody" in said


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_is_far_off_is_named_with_both_times(days):
    assert list(system.clock(time.time() + 60)) == []
    [said] = system.clock(time.time() + 86400 * days)
    there = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 86400 * days))
    assert said.startswith(f"The clock of {os.uname().nodename} says {time.strftime('%Y-%m-%d', time.gmtime())} ")
    assert f"the control node's {there} " in said and "timedatectl set-ntp true" in said


def test_a_group_of_the_systems_is_not_the_applications():
    name = next(
        each.gr_name for each in grp.getgrall() if each.gr_name not in {user.pw_name for user in pwd.getpwall()}
    )
    [said] = application.name(name)
    assert f"celery_app_name is {name}: a group of that name exists (gid" in said
    assert f"Write: celery_app_name: {name}_app, or" in said
    assert list(application.name("no_such_application")) == []


def test_a_node_name_that_would_hide_data_is_refused(tmp_path):
    assert list(broker.node("rabbit@localhost", tmp_path)) == []
    for name in ("rabbit@old", "rabbit@old-plugins-expand"):
        (tmp_path / name).mkdir()
    assert list(broker.node("rabbit@old", tmp_path)) == []
    [said] = broker.node("rabbit@localhost", tmp_path)
    assert "holds data of rabbit@old: " in said
    assert "Write: rabbitmq_node_name: rabbit@old, or" in said


@pytest.mark.parametrize("wanted", ["rabbit@a", "rabbit@localhost"])
def test_a_member_of_a_cluster_is_refused_as_a_broker_alone_with_what_to_type(wanted, tmp_path):
    (tmp_path / "rabbit@a").mkdir()
    assert list(broker.members(wanted, [], tmp_path)) == []
    config = tmp_path / "rabbit@a/cluster_nodes.config"
    config.write_text("{[rabbit@a,rabbit@b,rabbit@c],[rabbit@a]}.\n")
    assert list(broker.members("rabbit@a", ["rabbit@a", "rabbit@b", "rabbit@c"], tmp_path)) == []
    [said] = broker.identity(wanted, [], "127.0.0.1", tmp_path)
    assert "rm -r" not in said, "of data that a cluster needs"
    assert "rabbit@a is a member of a cluster with rabbit@b, rabbit@c, and the inventory (group rabbitmq) has" in said
    assert "rabbitmq_move.yml" in said
    assert "forget_cluster_node" not in said, "of two nodes, the one that is left can't forget the other"
    [said] = broker.members("rabbit@a", ["rabbit@a", "rabbit@b"], tmp_path)
    steps = [said.index(step) for step in ("rabbitmq-queues shrink rabbit@c", "disable --now", "forget_cluster_node")]
    assert steps == sorted(steps), "the queues' members first"
    config.write_text("{[rabbit@a],[rabbit@a]}.\n")
    assert list(broker.members(wanted, [], tmp_path)) == []


def test_a_broker_that_was_alone_keeps_its_name_in_a_cluster(tmp_path):
    (tmp_path / "rabbit@localhost").mkdir()
    config = tmp_path / "rabbit@localhost/cluster_nodes.config"
    nodes = ["rabbit@a", "rabbit@b", "rabbit@c"]
    for members, drop in (("rabbit@localhost", True), ("rabbit@localhost,rabbit@b,rabbit@c", False)):
        config.write_text(f"{{[{members}],[{members}]}}.\n")
        [said] = broker.identity("rabbit@a", nodes, "10.0.0.1", tmp_path)
        assert "it would be hidden. Write in its host_vars: rabbitmq_node_name: rabbit@localhost" in said
        assert ("rm -r" in said) == drop, "of data that a cluster needs"
    assert list(broker.identity("rabbit@localhost", ["rabbit@localhost", *nodes[1:]], "10.0.0.1", tmp_path)) == []


def test_the_node_name_that_is_advised_comes_with_the_address_that_it_leads_to(monkeypatch, tmp_path):
    (tmp_path / "rabbit@old").mkdir()
    monkeypatch.setattr(broker.socket, "gethostbyname", {"old": "10.0.0.5", "localhost": "127.0.0.1"}.get)
    [said] = broker.node("rabbit@localhost", tmp_path)
    assert "Write: rabbitmq_node_name: rabbit@old and rabbitmq_distribution_bind: 10.0.0.5, or" in said
    assert list(broker.distribution_address("rabbit@old", "10.0.0.5")) == []
    assert list(broker.distribution_address("rabbit@old", "0.0.0.0")) == []
    [said] = broker.distribution_address("rabbit@old", "127.0.0.1")
    assert "Write: rabbitmq_distribution_bind: 10.0.0.5" in said


def test_somebody_elses_broker_has_to_leave_a_worker_the_time_that_a_task_may_take():
    assert list(broker.consumer_timeout(1800, 300)) == []
    assert list(broker.consumer_timeout(None, 10**6)) == []
    [said] = broker.consumer_timeout(1800, 3600)
    assert "Write: celery_app_task_time_limit: 1740, or raise consumer_timeout" in said


OLD = "on #abc ~* &* +@all -@admin -@dangerous +info"


def own(number):
    return f"on #abc ~* resetchannels &* +@all -select +select|{number}"


VARIABLE = "celery_app_result_store_database"


@pytest.mark.parametrize(
    ("number", "is_set", "users", "says"),
    [
        (1, False, {}, ""),
        (1, False, {"shop": own(1)}, ""),
        (2, True, {"shop": own(1), "petct": own(1)}, ""),
        (1, False, {"petct": own(1)}, f"petct has that one in the same Redis. Write: {VARIABLE}: 2"),
        (1, True, {"petct": own(1), "notes": own(2)}, f"Write: {VARIABLE}: 3"),
        (0, True, {"shop": OLD}, ""),
        (0, True, {"shop": own(0)}, ""),
        (0, True, {"petct": own(1)}, f"petct uses the same Redis. Write: {VARIABLE}: 2"),
        (1, False, {"shop": OLD}, f"Write: {VARIABLE}: 1 (results stored so far are no longer found"),
        (1, True, {"shop": OLD}, ""),
        (1, True, {"shop": OLD, "petct": OLD}, ""),
        (1, False, {"shop": OLD, "petct": own(1)}, f"Write: {VARIABLE}: 2 (results"),
        (1, False, {"petct": OLD}, "petct keeps its results in database 0 of the same Redis, where shop could read"),
    ],
    ids=["first", "again", "second", "taken", "next_free", "old_keeps_0", "keeps_0", "0_with_others",
         "old_has_to_say", "old_moves", "old_moves_first", "old_moves_second", "beside_an_old_one"],
)  # fmt: skip
def test_each_application_has_a_database_of_the_store_to_itself(number, is_set, users, says):
    said = list(store.database("shop", number, is_set, users))
    assert len(said) == bool(says)
    assert says in "".join(said)


def test_a_person_is_no_application():
    [said] = application.name(getpass.getuser())
    assert "a user of that name exists" in said


def test_a_name_that_nobody_has_is_free():
    assert list(application.name("no_such_application")) == []


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_who_listens_is_found_at_its_address_and_at_all(address):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        [(user, program)] = ports.listening(address, port).values()
        assert user == getpass.getuser()
        assert f"(pid {os.getpid()})" in program
        assert ports.listening("127.0.0.2", port) == {}
    assert ports.listening(address, port) == {}


def test_a_port_is_ours_by_its_user_or_by_our_conf(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        bind = f"127.0.0.1:{server.getsockname()[1]}"

        def said(app: str) -> list[str]:
            return list(ports.problems({"celery_web_bind": bind}, app, tmp_path))

        assert said(getpass.getuser()) == []
        (tmp_path / "notes-web-listener-01234567.conf").write_text(f"command=listener --bind {bind} --user notes\n")
        assert said("notes") == []
        assert f"of {getpass.getuser()} listens already. Stop it, or write: celery_web_bind: 127" in said("shop")[0]


GOOD_CONF = "[unix_http_server]\nfile=/run/super.sock ; a comment\n[include]\nfiles = more.ini conf.d/*.conf\n"
DEBIANS = Supervisord(
    1, ("/usr/bin/python3", "/usr/bin/supervisord", "-n", "-c", "/etc/supervisor/supervisord.conf"), "/"
)


@pytest.fixture
def another(tmp_path):
    """A Supervisor that was installed by pip and runs with a configuration of its own."""
    (tmp_path / "my.conf").write_text("[supervisord]\nlogfile=/dev/null\nlogfile_maxbytes=0\n")
    words = [sys.executable, Path(sys.executable).with_name("supervisord"), "-n", "-s", "-c", "my.conf"]
    with subprocess.Popen(words, cwd=tmp_path) as process:
        own = lambda: [each for each in supervisor.supervisords() if each.pid == process.pid]  # noqa: E731
        yield wait_until(own, 10, "a supervisord that is found")[0]
        process.terminate()


@pytest.mark.skipif(os.geteuid() != 0, reason="a supervisord of root's")
def test_a_supervisor_that_is_not_debians_is_refused_by_name(another, tmp_path):
    [said] = supervisor.problems([another], tmp_path / "none.conf")
    program = Path(sys.executable).with_name("supervisord")
    assert f"not Debian's runs here: {program} with {tmp_path}/my.conf (pid {another.pid})" in said
    assert "write its programs into /etc/supervisor/conf.d, or, to have both side by side, type first: " in said
    assert list(supervisor.problems([another, DEBIANS], tmp_path / "none.conf")) == []
    assert list(supervisor.problems([DEBIANS], tmp_path / "none.conf")) == []


@pytest.mark.parametrize(
    ("conf", "says"),
    [
        (GOOD_CONF, ""),
        (GOOD_CONF.replace("conf.d/*.conf", "/opt/*.conf"), "[include]: files = /etc/supervisor/conf.d/*.conf"),
        (GOOD_CONF.partition("[include]")[0], "[include]: files = /etc/supervisor/conf.d/*.conf"),
        # supervisord's * matches no slash.
        (GOOD_CONF.replace("conf.d/*.conf", "*.conf"), "[include]: files = /etc/supervisor/conf.d/*.conf"),
        (GOOD_CONF.replace("conf.d/*.conf", "*/*.conf"), ""),
        (GOOD_CONF.replace("files = more.ini conf.d/*.conf", "files"), "[include]: files = /etc/supervisor/conf.d"),
        (GOOD_CONF.replace("a comment", "f\xfcr alle"), ""),
        (GOOD_CONF.partition("[include]")[2], "can't be read"),
        (GOOD_CONF.replace("file=", "chmod="), "[unix_http_server]: file=/var/run/supervisor.sock"),
    ],
    ids=[
        "good",
        "elsewhere",
        "no include",
        "above",
        "every directory",
        "no value",
        "no UTF-8",
        "no section",
        "no socket",
    ],
)
def test_a_configuration_that_would_not_run_our_programs_is_refused(conf, says, tmp_path, monkeypatch):
    (tmp_path / "supervisord.conf").write_text(conf, encoding="latin-1")
    monkeypatch.setattr(supervisor, "CONF_D", tmp_path / "conf.d")
    said = " ".join(supervisor.problems([], tmp_path / "supervisord.conf")).replace(str(tmp_path), "/etc/supervisor")
    assert says in said
    assert bool(says) is bool(said)


@pytest.fixture(params=["noexec", "ro"])
def mount(request, tmp_path):
    """A directory that is mounted with an option."""
    words = ["mount", "-t", "tmpfs", "-o", request.param, "none", tmp_path]
    if os.geteuid() or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount")
    yield request.param, tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_a_file_system_that_cannot_hold_releases_is_refused_by_name(mount):
    option, directory = mount
    assert list(system.mounted("shop", str(directory.parent))) == []
    [said] = system.mounted("shop", str(directory))
    assert said.startswith(f"{directory} is mounted with {option}, and the releases are to run from {directory}/shop. ")
    assert f"type: mount -o remount,{ {'noexec': 'exec', 'ro': 'rw'}[option] } {directory}" in said


def test_a_read_only_directory_is_refused_before_the_kit_would_write_into_it(mount):
    option, directory = mount
    said = [*system.mounted("shop", str(directory.parent), (str(directory / "bin"),))]
    assert len(said) == (option == "ro")
    assert option != "ro" or said[0].startswith(
        f"{directory} is mounted with ro, and the kit writes into {directory}/bin. "
    )


@pytest.mark.parametrize(
    ("program", "limit", "says"),
    [
        (
            {"name": "net", "pool": "gevent", "concurrency": 500},
            1024,
            "500 slots of the pool gevent open 1100 files",
        ),
        ({"name": "net", "pool": "gevent", "concurrency": 400}, 1024, ""),
        ({"name": "big", "concurrency": 200}, 1024, "open 1300 files, and a process on this host may open 1024"),
        ({"name": "big", "concurrency": 200}, 1024, "Write: concurrency: 154, or raise the limit: LimitNOFILE=65536"),
        ({"name": "big", "concurrency": 512}, 4096, ""),
        ({"name": "net", "pool": "threads", "concurrency": 10000}, 65536, ""),
    ],
)
def test_more_slots_than_a_process_may_open_files_are_refused(program, limit, says):
    said = " ".join(system.open_files([program], limit))
    assert says in said
    assert bool(says) is bool(said)


def test_no_process_may_open_more_files_than_the_guard_asks_for():
    assert system.most_open_files([]) <= system.OPEN_FILES


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, ""),
        ("#!/bin/sh\n# owner: celery-ops shop\n", ""),
        ("#!/bin/sh\n# owner: celery-ops shop_two\n", "is not the kit's, and stays"),
        ("#!/bin/sh\nexec true\n", "is not the kit's, and stays"),
        ("\x7fELF\0\udcff", "is not the kit's, and stays"),
    ],
    ids=["none", "ours", "another application's", "somebody's", "binary"],
)
def test_somebody_elses_command_of_that_name_is_refused(text, says, tmp_path):
    if text is not None:
        (tmp_path / "shop").write_bytes(text.encode(errors="surrogateescape"))
    said = list(application.command("shop", "shop", str(tmp_path), "/nowhere"))
    assert bool(said) is bool(says)
    assert all(f"{tmp_path}/shop {says}. Write: celery_app_command: shop_ops, or" in each for each in said)
    assert list(application.command("", "shop", str(tmp_path))) == []
    assert "/usr/bin/env would be hidden by" in next(application.command("env", "shop", str(tmp_path)))


@pytest.mark.parametrize(
    ("text", "refused"),
    [(None, False), ("#!/bin/sh\n# owner: celery-ops shop\n", False), ("#!/bin/sh\nexec kubectl\n", True)],
    ids=["none", "ours", "somebody's"],
)
def test_somebody_elses_command_is_not_what_operators_call_as_root(text, refused, tmp_path):
    if text is not None:
        (tmp_path / "shopctl").write_text(text)
    said = list(application.operators_command("shop", tmp_path))
    assert bool(said) is refused
    assert all(f"{tmp_path}/shopctl is not the kit's" in each and "Write: celery_app_name" in each for each in said)


@pytest.fixture
def operators(tmp_path, monkeypatch):
    """A host with a group shop-ops of this number; `files` are where commands and rights are."""
    files = {"commands": tmp_path / "bin", "rights": tmp_path / "sudoers.d"}
    for directory in files.values():
        directory.mkdir()
    monkeypatch.setattr(application, "GROUPS", tmp_path / "group")

    def problems(gid, local=True):
        (tmp_path / "group").write_text(f"root:x:0:\n{f'shop-ops:x:{gid}:' if local else ''}\n")
        group = grp.struct_group(("shop-ops", "x", gid, ["anna", "bert"]))
        monkeypatch.setattr(application.grp, "getgrnam", {"shop-ops": group}.__getitem__)
        return list(application.operators_group("shop", **files))

    problems.files = files
    return problems


@pytest.mark.parametrize(
    ("gid", "local", "fix"),
    [
        (998, True, "groupdel shop-ops"),
        (1002, True, "install -D -m 440 /dev/null "),
        (998, False, "install -D -m 440 /dev/null "),
        (50000, False, "install -D -m 440 /dev/null "),
    ],
)
def test_somebody_elses_group_does_not_become_the_operators(operators, gid, local, fix):
    [said] = operators(gid, local)
    assert said.startswith(f"celery_app_name is shop: a group shop-ops is there (gid {gid} with anna, bert), whose")
    assert "Write: celery_app_name: shop_app, or, if " in said and f"type: {fix}" in said
    assert list(application.operators_group("billing", **operators.files)) == []


def test_the_operators_group_of_an_installation_is_known_by_its_command_or_its_rights(operators):
    command, rights = operators.files["commands"] / "shopctl", operators.files["rights"] / "celery-ops-shop"
    command.write_text("#!/bin/sh\n# owner: celery-ops shop\n")
    assert operators(998) == []
    command.write_text("#!/bin/sh\n# owner: celery-ops shop2\n")
    assert operators(998)
    rights.touch()  # as the message says to
    assert operators(50000, local=False) == []


def test_what_the_system_makes_at_boot_for_somebody_else_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(application.Layout, "tmpfiles", tmp_path / "shop.conf")
    assert list(application.name("no_such_application")) == []
    (tmp_path / "shop.conf").touch()
    [said] = application.name("no_such_application")
    assert f"{tmp_path}/shop.conf is there already, and not from this kit" in said


def test_uninstall_knows_what_only_has_the_name_of_the_application(tmp_path, monkeypatch):
    for name in ("base", "etc", "run", "state", "log", "tmpfiles"):
        monkeypatch.setattr(application.Layout, name, tmp_path / name)
    for name in ("base", "log"):
        (tmp_path / name).mkdir()
    assert application.namesakes("no_such_application") == []
    (tmp_path / "base/dump.sql").touch()
    (tmp_path / "log/other.log").touch()
    assert application.namesakes("no_such_application") == [str(tmp_path / "base"), str(tmp_path / "log")]
    (tmp_path / "log/deploys.log").touch()  # as of a backup, on a host that runs nothing of the application
    assert application.namesakes("no_such_application") == [str(tmp_path / "base")]
    assert application.namesakes("nobody") == ["user nobody (home /nonexistent)", str(tmp_path / "base")]
    monkeypatch.setattr(application.Layout, "state", Path("/nonexistent"))  # now that user is the application's
    assert application.namesakes("nobody") == []


@pytest.fixture
def services(tmp_path, monkeypatch):
    """RabbitMQ and Redis as the kit has configured them for two applications; RabbitMQ does not answer."""
    monkeypatch.setattr(rabbitmq, "CONFIGURATION", tmp_path / "rabbitmq.conf")
    monkeypatch.setattr(redis, "CONFIGURATION", tmp_path / "redis.conf")
    rabbitmq.CONFIGURATION.write_text("listeners.tcp.1 = 127.0.0.1:5672\nconsumer_timeout = 200000000\n")
    redis.CONFIGURATION.write_text("bind 0.0.0.0\nport 6379\n")
    users = {"rabbitmq": lambda: {"shop", "crm"}, "result_store": lambda: {"shop": "on", "crm": "on"}}
    for group, (name, bound_to, _) in shared.SERVICES.items():
        monkeypatch.setitem(shared.SERVICES, group, (name, bound_to, users[group]))


def test_an_address_that_another_application_has_in_its_inventory_is_not_taken_away(services):
    said = list(shared.binds("shop", {"rabbitmq_bind": "0.0.0.0", "result_store_bind": "127.0.0.1"}))
    assert [text.partition(" or,")[0] for text in said] == [
        "rabbitmq_bind is 0.0.0.0, and crm of this kit, on the same RabbitMQ, has 127.0.0.1. "
        "Write: rabbitmq_bind: 127.0.0.1,",
        "result_store_bind is 127.0.0.1, and crm of this kit, on the same Redis, has 0.0.0.0. "
        "Write: result_store_bind: 0.0.0.0,",
    ]
    assert list(shared.binds("shop", {"rabbitmq_bind": "127.0.0.1", "result_store_bind": "0.0.0.0"})) == []


@pytest.mark.parametrize("listeners", ["tcp.1 = 10.0.0.5:5672", "ssl.default = 10.0.0.5:5671", "tcp.1 = [::1]:5672"])
def test_where_the_kits_broker_listens_is_read_from_its_configuration(services, listeners):
    rabbitmq.CONFIGURATION.write_text(f"# managed\nlisteners.{listeners}\n")
    assert rabbitmq.bound_to() in ("10.0.0.5", "::1")


def test_whoever_is_alone_on_a_service_may_change_it(services, monkeypatch):
    alone = ("RabbitMQ", rabbitmq.bound_to, lambda: {"shop"})
    monkeypatch.setitem(shared.SERVICES, "rabbitmq", alone)
    assert list(shared.binds("shop", {"rabbitmq_bind": "0.0.0.0"})) == []
    assert shared.consumer_timeout("shop", 86400) == 86400
    rabbitmq.CONFIGURATION.unlink()
    assert list(shared.binds("new", {"rabbitmq_bind": "0.0.0.0"})) == []


def test_the_longest_consumer_timeout_of_the_applications_on_a_broker_holds(services, monkeypatch):
    assert shared.consumer_timeout("shop", 86400) == 200000
    assert shared.consumer_timeout("shop", 300000) == 300000
    rabbitmq.CONFIGURATION.unlink()
    assert shared.consumer_timeout("shop", 86400) == 86400


def test_a_broker_that_does_not_run_keeps_its_consumer_timeout_and_may_be_moved(services, monkeypatch):
    def down():
        raise OperatorError("RabbitMQ does not answer")

    monkeypatch.setitem(shared.SERVICES, "rabbitmq", ("RabbitMQ", rabbitmq.bound_to, down))
    assert shared.consumer_timeout("shop", 86400) == 200000
    assert list(shared.binds("shop", {"rabbitmq_bind": "10.0.0.5"})) == []


def test_the_kits_applications_on_a_broker_are_told_by_the_exchange_that_it_makes():
    exchanges = [("shop", "shop.dead"), ("crm", "crm.dead"), ("theirs", "mail"), ("other", "shop.dead")]
    definitions = {"exchanges": [{"vhost": vhost, "name": name} for vhost, name in exchanges]}
    assert rabbitmq.applications(definitions) == {"shop", "crm"}


@pytest.mark.parametrize(
    ("address", "keys", "watched", "problems"),
    [
        ("10.0.0.1", 5, False, []),
        ("10.0.0.2", 0, False, []),
        ("10.0.0.2", 5, True, []),
        ("10.0.0.2", 5, False, ["holds results (5 keys), and those of 10.0.0.1 would replace them"]),
    ],
    ids=["it becomes the primary", "it holds nothing", "it is a member", "it would lose its results"],
)
def test_a_host_with_results_does_not_become_a_replica(monkeypatch, address, keys, watched, problems):
    monkeypatch.setattr(store, "SYSTEMD", Path("/"))
    monkeypatch.setattr(store.debian, "was_there_before", lambda _: False)
    monkeypatch.setattr(store.redis, "is_sentinel_configured", lambda: watched)
    monkeypatch.setattr(store.redis, "listens_at", lambda: store.redis.Address("127.0.0.1", 6379))
    monkeypatch.setattr(store.redis, "held", lambda _: keys)
    found = list(store.member("10.0.0.1", address))
    assert len(found) == len(problems)
    assert all(words in text for words, text in zip(problems, found, strict=True))


def test_a_redis_that_was_there_before_is_none_of_several(monkeypatch):
    monkeypatch.setattr(store, "SYSTEMD", Path("/"))
    monkeypatch.setattr(store.debian, "was_there_before", lambda _: True)
    [problem] = store.member("10.0.0.1", "10.0.0.2")
    assert "had a Redis before the kit" in problem
