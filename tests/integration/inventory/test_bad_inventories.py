"""Bad inventories and the real site.yml: every mistake is named with its fix, all at once, and no host is touched.

The cases are in the YAML files beside this one.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.celery_ops.kit.plugins.plugin_utils.certificates import Certificates, authorities_in
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.variables import RESERVED

ROOT = Path(__file__).resolve().parents[3]
SITE = ROOT / "playbooks/site.yml"
GROUPS = ("rabbitmq", "result_store", "worker", "scheduler", "web")
CHECK = "celery_ops.kit.preflight : inventory | Validate the inventory"
CREDENTIALS = "celery_ops.kit.preflight : inventory | Refuse new secrets under a running system"
INPUTS = "celery_ops.kit.preflight : inputs | Refuse to be used without the kit's playbooks"
PYTHON = "celery_ops.kit.preflight : python | Install Python where it is missing"
LOOK = "celery_ops.kit.preflight : requirements | Check host requirements"
LOCAL = yaml.safe_load((ROOT / "inventories/local/group_vars/all/main.yml").read_text())
SECRET = "s3cr3t-value"
SECRET_NUMBER = "12345671234567"

BAD_VARIABLES, BAD_INVENTORIES, UNABLE_HOSTS = (
    yaml.safe_load(Path(__file__).with_name(f"{name}.yml").read_text())
    for name in ("bad_variables", "bad_inventories", "unable_hosts")
)
CROWD = [{"name": f"w{number}", "queues": ["petct"], "concurrency": 512} for number in range(200)]
UNABLE_HOSTS["memory"] = {
    "set": {"celery_worker_programs": CROWD},
    "says": "MiB each, two generations side by side during a deploy",
}
APPS = ROOT / "tests/apps"
BARE = {
    **dict.fromkeys(("celery_app_migrate_command", "celery_app_seed_command", "celery_app_check_command"), ""),
    **{"celery_app_environment": {}, "celery_app_secrets": {}, "celery_app_check_url": ""},
    **{"celery_scheduler_enabled": False, "celery_web_command": ""},
}
# What is said with -e on top of the local inventory.
GOOD = {
    "local": {},
    "another": {
        **BARE,
        "celery_app_name": "shop",
        "celery_app_source": "file:///nonexistent/shop.git",
        "celery_app_version": "v1",
        "celery_app_requirements": "pyproject.toml",
        "celery_worker_programs": [
            {"name": "default", "queues": ["shop"], "concurrency": 2},
            {"name": "mail", "queues": ["mail", "bulk"], "concurrency": 4, "pool": "threads"},
            {"name": "net", "queues": ["net"], "concurrency": 20, "pool": "gevent"},
            {"name": "reports", "queues": ["reports"], "options": ["--max-tasks-per-child", "20", "-l", "DEBUG"]},
            {
                "name": "many",
                "queues": ["build:default", "Mails & Post"],
                "autoscale": "10,2",
                "handover": "rolling",
            },
            {"name": "gpu", "queues": ["gpu"], "concurrency": 1, "handover": "replace", "time_limit": 21600},
            {"name": "fair", "queues": ["fair"], "options": ["-E", "-O", "fair", "--prefetch-multiplier", "4"]},
        ],
    },
    "with web": {
        **BARE,
        "celery_app_name": "notes",
        "celery_app_source": str(APPS / "notes"),
        "celery_worker_programs": [{"name": "default", "queues": ["notes"], "concurrency": 2}],
        "celery_web_command": "gunicorn notes:web --no-control-socket",
        "celery_web_bind": "127.0.0.1:8001",
        "celery_app_check_url": "/shout/hello",
    },
}


@dataclass(frozen=True)
class Run:
    """What a playbook did and said."""

    rc: int
    text: str

    @property
    def tasks(self) -> list[str]:
        """The tasks that ran."""
        return [name for name in re.findall(r"^TASK \[(.*)\] \*", self.text, re.M) if "arg spec" not in name]

    @property
    def mistakes(self) -> list[str]:
        """What was said, a mistake a line."""
        return re.findall(r"^ +\d+\. (.*)$", self.text, re.M)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """What the cases point at, by the name between the @."""
    directory = tmp_path_factory.mktemp("places")
    for name in ("empty", "bare", "open"):
        (directory / name).mkdir(mode=0o755)
    (directory / "bare/shop.py").touch()
    (directory / "old").write_text("#!/bin/sh\necho 3 8\n")
    (directory / "old").chmod(0o755)
    found = {path.name: str(path) for path in directory.iterdir()}
    return found | {
        "long": 256 * "q",
        "huge": (128 << 10) * "h",
        "endless": 5000 * "9",
        "busy": str(64 * (os.cpu_count() or 1) + 1),
    }


@pytest.fixture(scope="module")
def control(tmp_path_factory) -> Path:
    """Where the control node would keep what it makes: nothing is to be there in the end."""
    return tmp_path_factory.mktemp("control")


def inventory(groups: dict[str, list[str]], hosts: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
    """An inventory of this machine under several names, which pass for machines of their own."""
    names = list(dict.fromkeys(name for members in groups.values() for name in members))
    return {
        "all": {
            "hosts": {
                name: {"ansible_connection": "local", "ansible_host": name, **hosts.get(name, {})} for name in names
            },
            "children": {group: {"hosts": dict.fromkeys(members)} for group, members in groups.items()},
            "vars": LOCAL | variables,
        }
    }


def everywhere(hosts: list[str]) -> dict[str, list[str]]:
    """All hosts in all groups: each is a whole system."""
    return {group: hosts for group in GROUPS}


def play(
    playbook: Path,
    hosts: dict[str, Any],
    control: Path,
    extra: dict[str, Any] | None = None,
    limit: str = "",
    variables: Path | None = None,
    tags: str = "",
) -> Run:
    """Run a playbook on an inventory whose control node keeps what it makes below `control`."""
    kept = {"celery_app_secrets_dir": str(control / "secrets"), "celery_app_cache_dir": str(control / "cache")}
    hosts["all"]["vars"] = kept | {k: v for k, v in hosts["all"]["vars"].items()}
    file = control.with_suffix(".json")
    file.write_text(json.dumps(hosts))
    words = [
        "ansible-playbook",
        "-i",
        str(file),
        str(playbook),
        "-e",
        json.dumps(extra or {}),
        *(["-e", f"@{variables}"] if variables else []),
        *(["--limit", limit] if limit else []),
        *(["--tags", tags] if tags else []),
    ]
    environment = {
        **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "160",
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "0",
    }  # fmt: skip
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return Run(done.returncode, done.stdout + done.stderr)


def filled(value: Any, places: dict[str, str]) -> Any:
    """A value with the @...@ in it replaced."""
    return json.loads(re.sub(r"@(\w+)@", lambda match: places[match[1]], json.dumps(value)))


def of_hosts(cases: dict[str, Any], places: dict[str, str]) -> dict[str, Any]:
    """An inventory with a host for every case."""
    said = {name: filled(case["set"], places) for name, case in cases.items()}
    return inventory(everywhere(list(cases)), said, {})


def assert_untouched(run: Run, tasks: list[str], control: Path) -> None:
    """The run failed, ran no task but the looking, and changed nothing, on a host or on the control node."""
    assert run.rc != 0, run.text[-3000:]
    assert run.tasks == tasks
    recap = run.text.partition("PLAY RECAP")[2]
    assert set(re.findall(r"changed=(\d+)", recap)) == {"0"}, recap
    if tasks == [CHECK]:
        assert list(control.iterdir()) == []


@pytest.fixture(scope="module")
def refused(places, control) -> Run:
    """What site.yml says to all bad variables at once."""
    return play(SITE, of_hosts(BAD_VARIABLES, places), control)


@pytest.mark.parametrize("case", BAD_VARIABLES)
def test_a_bad_variable_is_named_with_its_fix(case, refused):
    words = BAD_VARIABLES[case]["says"]
    of_case = [mistake for mistake in refused.mistakes if re.search(rf"\[(.*, )?{case}(, .*)?\]$", mistake)]
    about = [mistake for mistake in of_case if words in mistake]
    assert about, f"nothing like {words!r} in\n" + "\n".join(of_case or refused.mistakes)
    assert re.search(r"Write|Leave|Type:", about[0]), about[0]


def test_all_of_them_at_once_and_no_host_touched(refused, control):
    assert f"The inventory has {len(refused.mistakes)} mistakes; nothing was changed on any host." in refused.text
    assert_untouched(refused, [CHECK], control)


def test_no_secret_was_shown(refused):
    assert any(SECRET in str(case["set"]) for case in BAD_VARIABLES.values())
    assert SECRET not in refused.text


@pytest.mark.parametrize("case", BAD_INVENTORIES)
def test_a_bad_inventory_is_named_with_its_fix(case, control):
    bad = BAD_INVENTORIES[case]
    hosts = inventory(bad["groups"], bad.get("hosts", {}), bad.get("set", {}))
    run = play(SITE, hosts, control, limit=bad.get("limit", ""))
    missing = [words for words in bad["says"] if not any(words in mistake for mistake in run.mistakes)]
    assert not missing, f"missing {missing} in\n{run.text[-4000:]}"
    assert SECRET not in run.text
    assert_untouched(run, [CHECK], control)


def some_server() -> socket.socket:
    """A server on a port below those that the kernel gives away, which the check of the inventory would refuse."""
    for port in range(21000, 21100):
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            continue
    raise AssertionError("no free port from 21000 to 21099")


@pytest.fixture(scope="module")
def unable(places, tmp_path_factory) -> Iterator[Run]:
    """What site.yml says to all hosts that don't meet the requirements: the inventory itself passes."""
    with some_server() as server:
        taken = {"taken": f"127.0.0.1:{server.getsockname()[1]}"}
        yield play(SITE, of_hosts(UNABLE_HOSTS, places | taken), tmp_path_factory.mktemp("control"))


