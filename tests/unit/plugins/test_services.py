"""Who else uses a host's services: told from what a broker exports, and from real files."""

import base64
import hashlib
import os
import threading
from typing import ClassVar

import pytest
import yaml
from ansible_collections.celery_ops.kit.plugins.module_utils import deploy_lease, host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.files import write_json
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements import broker
from ansible_collections.celery_ops.kit.plugins.module_utils.services import debian, rabbitmq, redis, supervisor
from ansible_collections.celery_ops.kit.plugins.modules import rabbitmq_applications, redis_users, service_users
from support.control import ROOT

FRESH = {
    "vhosts": [{"name": "/"}, {"name": "shop"}],
    "users": [{"name": "guest"}, {"name": "shop"}],
    # The second one is RabbitMQ's own, which exports it since 4.3.
    "exchanges": [{"vhost": "shop", "name": "shop.dead"}, {"vhost": "/", "name": "amq.rabbitmq.log"}],
}
OLD = "on #abc ~* &* +@all -@admin -@dangerous +info"


def test_a_broker_with_one_application_serves_nobody_else():
    assert rabbitmq.vhosts_and_users("shop", FRESH, {"/": []}) == []


@pytest.mark.parametrize(
    ("more", "queues", "found"),
    [
        ({}, {"/": [{"name": "q", "messages": 3}]}, "RabbitMQ: vhost / (1 queue, 3 messages)"),
        ({}, {"/": [], "crm": []}, "RabbitMQ: vhost crm (0 queues, 0 messages)"),
        ({}, {"/": [], "crm": [{"name": "q", "messages": None}]}, "RabbitMQ: vhost crm (1 queue, 0 messages)"),
        ({"users": [{"name": "guest"}, {"name": "crm"}]}, {"/": []}, "RabbitMQ: user crm"),
        ({"policies": [{"vhost": "/", "name": "ha"}]}, {"/": []}, "RabbitMQ: vhost / (policies)"),
        ({"exchanges": [{"vhost": "/", "name": "mail"}]}, {"/": []}, "RabbitMQ: vhost / (exchanges)"),
    ],
)
def test_every_queue_vhost_user_and_policy_of_others_is_named(more, queues, found):
    assert rabbitmq.vhosts_and_users("shop", FRESH | more, queues) == [found]


def test_who_logs_in_is_told_from_whatever_else_is_there():
    users = [{"name": "guest"}, {"name": "shop"}, {"name": "crm"}]
    queues = {"/": [], "mail: user": []}
    assert len(rabbitmq.vhosts_and_users("shop", FRESH | {"users": users}, queues)) == 2
    assert rabbitmq.logins("shop", FRESH | {"users": users}) == ["RabbitMQ: user crm"]


CRM = {"user": "shop", "vhost": "crm"}
OWN = {"user": "shop", "vhost": "shop"}


@pytest.mark.parametrize(
    ("of_kit", "more", "found"),
    [
        (True, {"permissions": [OWN]}, []),
        (False, {"permissions": [OWN]}, ["vhost shop", "user shop"]),
        (False, {}, ["vhost shop"]),
        (False, {"vhosts": [{"name": "/"}], "permissions": [CRM]}, ["user shop"]),
        (False, {"vhosts": [{"name": "/"}], "users": [{"name": "shop", "tags": ["administrator"]}]}, ["user shop"]),
        # What an uninstall that was interrupted has left, and nothing at all.
        (False, {"vhosts": [{"name": "/"}]}, []),
        (False, {"vhosts": [{"name": "/"}], "users": []}, []),
    ],
)
def test_a_vhost_or_user_that_only_has_the_name_of_the_application_is_somebody_elses(of_kit, more, found):
    definitions = {**FRESH, "exchanges": FRESH["exchanges"] if of_kit else [], **more}
    assert rabbitmq.namesakes("shop", definitions) == found
    said = "".join(broker.namesakes("shop", definitions))
    assert (" and ".join(found) in said and "Write: celery_app_name: shop_app" in said) if found else not said


