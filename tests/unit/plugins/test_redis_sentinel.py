"""What makes hosts members of one result store: configuration, users, and what Redis writes itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements import store
from ansible_collections.celery_ops.kit.plugins.module_utils.services import redis
from ansible_collections.celery_ops.kit.plugins.modules import redis_sentinel, redis_users
from support.module_run import ModuleRun

WANT = {
    "nodes": ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
    "address": "10.0.0.2",
    "bind": "0.0.0.0",
    "port": 6379,
    "sentinel_port": 26379,
    "password": "secret",
    "acl_file": "/etc/redis/acl",
    "tls_directory": "",
    "verify_clients": False,
}


def test_sentinel_watches_the_primary_with_a_majority(tmp_path):
    text = redis_sentinel.configuration(WANT, "10.0.0.1")
    assert "sentinel monitor celery-ops 10.0.0.1 6379 2\n" in text
    assert "sentinel announce-ip 10.0.0.2\n" in text
    assert "port 26379\n" in text
    assert "tls" not in text
    path = tmp_path / "sentinel.conf"
    assert not redis.is_sentinel_configured(path)
    path.write_text("sentinel monitor mymaster 127.0.0.1 6379 2\n")
    assert not redis.is_sentinel_configured(path)
    path.write_text(text)
    assert redis.is_sentinel_configured(path)


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("# für alle\nsentinel monitor mymaster 127.0.0.1 6379 2\n", []),  # as the package brings it
        (
            "sentinel myid 1\nSENTINEL MONITOR crm 10.9.0.1 6379 2\nsentinel monitor web 10.9.0.1 6380 2\n",
            ["crm", "web"],
        ),
        ('sentinel monitor mymaster "10.9.0.1" 6379 2\n', ["mymaster"]),
        (redis_sentinel.configuration(WANT, "10.0.0.1") + "sentinel monitor crm 10.9.0.1 6379 2\n", []),  # kept
    ],
)
def test_a_host_whose_sentinel_watches_somebody_elses_redis_is_no_member(text, others, tmp_path, monkeypatch):
    conf = tmp_path / "sentinel.conf"
    conf.write_text(text, encoding="latin-1")
    assert redis.watched_by_others(conf) == others
    monkeypatch.setattr(store, "SYSTEMD", tmp_path)
    monkeypatch.setattr(store.debian, "was_there_before", lambda service: False)
    monkeypatch.setattr(store.redis, "watched_by_others", lambda: others)
    said = list(store.member("10.0.0.1", "10.0.0.1"))
    assert len(said) == bool(others)
    for name in others:
        assert name in said[0] and "Use another host in group result_store" in said[0]
    if others:
        said = ModuleRun(redis_sentinel.main, {**WANT, "conf": str(conf)}).result()["msg"]
        assert f"watches {', '.join(others)} for somebody else" in said
        assert conf.read_text() == text


def test_with_tls_nothing_listens_without():
    text = redis_sentinel.configuration({**WANT, "tls_directory": "/etc/redis/tls"}, "10.0.0.1")
    assert "port 0\ntls-port 26379\n" in text
    assert "tls-replication yes\n" in text
    assert "tls-auth-clients no\n" in text


def test_sentinel_asks_clients_for_a_certificate_or_not_and_the_rest_of_its_file_is_its_own(tmp_path):
    given = {**WANT, "tls_directory": "/etc/redis/tls"}
    off, on = (redis_sentinel.configuration({**given, "verify_clients": each}, "10.0.0.1") for each in (False, True))
    written = "sentinel myid 1\n"
    assert redis_sentinel.verified(off + written, verify=True) == on + written
    assert redis_sentinel.verified(on + written, verify=False) == off + written
    plain = redis_sentinel.configuration(WANT, "10.0.0.1")
    assert redis_sentinel.verified(plain, verify=True) == plain


def test_a_new_member_asks_the_others_who_the_primary_is(monkeypatch):
    known = {"10.0.0.3": ["10.0.0.3", "6379"]}

    def ask(address, *commands, **login):
        if address.host not in known:
            raise redis.OperatorError("refused")
        return known[address.host]

    monkeypatch.setattr(redis_sentinel, "ask", ask)
    assert redis_sentinel.primary_of(WANT, "") == "10.0.0.3"
    known.clear()
    assert redis_sentinel.primary_of(WANT, "") == "10.0.0.1"


@pytest.mark.parametrize(
    ("answer", "has_to_be_restarted"),
    [
        (["10.0.0.1", "6379"], False),
        ([], True),
        ("NOAUTH Authentication required.", True),
        ("Could not connect to Redis at 10.0.0.2:26379: SSL_connect failed: wrong version number", True),
        ("Could not connect to Redis at 10.0.0.2:26379: Connection refused", False),  # it is started
    ],
)
def test_a_sentinel_that_has_not_read_its_configuration_is_restarted_by_the_next_run(
    answer, has_to_be_restarted, tmp_path, monkeypatch
):
    def ask(address, *commands, **login):
        if isinstance(answer, str):
            raise redis.OperatorError(answer)
        return answer

    conf = tmp_path / "sentinel.conf"
    conf.write_text(redis_sentinel.configuration(WANT, "10.0.0.1"))
    monkeypatch.setattr(redis_sentinel, "ask", ask)
    said = ModuleRun(redis_sentinel.main, {**WANT, "conf": str(conf)}).result()
    assert said["changed"] is has_to_be_restarted
    assert conf.read_text() == redis_sentinel.configuration(WANT, "10.0.0.1")


@pytest.mark.parametrize(("role", "count"), [("master", 7), ("slave", 0)])
def test_a_run_that_ended_before_a_new_replica_had_its_sentinel_is_completed(role, count, monkeypatch):
    """What a replica has is its primary's, and nothing that would be lost."""
    answers = {"INFO replication": f"role:{role}", "INFO keyspace": "db1:keys=7,expires=7,avg_ttl=1"}
    monkeypatch.setattr(redis, "ask", lambda address, *commands, **login: [answers[each] for each in commands])
    assert redis.held(redis.Address("10.0.0.2", 6379)) == count