@pytest.mark.parametrize("case", UNABLE_HOSTS)
def test_a_host_that_cannot_carry_it_is_told_why(case, unable):
    said = re.search(rf"^fatal: \[{case}\].*?(?=^\S)", unable.text, re.M | re.S)
    assert said, unable.text[-3000:]
    assert UNABLE_HOSTS[case]["says"] in said[0]
    assert "rite" in said[0].partition(UNABLE_HOSTS[case]["says"])[2]


def test_no_host_was_changed(unable, control):
    assert_untouched(unable, [CHECK, CREDENTIALS, INPUTS, PYTHON, LOOK], control)


def test_a_foreign_directory_and_an_unknown_distribution_are_refused(tmp_path):
    directories = (path.name for path in sorted(Path("/etc").iterdir()) if path.is_dir() and any(path.iterdir()))
    taken = RESERVED | {account.pw_name for account in pwd.getpwall()}
    name = next(name for name in directories if re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name) and name not in taken)
    hosts = inventory(everywhere(["a"]), {}, {"celery_app_name": name, "celery_app_module": "petct"})
    run = play(SITE, hosts, tmp_path, {"__preflight_supported": {"beos": [5]}})
    assert f"celery_app_name is {name}: /etc/{name} is there already" in run.text
    assert "the kit supports Beos 5. Use a host with one of these." in run.text
    assert_untouched(run, [CHECK, CREDENTIALS, INPUTS, PYTHON, LOOK], tmp_path)


