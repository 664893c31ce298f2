"""Which RabbitMQ can start on whose data: told from the files of real nodes, and from what apt says."""

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements import broker
from ansible_collections.celery_ops.kit.plugins.module_utils.services import rabbitmq_versions
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_versions import (
    Versions,
    candidate_in,
    data_version,
    nodes,
    starts_on,
    version_of,
    versions,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.status.look import Status
from ansible_collections.celery_ops.kit.plugins.module_utils.status.problems import problems
from ansible_collections.celery_ops.kit.plugins.module_utils.status.text import text

# As Debian 12's and Debian 13's nodes wrote them.
OF_3_10 = """[classic_mirrored_queue_version,implicit_default_bindings,
 maintenance_mode_status,quorum_queue,stream_queue,user_limits,
 virtual_host_metadata].
"""
OF_4_0 = """[classic_mirrored_queue_version,
 classic_queue_type_delivery_support,
 direct_exchange_routing_v2,
 feature_flags_v2,
 message_containers,
 message_containers_deaths_v2,
 'rabbitmq_4.0.0',
 restart_streams,
 stream_single_active_consumer].
"""
BOOKWORM, TRIXIE = "3.10.8-1.1+deb12u1", "4.0.5-6+deb13u2"
POLICY = f"""rabbitmq-server:
  Installed: {BOOKWORM}
  Candidate: {TRIXIE}
  Version table:
     {TRIXIE} 500
"""


@pytest.mark.parametrize(
    ("flags", "version"),
    [
        (OF_3_10, (3, 10)),
        ("[quorum_queue].", (3, 8)),
        ("[stream_single_active_consumer,quorum_queue].", (3, 11)),
        ("[message_containers,restart_streams].", (3, 13)),
        (OF_4_0, (4, 0)),
        (OF_4_0.replace("4.0.0", "4.10.0"), (4, 10)),
        ("[].", None),
        ("", None),
    ],
)
def test_the_version_of_data_is_told_from_their_feature_flags(flags, version):
    assert data_version(flags) == version


@pytest.mark.parametrize(
    ("package", "data", "starts"),
    [
        ((3, 10), (3, 10), True),
        ((3, 11), (3, 10), True),
        ((3, 12), (3, 10), False),
        ((3, 13), (3, 12), True),
        ((4, 0), (3, 10), False),
        ((4, 0), (3, 12), False),
        ((4, 0), (3, 13), True),
        ((4, 2), (3, 13), True),
        ((4, 3), (4, 1), False),
        ((4, 3), (4, 2), True),
        ((3, 10), (4, 0), False),
        ((5, 0), (4, 2), True),
    ],
)
def test_a_node_starts_on_data_that_are_not_too_old_and_not_newer(package, data, starts):
    assert starts_on(package, data) is starts


@pytest.mark.parametrize(("package", "version"), [(BOOKWORM, (3, 10)), ("1:4.2.1-1", (4, 2)), ("", None)])
def test_the_version_of_a_package(package, version):
    assert version_of(package) == version


def test_the_candidate_is_what_apt_names():
    assert candidate_in(POLICY.splitlines()) == TRIXIE
    assert candidate_in(["rabbitmq-server:", "  Candidate: (none)"]) == candidate_in([]) == ""


@pytest.mark.parametrize(
    ("installed", "candidate", "how"), [(TRIXIE, TRIXIE, "is installed"), ("", TRIXIE, "would be installed")]
)
def test_a_host_whose_package_cannot_start_on_its_data_is_refused_by_name(installed, candidate, how):
    [said] = broker.data(Versions("rabbit@localhost", (3, 10), installed, candidate))
    assert said.startswith(
        f"RabbitMQ {TRIXIE} {how}, and can't start on the data of rabbit@localhost, which are of 3.10: it needs data "
        "of 3.13 or newer. The data are left as they are."
    )
    assert "ansible-playbook playbooks/rabbitmq_move.yml -e rabbitmq_move_from=" in said


@pytest.mark.parametrize(
    "found",
    [
        Versions("rabbit@localhost", (3, 10), BOOKWORM, TRIXIE),  # still runs: the kit upgrades nothing
        Versions("rabbit@localhost", (4, 0), TRIXIE, TRIXIE),
        Versions("rabbit@localhost", None, TRIXIE, TRIXIE),
        Versions("rabbit@localhost", (3, 10), "", ""),
    ],
)
def test_a_host_whose_package_starts_or_that_has_no_data_is_not_refused(found):
    assert list(broker.data(found)) == []


def test_data_of_a_newer_version_are_refused():
    [said] = broker.data(Versions("rabbit@localhost", (4, 0), BOOKWORM))
    assert "which are of 4.0: it can't read data of a newer version" in said


def test_what_is_on_the_host_is_read_without_a_broker(monkeypatch, tmp_path):
    said = {
        "dpkg-query": (0, f"installed {BOOKWORM}"),
        "apt-cache": (0, POLICY),
        "apt-mark": (0, "rabbitmq-server\n"),
    }
    monkeypatch.setattr(rabbitmq_versions, "run", lambda *words, **_: said[words[0]])
    for name in ("rabbit@localhost", "rabbit@localhost-plugins-expand"):
        (tmp_path / name).mkdir()
    (tmp_path / "rabbit@localhost-feature_flags").write_text(OF_3_10)
    assert nodes(tmp_path) == ["rabbit@localhost"]
    found = versions("rabbit@localhost", "12", tmp_path)
    assert found == Versions("rabbit@localhost", (3, 10), BOOKWORM, TRIXIE, held=True, debian="12")
    assert versions("rabbit@other", data=tmp_path).data is None
    said["dpkg-query"] = (0, f"config-files {BOOKWORM}")
    assert versions("rabbit@localhost", data=tmp_path).installed == ""


def seen(**more):
    queues = {"demo": {"messages": 0, "consumers": 1}}
    return Status("demo", "h", name="broker-1", queues=queues, broker=Versions("rabbit@localhost", (3, 10), **more))


def test_status_tells_before_the_upgrade_of_debian():
    status = seen(installed=BOOKWORM, candidate=BOOKWORM, debian="12")
    assert problems(status, has_programs=False) == []
    lines = text(status, has_programs=False, has_queues=True)
    assert f"broker: RabbitMQ {BOOKWORM}" in lines
    [note] = [line for line in lines if line.startswith("note: ")]
    assert note.startswith("note: RabbitMQ 3.10 can't be upgraded in place to the 4.0 of Debian 13.")
    assert note.endswith("ansible-playbook playbooks/rabbitmq_move.yml -e rabbitmq_move_from=broker-1")


def test_a_broker_that_the_next_upgrade_would_stop_is_a_problem_until_it_is_held():
    [said] = problems(seen(installed=BOOKWORM, candidate=TRIXIE, debian="12"), has_programs=False)
    assert said.startswith("apt would upgrade RabbitMQ 3.10 to 4.0, which can't start on its data. Keep it: apt-mark ")
    assert problems(seen(installed=BOOKWORM, candidate=TRIXIE, held=True), has_programs=False) == []
    assert problems(seen(installed=TRIXIE, candidate=TRIXIE, debian="13"), has_programs=False) != []
    current = Status("demo", "h", broker=Versions("rabbit@localhost", (4, 0), TRIXIE, TRIXIE, debian="13"))
    assert problems(current, has_programs=False) == []


@pytest.mark.parametrize(
    ("installed", "data", "candidate", "why"),
    [
        ("4.0.5-6", (4, 0), "4.1.0-1", ""),
        ("4.0.5-6", (4, 0), "4.0.9-1", ""),
        ("4.0.5-6", None, "4.0.5-6", ""),
        ("", None, "4.2.0-1", ""),
        ("3.10.8-1", (3, 10), "4.2.0-1", "it starts on data of 3.13 and newer"),
        ("4.0.5-6", (4, 0), "4.3.0-1", "it starts on data of 4.2 and newer"),
        ("3.13.7-1", (3, 12), "4.1.0-1", "it starts on data of 3.13 and newer"),  # flags of 3.13 are not enabled yet
        ("4.2.0-1", (4, 2), "4.0.5-6", "it is older"),
        ("4.1.0-1", (4, 0), "4.0.5-6", "it is older"),
    ],
)
def test_a_version_that_can_not_follow_the_installed_one(installed, data, candidate, why):
    said = rabbitmq_versions.cannot_follow(Versions("rabbit@h", data, installed, candidate))
    assert bool(said) is bool(why)
    assert said.endswith(why)
