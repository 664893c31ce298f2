"""Two applications on one host: each has its own, and what is taken away is taken from one of them."""

import re
import shlex
import subprocess

import pytest
from support.control import play
from support.load import Load
from support.wait import wait_until

pytestmark = pytest.mark.timeout(600)
PETCT = "petct"
YES = {"uninstall_confirm": "yes"}
# What apt, dpkg, systemd, Ansible's login and every boot leave.
# The stamps .updated are of systemd, a moment after a machine has booted.
REMAINS = re.compile(
    r"/((etc|var)/\.updated|tmp|root/\.ansible|run|var/cache|var/log|var/tmp|var/lib/(apt|dpkg|systemd|dbus))(/|$)"
)


def redis(host, *commands):
    """What Redis answers to an application's commands, given in its own database."""
    script = (
        "import os, sys, urllib.parse as u; a = u.urlsplit(os.environ['CELERY_RESULT_BACKEND']); "
        "os.environ['REDISCLI_AUTH'] = a.password; "
        "os.execvp('redis-cli', ['redis-cli', '--user', a.username, '--no-auth-warning', '-n', a.path[1:]])"
    )
    text = shlex.quote("\n".join(commands) + "\n")
    return host.ask(f"printf %s {text} | {host.app} python -c {shlex.quote(script)} 2>&1")


def python(host, code):
    """What code of an application prints, with its environment and as its user."""
    return host.ask(f"{host.app} python -c {shlex.quote(code)} 2>&1")


def own(host):
    """What an application has on the shared services."""
    app = host.app
    return {
        "queues": sorted(
            re.findall(r"^\S+\tquorum$", host.ask(f"rabbitmqctl -q list_queues -p {app} name type"), re.M)
        ),
        "user": re.findall(rf"^{app}\s.*$", host.ask("rabbitmqctl -q list_users"), re.M),
        "permissions": host.ask(f"rabbitmqctl -q list_user_permissions {app}"),
        "acl": re.findall(rf"^user {app} .*$", host.ask("cat /etc/redis/celery-ops.acl"), re.M),
        "environment": host.ask(f"sha256sum /etc/{app}/env"),
    }


@pytest.fixture(scope="module")
def both(petct, shop):
    """A key of each, in its own database."""
    assert redis(petct, "SET mine petct", "KEYS mine") == "OK\nmine"
    assert redis(shop, "SET mine shop", "GET mine") == "OK\nshop"


def test_no_inventory_takes_the_services_options_away_from_the_other(both, petct, inventory):
    options = "cat /etc/rabbitmq/conf.d/*.conf /etc/redis/celery-ops.conf"
    before, services = petct.output(options), petct.services()
    assert "consumer_timeout = 200000000" in before, "the shop's, which was set up later"
    run = play("site", options=["--tags", "rabbitmq,result_store"])
    assert (run.rc, set(run.changed.values())) == (0, {0}), run.text[-6000:]

    refused = inventory.play("site", rabbitmq_bind="0.0.0.0", result_store_bind="0.0.0.0")
    assert (refused.rc, refused.changed[petct.name]) == (2, 0)
    for variable, service in (("rabbitmq_bind", "RabbitMQ"), ("result_store_bind", "Redis")):
        assert f"{variable} is 0.0.0.0, and petct of this kit, on the same {service}, has 127.0.0.1." in refused.words
    assert (petct.output(options), petct.services()) == (before, services)


@pytest.mark.parametrize(
    "command",
    [
        "SELECT 1", "SWAPDB 1 2", "MOVE mine 1", "COPY mine other DB 1", "FLUSHALL", "PSUBSCRIBE *", "PUBSUB CHANNELS",
        "CLIENT TRACKING ON BCAST", "FUNCTION LIST", "SCRIPT FLUSH", "CONFIG GET *", "ACL LIST", "MONITOR",
        "EVAL \"redis.call('SELECT', 1)\" 0",
    ],
)  # fmt: skip
def test_an_application_has_no_command_that_reaches_anothers_results(both, petct, shop, command):
    assert re.search("NOPERM|can't run this command|has no permissions to run", redis(shop, command))
    assert redis(petct, "GET mine") == "petct"


def test_it_lists_and_clears_its_own_results_only(both, petct, shop):
    assert redis(shop, "SET a 1", "FLUSHDB", "KEYS *", "DBSIZE").split() == ["OK", "OK", "0"]
    assert redis(petct, "GET mine") == "petct"
    assert redis(shop, "SET mine shop", "SCAN 0", "EVAL \"return redis.call('GET', 'mine')\" 0").endswith("shop")


def test_what_stands_in_the_database_that_connections_begin_in_is_nobodys(petct, shop):
    for host in (petct, shop):
        assert re.search(r"^# Keyspace\s+db[12]:", redis(host, "INFO keyspace"))