@pytest.fixture
def first_play(tmp_path) -> Path:
    """The play of site.yml that looks at the inventory."""
    file = tmp_path / "first.yml"
    file.write_text(yaml.safe_dump(yaml.safe_load(SITE.read_text())[:1]))
    return file


@pytest.mark.parametrize("empty", [{}, {"scheduler": [], "web": []}])
def test_three_variables_and_three_groups_are_enough(empty, first_play, tmp_path):
    groups = {"rabbitmq": ["a"], "result_store": ["a"], "worker": ["a"]}
    hosts = inventory(groups | empty, {}, {})
    hosts["all"]["vars"] = {
        "celery_app_name": "shop", "celery_app_module": "shop", "celery_app_source": str(APPS / "shop"),
        "celery_app_requirements": "pyproject.toml",
    }  # fmt: skip
    run = play(first_play, hosts, tmp_path / "control")
    assert run.rc == 0, run.text


def test_the_example_inventory_is_accepted(first_play, tmp_path):
    example = tmp_path / "example"
    shutil.copytree(ROOT / "inventories/example", example)
    (example / "site.yml").write_text(first_play.read_text())
    words = ["ansible-playbook", "-i", str(example / "hosts.yml"), str(example / "site.yml")]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    # The passwords and the CA are there, so that no host is asked whether it has others.
    for name in (".secrets", ".secrets/tls"):
        (example / name).mkdir(mode=0o700)
    (example / ".secrets/tls/ca.crt").touch()
    for name in ("broker_password", "result_store_password"):
        (example / ".secrets" / f"shop_{name}").write_text("x" * 32)
        (example / ".secrets" / f"shop_{name}").chmod(0o600)
    run = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "WARN" not in run.stdout + run.stderr