def test_an_application_asks_sentinel_for_the_primary_and_nothing_else():
    application = {"name": "shop", "password": "abc", "database": 3}
    rules = redis_users.rules_of(application, sentinel=True)
    assert re.match(r"on #[0-9a-f]{64} resetchannels -@all ", rules)
    allowed = set(re.findall(r"\+(\S+)", rules))
    assert "sentinel|masters" in allowed
    assert not {each for each in allowed if each in ("@all", "sentinel") or each.startswith(("sentinel|set", "config"))}


def test_users_of_a_redis_alone_are_as_before():
    users = redis_users.own_users("key", "", sentinel=False)
    assert list(users) == ["default", redis.ADMIN]
    assert users[redis.ADMIN].endswith("+acl|deluser +config|set")
    several = redis_users.own_users("key", "secret", sentinel=False)
    assert "+psync" in several[redis.REPLICATION]
    # Sentinel refuses a file with commands that it does not have.
    assert "flushdb" not in redis_users.own_users("key", "secret", sentinel=True)[redis.ADMIN]


@pytest.mark.parametrize("sentinel", [False, True])
def test_the_hosts_former_password_stays_valid_until_a_rotation_ends(sentinel):
    def rules(password, before=""):
        return redis_users.own_users("key", password, sentinel, before)[redis.REPLICATION]

    first, second = rules("first"), rules("second")
    both = rules("second", before=first)
    assert redis_users.HASH.findall(both) == redis_users.HASH.findall(second + first)
    assert rules("second", before=both) == both, "the next run changes nothing"


def test_a_member_tells_the_password_that_it_logs_in_with(tmp_path):
    text = redis_sentinel.configuration(WANT, "10.0.0.1")
    assert redis_sentinel.passwords_of(text) == {"secret"}
    half = text.replace("sentinel sentinel-pass secret", 'sentinel sentinel-pass "new"')
    assert redis_sentinel.passwords_of(half) == {"secret", "new"}


def test_the_user_of_the_hosts_is_no_applications(tmp_path):
    acl = tmp_path / "acl"
    acl.write_text("user celery-ops-replication on #1 +psync\nuser shop on #2 +select|1\n")
    assert list(redis.acl_users(str(acl))) == ["shop"]


OURS = "bind 0.0.0.0\nmaxmemory 64mb\naclfile /etc/redis/acl\nmasterauth secret\nappendonly yes\n"
REDIS_CONF = """bind 127.0.0.1
include /etc/redis/celery-ops.conf
# Generated by CONFIG REWRITE
maxmemory 67108864
aclfile "/etc/redis/acl"
masterauth "secret"
replicaof 10.0.0.1 6379
"""


def test_what_redis_has_added_stays_where_it_says_the_same(tmp_path):
    assert redis.without_contradictions(REDIS_CONF, OURS) == REDIS_CONF
    assert redis.without_contradictions("bind 127.0.0.1\n", OURS) == "bind 127.0.0.1\n"


def test_and_goes_where_it_would_beat_a_change():
    fresh = redis.without_contradictions(REDIS_CONF, OURS.replace("64mb", "128mb"))
    assert fresh == REDIS_CONF.replace("maxmemory 67108864\n", "")


def test_the_role_has_the_name_that_the_modules_use():
    template = Path(__file__).resolve().parents[3] / "roles/result_store/templates/replication.conf.j2"
    assert f"masteruser {redis.REPLICATION}\n" in template.read_text()