def test_a_broker_that_serves_nobody_but_a_namesake_is_in_use(monkeypatch, tmp_path):
    theirs = {**FRESH, "users": [{"name": "shop"}], "permissions": [OWN], "exchanges": []}
    monkeypatch.setattr(rabbitmq, "exported_definitions", lambda: theirs)
    monkeypatch.setattr(rabbitmq, "rows_of", lambda *_, **__: [])
    assert rabbitmq.signs_of_use("shop", str(tmp_path)) == [
        f"RabbitMQ: {each} shop, which is not the kit's" for each in ("vhost", "user")
    ]


class Kept(Exception):
    """What the module answers."""


def test_uninstall_leaves_a_vhost_that_is_not_the_kits():
    class Module:
        check_mode, warned = False, ""

        def warn(self, text):
            self.warned = text

        def exit_json(self, **answer):
            raise Kept(answer["differing"])

    class Broker:
        deleted: ClassVar[list[str]] = []

        def delete(self, command, kind, name):
            self.deleted.append(f"{command} {name}")

    wanted, module, theirs = {"vhosts": [{"name": "shop"}]}, Module(), {**FRESH, "exchanges": []}
    with pytest.raises(Kept, match=r"^\[\]$"):
        rabbitmq_applications.absent(module, Broker(), wanted, theirs)
    assert module.warned == "RabbitMQ: vhost shop: not from this kit, and stays." and Broker.deleted == []
    with pytest.raises(Kept):
        rabbitmq_applications.absent(module, Broker(), wanted, FRESH)
    assert Broker.deleted == ["delete_vhost shop", "delete_user shop"]


def test_the_password_of_a_fresh_guest_is_told_from_another():
    def hashed(password):
        salt = b"1234"
        return base64.b64encode(salt + hashlib.sha256(salt + password).digest()).decode()

    assert rabbitmq.is_password(hashed(b"guest"), "guest")
    assert not rabbitmq.is_password(hashed(b"something else"), "guest")
    assert not rabbitmq.is_password("", "guest")


def test_settings_of_others_are_found_and_comments_are_none(tmp_path):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "rabbitmq-env.conf").write_text("# NODENAME=rabbit\n\n")
    assert rabbitmq.settings_in(tmp_path) == []
    (tmp_path / "conf.d/10-crm.conf").write_text("listeners.tcp.1 = 5673\n")
    assert rabbitmq.settings_in(tmp_path) == [tmp_path / "conf.d/10-crm.conf"]


def test_settings_of_others_beside_redis_own_are_found(tmp_path):
    assert redis.included(tmp_path) == []
    (tmp_path / "post.d").mkdir()
    (tmp_path / "post.d/10-crm.conf").write_text("maxmemory 1gb\n")
    assert redis.included(tmp_path) == [tmp_path / "post.d/10-crm.conf"]


def test_settings_of_others_are_found_whatever_bytes_they_hold(tmp_path):
    for name in ("rabbitmq-env.conf", "redis-crm.conf"):
        (tmp_path / name).write_bytes("# für alle\nNODENAME=crm\n".encode("latin-1"))
    assert rabbitmq.settings_in(tmp_path) == [tmp_path / "rabbitmq-env.conf"]
    assert redis.other_instances(str(tmp_path)) == [f"Redis: another instance, {tmp_path}/redis-crm.conf"]
    assert not redis.is_configured(str(tmp_path / "redis-crm.conf"))


def test_programs_of_others_are_found_by_the_mark_of_the_owner(tmp_path):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "supervisord.conf").write_text("[supervisord]\n[include]\nfiles = conf.d/*.conf\n")
    mine = tmp_path / "conf.d/shop-worker-default-01234567.conf"
    mine.write_text("# owner: celery-ops shop-worker-\n[program:shop-worker-default-01234567]\n")
    assert supervisor.other_programs("shop", str(tmp_path)) == []
    assert supervisor.foreign_programs(str(tmp_path)) == []
    # A name that begins like ours is not ours.
    other = tmp_path / "conf.d/shop-worker-of-somebody.conf"
    other.write_text("[program:shop-worker-of-somebody]\n")
    assert supervisor.other_programs("shop", str(tmp_path)) == [f"Supervisor: {other}"]
    assert supervisor.foreign_programs(str(tmp_path)) == [str(other)]
    assert supervisor.other_programs("sho", str(tmp_path))[0] == "Supervisor: programs of application shop"
    other.unlink()
    (tmp_path / "supervisord.conf").write_text("[supervisord]\n[program:crm]\n")
    assert supervisor.other_programs("shop", str(tmp_path)) == [f"Supervisor: {tmp_path / 'supervisord.conf'}"]