def test_a_rollback_needs_no_source(first_play, tmp_path):
    gone = {"celery_app_source": "/nowhere/shop"}
    deploy = play(first_play, inventory(FLEET, {}, {}), tmp_path / "control", gone)
    assert deploy.rc != 0
    assert "no such directory on the control node" in " ".join(deploy.text.split())
    back = play(first_play, inventory(FLEET, {}, {}), tmp_path / "control", {**gone, "__celery_action": "rollback"})
    assert back.rc == 0, back.text


FLEET = {"rabbitmq": ["a"], "result_store": ["a"], "worker": ["b", "c"], "scheduler": ["b"], "web": ["d"]}


@pytest.mark.parametrize(
    ("limit", "extra", "warned"),
    [
        ("b,d", {}, "--limit leaves out c: they stay on the release that they have"),
        ("b,c", {"__celery_action": "rollback"}, "--limit leaves out d: they"),
        ("b", {"celery_app_migrate_command": "", "celery_app_seed_command": ""}, "--limit leaves out c, d: they"),
        ("a", {}, ""),
        ("", {}, ""),
    ],
)
def test_a_limit_that_leaves_the_fleet_on_two_releases_says_so(limit, extra, warned, first_play, tmp_path):
    run = play(first_play, inventory(FLEET, {}, {}), tmp_path / "control", extra, limit)
    assert run.rc == 0, run.text
    assert warned in " ".join(run.text.split()), run.text
    assert ("WARN" in run.text) is bool(warned)


# As YAML writes them: the value that arrives, and what was written; "" where both are the same.
SCALARS = {
    "false": ("False", "false"),
    "yes": ("True", "yes"),
    "010": ("8", "010"),
    "0x1F": ("31", "0x1F"),
    "12:30:45": ("45045", "12:30:45"),
    "1_000": ("1000", "1_000"),
    "1.10": ("1.1", "1.10"),
    "1.0e+3": ("1000.0", "1.0e+3"),
    "2026-01-02": ("2026-01-02", ""),
    "2026-01-02 03:04": ("2026-01-02 03:04", ""),
    "2026-01-02T03:04:05Z": ("2026-01-02 03:04:05+00:00", "2026-01-02T03:04:05Z"),
    "8000": ("8000", ""),
    "1.5": ("1.5", ""),
    "1e3": ("1e3", ""),
    "'010'": ("010", ""),
}