def test_celerys_backend_and_djangos_cache_work_in_it(both, petct, shop):
    code = (
        "from celery import Celery; import os, uuid\n"
        "b = Celery('x', backend=os.environ['CELERY_RESULT_BACKEND']).backend; i = str(uuid.uuid4())\n"
        "b.store_result(i, 5, 'SUCCESS'); print(b.get_result(i)); b.forget(i)\n"
    )
    assert python(shop, code) == "5"
    code = (
        "import os, django; from django.conf import settings\n"
        "backend = {'BACKEND': 'django.core.cache.backends.redis.RedisCache', "
        "'LOCATION': os.environ['CELERY_RESULT_BACKEND'].partition('?')[0]}\n"
        "settings.configure(CACHES={'default': backend}); django.setup()\n"
        "from django.core.cache import cache as c\n"
        "c.set('k', 7); print(c.get('k')); c.clear(); print(c.get('k'))\n"
    )
    assert python(petct, code) == "7\nNone"
    assert redis(shop, "GET mine") == "shop"
    redis(petct, "SET mine petct")


def test_uninstall_of_one_application_takes_nothing_from_the_other(both, petct, shop):
    host, before = petct, petct.running()
    kept, theirs = own(shop), {name: pid for name, pid in before.items() if not name.startswith(f"{PETCT}-")}
    assert {name.partition("-")[0] for name in theirs} == {"shop", "crm"}
    assert all(kept.values()), kept
    services = host.services()
    loads = [Load(shop), Load(petct)]
    for load in loads:
        wait_until(load.begun, 30, f"tasks of {load.host.app}")

    refused = play("uninstall", **YES, uninstall_services="yes")
    assert refused.rc != 0
    for what in (
        "application shop of this kit", "RabbitMQ: vhost shop", "RabbitMQ: user shop", "Redis: user shop",
        "Supervisor: programs of application shop", "Supervisor: /etc/supervisor/conf.d/crm.conf",
        "uninstall.yml -e uninstall_services=no",
    ):  # fmt: skip
        assert what in refused.words
    assert refused.changed == {host.name: 0}
    assert host.running() == before
    books = loads[1].finish()
    assert (books["lost"], books["doubled"]) == ([], []), books

    run = play("uninstall", **YES)
    assert run.rc == 0, run.text[-6000:]
    assert "/srv/petct, /etc/petct" in run.words and "RabbitMQ, Redis and Supervisor stay" in run.words
    assert host.running() == theirs
    assert own(shop) == kept
    assert host.services() == services
    assert redis(shop, "GET mine") == "shop"
    books = loads[0].finish()
    assert (books["lost"], books["doubled"]) == ([], []), books
    assert books["confirmed"] > 50

    assert host.ask("ls -d /srv/petct /etc/petct /var/log/petct /var/lib/petct /run/petct 2>/dev/null") == ""
    assert host.ask("getent passwd petct; ls /etc/supervisor/conf.d | grep petct") == ""
    assert PETCT not in host.output("rabbitmqctl -q list_vhosts; rabbitmqctl -q list_users")
    assert "user petct" not in host.output("cat /etc/redis/celery-ops.acl")
    assert re.findall(r"^db\d+:", redis(shop, "INFO keyspace"), re.M) == ["db2:"]

    again = play("uninstall", **YES)
    assert (again.rc, again.changed) == (0, {host.name: 0}), again.text[-3000:]


def test_the_services_go_with_the_last_of_their_users(shop, inventory):
    host = shop
    refused = inventory.play("uninstall", **YES, uninstall_services="yes")
    assert refused.rc != 0
    assert "Supervisor: /etc/supervisor/conf.d/crm.conf" in refused.words
    assert "application" not in refused.words.partition("would remove:")[2].partition("To remove")[0]
    host.ask("rm /etc/supervisor/conf.d/crm.conf; supervisorctl update")

    run = inventory.play("uninstall", **YES, uninstall_services="yes")
    assert run.rc == 0, run.text[-6000:]
    assert (
        host.ask("ps -e -o stat=,args= | grep -v ^Z | grep -E '[b]eam.smp|[r]edis-serv|[s]upervisord|[e]pmd|[c]elery'")
        == ""
    )
    changes = subprocess.run(["docker", "diff", host.name], capture_output=True, text=True, check=True).stdout
    left = [line for line in changes.splitlines() if line[0] != "C" and not REMAINS.match(line[2:])]
    assert left == [], "the machine is as it was"
    assert host.ask("ls -d /run/celery-ops /run/shop /var/log/shop /var/cache/celery-ops 2>/dev/null") == ""
