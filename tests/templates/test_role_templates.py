"""Every other template of the roles: it renders from the defaults and says who manages the file."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
import yaml
from ansible.template import trust_as_template

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted(ROOT.glob("roles/*/templates/*.j2"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: f"{path.parts[-3]}/{path.name}")
def test_it_renders_from_the_defaults(template, render):
    text = render(template, item="shop")  # of those that are rendered for each of several
    assert "Ansible managed" in text
    assert text.endswith("\n")
    for left_over in ("{{", "{%", "None", "Undefined"):
        assert left_over not in text


def test_systemd_leaves_supervisord_time_for_warm_stops(render):
    unit = configparser.ConfigParser(strict=False)  # an option may be there twice in a unit
    unit.optionxform = str
    unit.read_string(render(ROOT / "roles/supervisor/templates/dropin.conf.j2", supervisor_stop_timeout=7200))
    assert unit["Service"]["KillMode"] == "process"
    assert unit["Service"]["TimeoutStopSec"] == "7200"


@pytest.mark.parametrize(
    ("from_kit", "programs", "left_alone"),
    [
        ([], ["/etc/supervisor/conf.d/crm.conf"], True),
        ([], [], False),
        (["supervisor"], ["/etc/supervisor/conf.d/crm.conf"], False),
    ],
    ids=["others were there before", "nobody uses it", "others came later"],
)
def test_a_supervisor_that_was_there_before_and_runs_programs_of_others_keeps_what_they_have(
    from_kit, programs, left_alone, evaluate, render
):
    users = {"__supervisor_users": {"from_kit": from_kit, "foreign_programs": programs}}
    # With it go the mode of its socket, and the restart for that.
    assert evaluate("__supervisor_is_shared", **users) is left_alone
    unit = render(ROOT / "roles/supervisor/templates/dropin.conf.j2", **users)
    assert ("NoNewPrivileges" not in unit) is left_alone
    assert "KillMode=process" in unit


def test_the_packages_of_the_inventory_are_installed_with_the_applications_own(evaluate):
    (_, install) = yaml.safe_load((ROOT / "roles/celery/tasks/install.yml").read_text())
    names = trust_as_template(install["celery_ops.kit.host_state"]["steps"][0]["packages"])
    wanted = evaluate("wanted", wanted=names, celery_app_packages=["libpq-dev"])
    assert wanted == ["python3-venv", "ca-certificates", "libpq-dev"]


def test_a_full_redis_takes_results_and_not_the_locks_that_an_application_uses(render):
    """RedBeat's lock lives for a minute and is renewed all the time; volatile-ttl takes it before any result."""
    conf = render(ROOT / "roles/result_store/templates/celery-ops.conf.j2")
    assert "maxmemory 1024mb\n" in conf and "maxmemory-policy volatile-lru\n" in conf


def test_a_broker_under_its_hosts_name_registers_by_loopback_and_is_found_at_its_address(render):
    template = ROOT / "roles/rabbitmq/templates/epmd.conf.j2"
    listens = [line for line in render(template, rabbitmq_distribution_bind="10.0.0.5").splitlines() if "4369" in line]
    assert listens == ["ListenStream=10.0.0.5:4369", "ListenStream=127.0.0.1:4369"]
    assert render(template).count(":4369") == 1


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("cookie", ["none", "same", "other"])
def test_the_cookie_of_a_run_that_ended_before_the_package_was_there_is_no_obstacle(cookie, user, evaluate):
    """Its package brings the user that owns it, and gives the file to it."""
    tasks = yaml.safe_load((ROOT / "roles/rabbitmq/tasks/cluster.yml").read_text())
    [copy] = [task["ansible.builtin.copy"] for task in tasks if "ansible.builtin.copy" in task]
    node = {"info": {"cookie": cookie, "user": user}}
    for key in ("owner", "group"):
        wanted = evaluate("wanted", wanted=trust_as_template(copy[key]), __rabbitmq_node=node, omit="nobody's")
        assert wanted == ("rabbitmq" if user else "nobody's")


def test_a_node_speaks_tls_with_others_and_a_broker_that_is_alone_is_left_as_it_is(render):
    template = ROOT / "roles/rabbitmq/templates/rabbitmq-env.conf.j2"
    nodes = [{"name": "rabbit@a", "address": "10.0.0.1"}]
    alone = render(template)
    assert alone == render(template, rabbitmq_distribution_tls=True)
    assert alone.splitlines()[-3:] == [
        "NODENAME=rabbit@localhost",
        "export ERL_EPMD_ADDRESS=127.0.0.1",
        'SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"',
    ]
    clear, tls = (render(template, rabbitmq_cluster_nodes=nodes, rabbitmq_distribution_tls=on) for on in (False, True))
    assert "inet_tls" not in clear
    words = "-proto_dist inet_tls -ssl_dist_optfile /etc/rabbitmq/celery-ops-internode.config"
    assert f' -aten poll_interval 1000 {words}"\n' in tls
    assert f'\nCTL_ERL_ARGS="{words}"\n' in tls
    shown = render(ROOT / "roles/rabbitmq/templates/internode.config.j2", rabbitmq_cluster_nodes=nodes)
    assert shown.count("verify_peer") == 2
    assert "{fail_if_no_peer_cert, true}" in shown


@pytest.mark.parametrize("verify", [True, False])
def test_the_services_ask_clients_for_a_certificate_where_the_inventory_says_so(verify, render):
    given = {"rabbitmq_tls_certificate": "hub.crt", "result_store_tls_certificate": "hub.crt"}
    given |= {"rabbitmq_tls_verify_clients": verify, "result_store_tls_verify_clients": verify}
    broker, store = (
        render(ROOT / f"roles/{role}/templates/celery-ops.conf.j2", **given).splitlines()
        for role in ("rabbitmq", "result_store")
    )
    assert f"ssl_options.verify = verify_{'peer' if verify else 'none'}" in broker
    assert ("ssl_options.fail_if_no_peer_cert = true" in broker) is verify
    assert f"tls-auth-clients {'yes' if verify else 'no'}" in store