@pytest.mark.parametrize("form", ["block", "flow"])
def test_a_value_that_yaml_changes_is_refused_with_the_quoted_form(form, first_play, tmp_path):
    lines = [f"V{number}: {scalar}" for number, scalar in enumerate(SCALARS)]
    block = "".join(f"\n  {line}  # why" for line in lines)
    text = "celery_app_environment:" + (block if form == "block" else " {" + ", ".join(lines) + "}")
    variables = tmp_path / "variables.yml"
    variables.write_text(text + "\n")
    run = play(first_play, inventory(everywhere(["a"]), {}, {}), tmp_path / "control", variables=variables)
    said = " ".join(run.text.split())
    for number, (arrives, written) in enumerate(SCALARS.values()):
        line = f'has V{number}, which is {written} and would arrive as "{arrives}". Write: V{number}: "{written}"'
        assert (line in said) is bool(written), run.text
    assert len(run.mistakes) == len([written for _, written in SCALARS.values() if written]), run.text


def test_a_text_that_yaml_takes_for_a_number_is_refused_where_it_changes(first_play, tmp_path):
    variables = tmp_path / "variables.yml"
    variables.write_text(
        f"celery_app_version: 1.10\ncelery_app_broker_password: 0{SECRET_NUMBER}\ncelery_app_command: 2.5\n"
        "celery_app_source: file:///nonexistent/shop.git\n"
    )
    run = play(first_play, inventory(everywhere(["a"]), {}, {}), tmp_path / "control", variables=variables)
    version, password = run.mistakes
    assert version == (
        'celery_app_version is 1.10, which would arrive as "1.1": YAML reads it as a number and changes it. '
        'Write it in quotes: celery_app_version: "1.10"'
    )
    assert password == (
        "celery_app_broker_password is (not shown): YAML reads it as a number and changes it. "
        'Write it in quotes: celery_app_broker_password: "..."'
    )
    assert SECRET_NUMBER not in run.text
    assert str(int(SECRET_NUMBER, 8)) not in run.text


def test_a_secret_of_a_template_that_is_too_long_is_refused_without_being_shown(first_play, tmp_path):
    secrets = {"celery_app_secrets": {"LICENSE": f"{{{{ '{SECRET}' * 20000 }}}}"}}
    run = play(first_play, inventory(everywhere(["a"]), {}, secrets), tmp_path / "control")
    (mistake,) = run.mistakes
    assert mistake.startswith("celery_app_secrets has LICENSE, of 240009 bytes with its name;"), run.text
    assert SECRET not in run.text