def test_programs_of_others_are_found_wherever_supervisor_reads_them(tmp_path):
    here, elsewhere = tmp_path / "supervisor", tmp_path / "crm"
    for directory in (here / "conf.d", here / "more", elsewhere):
        directory.mkdir(parents=True)
    conf = here / "supervisord.conf"
    conf.write_bytes(f"; für alle\n[include]\nfiles = conf.d/*.conf {elsewhere}/*.ini\n".encode("latin-1"))
    assert supervisor.foreign_programs(str(here)) == []
    theirs, fourth = elsewhere / "crm.ini", here / "more/mail.conf"
    theirs.write_text("[program:crm]\n")
    fourth.write_text("[program:mail]\n")
    assert supervisor.foreign_programs(str(here)) == [str(theirs)]
    assert supervisor.other_programs("shop", str(here)) == [f"Supervisor: {theirs}"]
    conf.write_text("[include]\nfiles = %(here)s/more/*.conf ; and no other\n")
    assert supervisor.foreign_programs(str(here)) == [str(fourth)]
    # What pathlib refuses; and a hidden file is none of its own.
    conf.write_text("[include]\nfiles = more/**.conf # and no other\n")
    fourth.with_name(".old.conf").write_text("[program:old]\n")
    assert supervisor.foreign_programs(str(here)) == [str(fourth)]


def test_all_services_that_the_kit_installed_are_looked_at_before_they_go_together(tmp_path, monkeypatch):
    monkeypatch.setattr(debian, "RECORD", tmp_path / "packages.json")
    assert service_users.to_look_at(["supervisor"], True) == ["supervisor"]
    debian.RECORD.write_text('{"packages": ["erlang-base", "rabbitmq-server", "supervisor"]}')
    assert service_users.to_look_at(["supervisor"], True) == ["rabbitmq", "supervisor"], "another inventory's broker"
    assert service_users.to_look_at(["result_store"], True) == ["rabbitmq", "result_store", "supervisor"]
    assert service_users.to_look_at([], True) == [], "nothing of it is to be removed"
    assert service_users.to_look_at(["supervisor"], False) == ["supervisor"]
    [find, *_] = yaml.safe_load((ROOT / "roles/preflight/tasks/uninstall_check.yml").read_text())
    assert find["celery_ops.kit.service_users"]["to_remove"] is True


def test_nothing_is_removed_while_a_deploy_is_under_way(tmp_path):
    assert service_users.under_way(tmp_path / "none") == service_users.under_way(tmp_path) == ""
    holder = {"id": "1", "who": "anna@control", "what": "deploy", "at": "2026-11-27 10:00:00 UTC"}
    lease = tmp_path / "deploy.lock"
    write_json(lease, deploy_lease.renewed(holder))
    assert service_users.await_rest(tmp_path, 0) == "deploy of anna@control, since 2026-11-27 10:00:00 UTC"
    threading.Timer(0.3, lease.unlink).start()  # a run that ended a moment ago
    assert service_users.await_rest(tmp_path, 20) == ""
    for job, found in (("1", "deploy of anna, phase workers, since 10:00"), ("drain", "")):
        file = host_work.take(tmp_path)
        host_work.Work(file).say(job=job, what="deploy", who="anna", phase="workers", since="10:00")
        assert service_users.under_way(tmp_path) == found
        os.close(file)


def test_rules_of_somebody_elses_firewall_keep_the_package_that_the_kit_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(debian, "RECORD", tmp_path / "packages.json")
    changed = []
    monkeypatch.setattr(debian, "changed_conffile", lambda package, conf: conf in changed)
    debian.RECORD.write_text('{"packages": ["nftables"]}')
    assert debian.other_rules() == []
    changed.append("/etc/nftables.conf")
    assert debian.other_rules() == ["nftables: /etc/nftables.conf is not as the package brought it"]
    debian.RECORD.write_text('{"packages": ["redis-server"]}')
    assert debian.other_rules() == [], "it was there before, and stays"


def test_another_application_is_found_by_its_releases_whether_it_runs_or_not(tmp_path):
    for name in ("shop", "notes"):
        (tmp_path / name / "releases").mkdir(parents=True)
    (tmp_path / "www").mkdir()
    assert supervisor.other_applications("shop", str(tmp_path)) == [
        f"application notes of this kit: {tmp_path}/notes/releases"
    ]


def test_another_redis_of_the_host_is_found_and_the_kits_own_is_none(tmp_path):
    (tmp_path / "redis.conf").write_text("port 6379\n")
    (tmp_path / "redis-celery_ops.conf").write_text("include /etc/redis/celery-ops.conf\ndir /var/lib/redis\n")
    assert redis.other_instances(str(tmp_path)) == []
    (tmp_path / "redis-cache.conf").write_text("port 6400\n")
    assert redis.other_instances(str(tmp_path)) == [f"Redis: another instance, {tmp_path / 'redis-cache.conf'}"]


def test_users_of_the_acl_file_and_their_databases(tmp_path):
    acl = tmp_path / "celery-ops.acl"
    acl.write_text(
        f"user default off\nuser celery-ops on #1 +acl|setuser\nuser old {OLD}\n"
        f"user shop {redis_users.rules_of({'name': 'shop', 'password': 'abc', 'database': 12})}\n"
    )
    users = redis.acl_users(str(acl))
    assert {name: redis.database_of(rules) for name, rules in users.items()} == {"old": 0, "shop": 12}
    assert redis.acl_users(str(tmp_path / "none")) == {}
    assert redis.logins("shop", str(acl)) == ["Redis: user old (database 0)"]


def test_nobody_logs_in_as_the_default_user_which_has_the_rights_to_load_what_was_stored():
    words = redis_users.DEFAULT.split()
    assert words[0] == "off"
    assert {"~*", "&*", "+@all"} <= set(words)
    assert not [word for word in words if word == "nopass" or word.startswith((">", "#"))]


def test_the_lines_of_other_users_stay_as_they_are():
    text = f"user default on\nuser old {OLD}\nuser shop on #1 ~*\n"
    assert redis_users.with_users(text, {"default": "off", "shop": None}) == f"user old {OLD}\nuser default off\n"
    assert redis_users.with_users(text, {"shop": "on #2"}).splitlines()[1:] == [f"user old {OLD}", "user shop on #2"]


def test_a_file_of_the_packages_configuration_that_somebody_changed(tmp_path):
    assert not debian.changed_conffile("base-files", "/etc/debian_version")
    assert not debian.changed_conffile("base-files", str(tmp_path / "none"))


def test_a_redis_beside_which_the_kit_has_its_own_is_not_configured_by_it(tmp_path):
    conf = tmp_path / "redis.conf"
    conf.write_text("port 6379\n")
    assert not redis.is_configured(str(conf))
    conf.write_text("port 6379\ninclude /etc/redis/celery-ops.conf\n")
    assert redis.is_configured(str(conf))


def test_the_keys_of_an_application_go_with_it_unless_another_one_has_the_same_database():
    known = {name: f"on #1 +select|{number}" for name, number in (("shop", 1), ("notes", 2), ("old", 2))}
    assert redis_users.removal("shop", known, ["shop"]) == ["ACL DELUSER shop", "SELECT 1", "FLUSHDB"]
    assert redis_users.removal("notes", known, ["notes"]) == ["ACL DELUSER notes"]
    assert redis_users.removal("notes", known, ["notes", "old"])[1:] == ["SELECT 2", "FLUSHDB"]


@pytest.mark.parametrize(
    "line",
    [
        "Could not connect to Redis at 127.0.0.1:6379: Connection refused",
        "(error) NOAUTH Authentication required.",
        "LOADING Redis is loading the dataset in memory",
    ],
)
def test_redis_that_refuses_is_no_answer_though_its_client_ends_with_0(line):
    assert redis.refusal(["redis_version:7.0.15", line]) == line
    assert redis.refusal(["redis_version:7.0.15", "loading:0"]) == ""