def test_what_celery_takes_from_the_environment_is_what_its_command_line_takes():
    from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.environment import REFUSED
    from celery.bin.celery import celery

    known = {parameter.envvar for parameter in celery.params} - {None}
    known |= {f"CELERY_{parameter.name.upper()}" for parameter in celery.params}
    for name in ("worker", "beat"):
        known |= {f"CELERY_{name}_{parameter.name}".upper() for parameter in celery.commands[name].params}
    read_elsewhere = {"CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "REMAP_SIGTERM", "FORKED_BY_MULTIPROCESSING"}
    assert set(REFUSED) - known == read_elsewhere
    harmless = {"NO_COLOR", "SKIP_CHECKS"}
    assert {parameter.envvar for parameter in celery.params} - {None} - harmless <= set(REFUSED)


@pytest.fixture
def running_app() -> Iterator[str]:
    """The name of an application that this machine passes for having: its environment is there."""
    directory = Path(f"/etc/lost_secrets_{os.getpid()}")
    try:
        directory.mkdir()
    except OSError as error:
        pytest.skip(f"{directory}: {error.strerror}")
    (directory / "env").write_text("CELERY_BROKER_URL=amqp://x\nPETCT_SECRET_KEY=x\n")
    yield directory.name
    shutil.rmtree(directory)


def test_new_passwords_under_a_running_system_are_refused_before_any_is_made(running_app, first_play, tmp_path):
    hosts = inventory(everywhere(["a"]), {}, {"celery_app_name": running_app, "celery_app_module": "petct"})
    control = tmp_path / "control"
    secrets = control / "secrets"
    for playbook in (first_play, first_play):  # the second run is told the same
        run = play(playbook, hosts, control)
        said = " ".join(run.text.split())
        assert run.rc != 0
        assert f"{secrets} on the control node has lost the secrets of {running_app}" in said
        assert "this host has them: CELERY_BROKER_URL, PETCT_SECRET_KEY." in said
        assert f"Restore the directory from your backup: {secrets}/{running_app}_broker_password" in said
        assert f"grep -E '^(CELERY_BROKER_URL|PETCT_SECRET_KEY)=' /etc/{running_app}/env" in said
        hint = r"type: ansible-playbook -i \S+control.json playbooks/site.yml -e celery_app_rotate_credentials=yes"
        assert re.search(hint, said)
        assert not control.exists() or list(control.iterdir()) == []


SUDO = """#!/bin/sh
while [ "$1" != /bin/sh ]; do shift; done
mv {file}.of-root {file}
"$@"
rc=$?
mv {file} {file}.of-root
exit $rc
"""
"""A sudo that lets read what only root may read."""


def test_they_are_refused_as_well_where_a_user_with_sudo_logs_in(running_app, first_play, tmp_path, monkeypatch):
    monkeypatch.setenv("ANSIBLE_BECOME_ALLOW_SAME_USER", "true")  # here, root is both
    file, sudo = Path(f"/etc/{running_app}/env"), tmp_path / "sudo"
    file.rename(f"{file}.of-root")
    sudo.write_text(SUDO.format(file=file))
    sudo.chmod(0o755)
    hosts = inventory(everywhere(["a"]), {}, {"celery_app_name": running_app, "celery_app_module": "petct"})
    hosts["all"]["vars"] |= {"ansible_become_method": "ansible.builtin.sudo", "ansible_become_exe": str(sudo)}
    run = play(first_play, hosts, tmp_path / "control")
    assert run.rc != 0
    assert f"has lost the secrets of {running_app}" in " ".join(run.text.split()), run.text


@pytest.mark.parametrize("way", ["restored", "on purpose", "given", "another secret"])
def test_new_passwords_are_made_where_nothing_is_lost_or_on_purpose(way, running_app, first_play, tmp_path):
    hosts = inventory(everywhere(["a"]), {}, {"celery_app_name": running_app, "celery_app_module": "petct"})
    variables, secrets = hosts["all"]["vars"], tmp_path / "control/secrets"
    if way in ("restored", "another secret"):
        secrets.mkdir(mode=0o700, parents=True)
        for name in (f"{running_app}_broker_password", "petct_secret_key"):
            (secrets / name).write_text("x" * 64 + "\n")
            (secrets / name).chmod(0o600)
    if way == "on purpose":
        variables["celery_app_rotate_credentials"] = "yes"
    if way == "given":
        variables["celery_app_broker_password"] = "x" * 40
        variables["celery_app_secrets"] = {"PETCT_SECRET_KEY": "x" * 40}
    if way == "another secret":
        new = "{{ lookup('password', celery_app_secrets_dir ~ '/new length=20') }}"
        variables["celery_app_secrets"] = {**variables["celery_app_secrets"], "NEW": new}
    run = play(first_play, hosts, tmp_path / "control")
    assert run.rc == 0, run.text


@pytest.mark.parametrize("limit", ["b", "c"])
def test_hosts_that_each_migrate_may_be_deployed_one_at_a_time(limit, first_play, tmp_path):
    hosts = inventory(FLEET, {}, {"celery_app_migrate_host": "{{ inventory_hostname }}"})
    run = play(first_play, hosts, tmp_path / "control", limit=limit)
    assert run.rc == 0, run.text


SPREAD = {"rabbitmq": ["a"], "result_store": ["a"], "worker": ["b"], "scheduler": ["b"], "web": ["b"]}


@pytest.fixture
def trusting(running_app, tmp_path):
    """An inventory of two hosts with a vault, one of which has a CA of the kit's; and where that CA came from."""
    kept = Certificates(tmp_path / "kept", tmp_path / "kept/ca.crt")
    kept.make("a", ["a"])
    (Path("/etc") / running_app / "ca.pem").write_bytes(kept.ca.read_bytes())
    given = {"celery_app_name": running_app, "celery_app_module": "petct", "celery_app_broker_password": "x" * 40}
    given |= {"celery_app_result_store_password": "x" * 40, "celery_app_secrets": {"PETCT_SECRET_KEY": "x" * 40}}
    return inventory(SPREAD, {}, given), kept


def test_a_ca_that_is_lost_is_not_made_anew(trusting, first_play, tmp_path):
    hosts, kept = trusting
    run, tls = play(first_play, hosts, tmp_path / "control"), tmp_path / "control/secrets/tls"
    said, [name] = " ".join(run.text.split()), authorities_in(kept.ca.read_text())
    assert run.rc != 0
    assert f"The control node has lost {tls}/ca.crt and {tls}/ca.key, the CA of broker and result store" in said
    assert f"{name} (/etc/{hosts['all']['vars']['celery_app_name']}/ca.pem). It would refuse" in said
    assert f"Restore the directory from your backup: {tls}" in said
    assert re.search(r"playbooks/site.yml -e celery_app_rotate_credentials=yes", said)
    assert "fatal: [b]" in run.text and "fatal: [a]" not in run.text, "the broker of this test has none"
    assert not list(tmp_path.glob("control/*"))


@pytest.mark.parametrize("down", [False, True], ids=["there", "down"])
def test_a_host_that_a_limit_leaves_out_is_asked_as_well_if_it_is_there(down, trusting, first_play, tmp_path):
    hosts, _ = trusting
    hosts["all"]["hosts"]["b"] |= {"ansible_connection": "ssh", "ansible_port": 9} if down else {}
    hosts["all"]["hosts"]["b"]["ansible_host"] = "127.0.0.1"
    run = play(first_play, hosts, tmp_path / "control", limit="a")
    assert (run.rc == 0) is down, run.text
    assert ("The control node has lost" in run.text) is not down
    assert down or "failed: [a -> b" in run.text, run.text


@pytest.mark.parametrize(
    "way", ["restored", "on purpose", "given", "without", "another's on the host", "a deploy", "a part"]
)
def test_a_ca_is_made_where_none_is_lost_or_on_purpose(way, trusting, first_play, tmp_path):
    hosts, kept = trusting
    variables, extra = hosts["all"]["vars"], {}
    installed = Path("/etc") / variables["celery_app_name"] / "ca.pem"
    if way == "restored":
        (tmp_path / "control/secrets").mkdir(mode=0o700, parents=True)
        shutil.copytree(kept.directory, tmp_path / "control/secrets/tls")
    if way == "on purpose":
        extra = {"celery_app_rotate_credentials": "yes"}
    if way == "given":
        variables["celery_app_tls_directory"] = str(kept.directory)
    if way == "without":
        variables["celery_app_tls"] = False
    if way == "another's on the host":
        installed.write_text("no certificate")
    if way == "a deploy":  # it installs none
        first_play.write_text(yaml.safe_dump(yaml.safe_load((ROOT / "playbooks/deploy.yml").read_text())[:1]))
        [plays] = yaml.safe_load(first_play.read_text())
        first_play.write_text(yaml.safe_dump([{**plays, "tasks": plays["tasks"][:1]}]))
    run = play(first_play, hosts, tmp_path / "control", extra, tags="deploy" if way == "a part" else "")
    assert run.rc == 0, run.text


FOREIGN = {"rabbitmq": [], "result_store": [], "worker": ["a"], "scheduler": ["a"], "web": ["a"]}


@pytest.mark.parametrize("backend", ["app", "none", "redis://:{{ password }}@cache:6379/3", "db+postgresql://x@db/y"])
def test_services_of_somebody_else_need_no_group_and_make_no_password(backend, first_play, tmp_path):
    said = {
        "celery_app_broker_url": "amqps://shop:{{ password }}@broker.example.com:5671/shop;amqp://shop:x@other:5672/shop",
        "celery_app_result_backend": backend,
        "celery_app_environment": {},
        "celery_app_secrets": {"CLOUDAMQP_URL": "{{ celery_app_broker_url_effective }}"},
        "password": SECRET,
    }
    run = play(first_play, inventory(FOREIGN, {}, said), tmp_path / "control")
    assert run.rc == 0 and run.mistakes == [], run.text
    assert SECRET not in run.text and not list(tmp_path.glob("control/*"))


def test_the_urls_for_names_of_the_applications_own_make_no_password_while_they_are_looked_at(first_play, tmp_path):
    urls = {"REDIS_URL": "{{ celery_app_redis_url }}", "AMQP_URL": "{{ celery_app_broker_url_effective }}"}
    hosts = inventory(everywhere(["a"]), {}, {"celery_app_secrets": urls})
    run = play(first_play, hosts, tmp_path / "control", {"celery_app_environment": {"TOO": urls["REDIS_URL"]}})
    assert run.rc == 0 and run.mistakes == [], run.text
    assert not list(tmp_path.glob("control/secrets/*"))


def test_a_host_of_no_inventory_file_is_told_where_its_secrets_would_go(first_play, tmp_path):
    (tmp_path / "groups.ini").write_text("".join(f"[{group}]\na\n" for group in GROUPS))
    (tmp_path / "shop.json").write_text(json.dumps(LOCAL | {"ansible_connection": "local"}))
    words = ["ansible-playbook", "-i", "a,", "-i", "groups.ini", "-e", "@shop.json", str(first_play)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "160"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    said = " ".join(done.stdout.split())
    assert "a is in no inventory file that it could be beside. Write: celery_app_secrets_dir: " in said, said


def test_addresses_may_be_templates_that_are_for_hosts_alone(first_play, tmp_path):
    members = [*"abc", "w1", "w2"]
    groups = {"rabbitmq": ["a", "b", "c"], "result_store": ["a"], "worker": ["w1", "w2"], "scheduler": ["w1", "w2"]}
    hosts = inventory(groups | {"web": ["w1"]}, {}, {"ansible_host": "{{ places[inventory_hostname] }}"})
    hosts["all"]["vars"]["places"] = {name: f"10.0.0.{number}" for number, name in enumerate(members, 1)}
    for given in hosts["all"]["hosts"].values():
        del given["ansible_host"]
    run = play(first_play, hosts, tmp_path / "control")
    assert (run.rc, run.mistakes) == (0, []), run.text


@pytest.mark.parametrize("case", GOOD)
def test_a_good_inventory_passes_without_a_word(case, first_play, tmp_path):
    run = play(first_play, inventory(everywhere(["a"]), {}, {}), tmp_path / "control", GOOD[case])
    assert run.rc == 0, run.text
    assert (run.tasks, run.mistakes) == ([CHECK, CREDENTIALS], [])
    assert "WARN" not in run.text


def test_an_application_without_scheduler_and_web_leaves_their_groups_out(first_play, tmp_path):
    three = {group: ["a"] for group in ("rabbitmq", "result_store", "worker")}
    run = play(first_play, inventory(three, {}, {"celery_web_command": "", "celery_app_check_url": ""}), tmp_path)
    assert (run.rc, run.mistakes) == (0, []), run.text


def test_a_company_that_has_a_group_web_calls_ours_celery_web(tmp_path):
    """Its own hosts of that name are in no play, and ours are."""
    ours = {f"celery_{group}": ["a"] for group in GROUPS}
    hosts = inventory(ours | {"web": ["shop"], "petct": ["a"]}, {}, {"preflight_disk_free": 10_000_000})
    run = play(SITE, hosts, tmp_path)
    # Its supervisord is another's, where other tests run beside this one.
    assert "/srv" in [mistake.partition(" ")[0] for mistake in run.mistakes], run.text
    assert re.findall(r"^(\w+) +: ok=", run.text, re.M) == ["a"]
