"""The status of several hosts as one: text, JSON and its schema."""

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.celery_ops.kit.plugins.action.celery_status_report import NO_FILE, form, output, write
from ansible_collections.celery_ops.kit.plugins.plugin_utils import status_report
from support.statuses import broken, healthy, hostile, worker

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = json.loads((ROOT / "docs/status.schema.json").read_text())
SCHEDULERS = [("web1",)]


DRIFT = [{"host": "web1", "task": "rabbitmq : Limits"}, {"host": "web1", "task": "celery : Link"}]


def document(results: dict[str, Any], drift: Any = None) -> dict[str, Any]:
    return status_report.document(results, SCHEDULERS, "shop", drift)


def lines(results: dict[str, Any], drift: Any = None) -> list[str]:
    return status_report.lines(results, document(results, drift), SCHEDULERS)


def test_a_healthy_fleet_is_ok_on_the_first_line():
    assert document(healthy())["ok"] is True
    assert lines(healthy())[0] == "OK"


def test_problems_come_first_with_their_host_and_what_to_type():
    said = lines(broken())
    assert said[0] == "PROBLEMS:"
    assert "- web1: shop-scheduler-2 was stopped manually. Start it: supervisorctl start shop-scheduler-2" in said
    assert any(line.startswith("- down1: It can't be reached (no route to host).") for line in said)
    assert any(line.startswith("- odd1: Its status can't be read: Traceback") for line in said)
    assert said.index("") > len(document(broken())["problems"])


def test_what_differs_from_the_inventory_is_a_problem_of_its_host_and_nothing_is_said_where_nobody_asked():
    assert lines(healthy(), DRIFT)[:2] == [
        "PROBLEMS:",
        "- web1: It differs from the inventory, site.yml would change: rabbitmq : Limits; celery : Link. "
        "Show it: ansible-playbook playbooks/site.yml --check --diff",
    ]
    assert document(healthy(), DRIFT)["drift"] == DRIFT
    assert lines(healthy(), [])[:2] == ["OK", "drift: none, site.yml would change nothing"]
    assert not any("drift" in line for line in lines(healthy()))


def test_a_comparison_that_failed_is_a_problem_and_no_answer():
    found = document(healthy(), "site.yml in check mode ended with status 2. Look: there")
    assert (found["ok"], found["drift"], found["problems"][0]["fix"]) == (False, None, "Look: there")


def test_flower_is_shown_where_it_belongs_and_what_is_wrong_with_it():
    shown = lines(healthy())
    assert "flower: RUNNING, answers at http://127.0.0.1:5555/, up 1d 1:01:01, memory 50M" in shown
    [one] = [each for each in document(broken())["problems"] if "Flower" in each["problem"]]
    assert one["problem"] == "Flower does not answer at http://127.0.0.1:5555/"
    assert one["fix"].endswith("restart it: supervisorctl restart flower-shop")


def test_a_problem_is_parted_from_what_to_do():
    [one] = [each for each in document(broken())["problems"] if "stopped manually" in each["problem"]]
    assert one == {
        "host": "web1",
        "problem": "shop-scheduler-2 was stopped manually",
        "fix": "Start it: supervisorctl start shop-scheduler-2",
    }


@pytest.mark.parametrize("drift", [None, [], DRIFT, "why not"])
@pytest.mark.parametrize("results", [healthy(), broken(), hostile(), {}], ids=["healthy", "broken", "hostile", "none"])
def test_the_document_is_as_its_schema_says(results, drift):
    jsonschema.validate(json.loads(json.dumps(document(results, drift))), SCHEMA)


def test_the_schema_has_no_field_that_no_document_has():
    """Together with additionalProperties: false, schema and document are equal."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert fields(SCHEMA) == keys(document(healthy(), DRIFT)) | keys(document(broken()))


def fields(schema: dict[str, Any], path: str = "") -> set[str]:
    """All paths of fields in a schema."""
    inner = schema.get("items", schema)
    found = set()
    for name, each in inner.get("properties", {}).items():
        assert each["description"], name
        found |= {f"{path}.{name}"} | fields(each, f"{path}.{name}")
    return found


def keys(value: Any, path: str = "") -> set[str]:
    """All paths of fields in a document; the phases of a deploy are data."""
    if isinstance(value, list):
        return {found for item in value for found in keys(item, path)}
    if not isinstance(value, dict) or path.endswith(".seconds"):
        return set()
    return {found for name, item in value.items() for found in {f"{path}.{name}"} | keys(item, f"{path}.{name}")}


def test_a_clusters_queues_are_there_once_and_those_of_single_brokers_each():
    queue = {"messages": 1, "ready": 1, "unacked": 0, "consumers": 1}
    one = {"app": "shop", "problems": [], "queues": {"shop": queue}}
    cluster = {name: {**one, "cluster": {"rabbit@a": "running", "rabbit@b": "running"}} for name in ("a", "b")}
    assert [each["host"] for each in document(cluster)["applications"][0]["queues"]] == ["a"]
    alone = {name: {**one, "nodes": [{"name": "rabbit@localhost"}]} for name in ("a", "b")}
    assert [each["host"] for each in document(alone)["applications"][0]["queues"]] == ["a", "b"]


def test_a_queue_that_is_paused_on_another_host_is_no_problem_of_the_broker():
    results = broken()
    assert any(one["problem"].startswith("Nothing consumes from shop,") for one in document(results)["problems"])
    one = next(iter(results["web1"]["programs"].values()))
    results["work2"] = {"app": "shop", "problems": [], "programs": {"shop-worker-x-1": {**one, "paused": ["shop"]}}}
    assert not any(one["problem"].startswith("Nothing consumes from shop,") for one in document(results)["problems"])


def test_a_paused_queue_of_another_application_hides_no_problem():
    line = "Nothing consumes from mail, where 3 tasks wait. Look: supervisorctl status"
    [paused] = worker("shop-worker-default-1", paused=["mail"]).values()
    results = {
        "shop1": {"app": "shop", "problems": [], "programs": {"shop-worker-default-1": paused}},
        "pets1": {"app": "pets", "problems": [line]},
    }
    assert [one["host"] for one in document(results)["problems"]] == ["pets1"]


def test_the_queues_of_a_broker_of_somebody_elses_are_there_once_whichever_hosts_ask_it():
    def host(*queues, rate):
        counts = {name: {"messages": 5, "consumers": 2} for name in (*queues, "shop.dead")}
        known = {"app": "shop", "problems": [], "unseen": "its alarms", "queues": counts}
        return {**known, "now": {"shop": {"oldest": 3.0, "rate": rate}}}

    one = document({"a": host("shop", rate=1.0), "b": host("shop", "mail", rate=2.0)})["applications"][0]
    found = [(each["name"], each["host"], each["rate"]) for each in one["queues"]]
    assert found == [("shop", "a", 3.0), ("shop.dead", "a", None), ("mail", "b", None)]
    assert one["dead_lettered"] == 5


def test_what_is_paused_is_said_above_all_else():
    said = lines(broken())
    line = next(line for line in said if line.startswith("paused on web1: queue photos, since "))
    assert line.endswith("by anna@control: disk full")
    assert said.index(line) < next(number for number, each in enumerate(said) if each.startswith("QUEUE"))


def test_a_file_is_written_in_one_step_and_what_is_no_file_is_refused(tmp_path):
    file = tmp_path / "status.json"
    file.write_text("old")
    write(file, "new\n")
    assert file.read_text() == "new\n"
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    os.mkfifo(tmp_path / "pipe")
    link = tmp_path / "link"
    link.symlink_to(file)
    write(link, "newer\n")
    assert (link.is_symlink(), file.read_text()) == (True, "newer\n")
    for path in (Path("-"), Path("/dev/null"), tmp_path, tmp_path / "pipe"):
        with pytest.raises(AnsibleActionFail, match=r"status_output: .* is not a file"):
            write(path, "new")
    with pytest.raises(AnsibleActionFail, match=r"can't be written: No such file or directory\. Name another"):
        write(tmp_path / "missing/status.json", "new")


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ({"status_format": "json"}, "shop-status.json"),
        ({"status_format": "json", "celery_app_status_output": "/x"}, "/x"),
        ({"celery_app_status_format": "html", "status_output": "/y"}, "/y"),
        ({}, ""),
    ],
)
def test_the_command_lines_short_names_count_more_than_the_inventorys(given, file):
    known = {"celery_app_name": "shop", "celery_app_status_format": "text", "celery_app_status_output": "", **given}
    assert output(known, form(known)) == file


def test_a_format_that_there_is_not_is_refused():
    with pytest.raises(AnsibleActionFail, match=r"status_format: 'xml' is not a format\. Write: -e status_format=text"):
        form({"status_format": "xml"})


@pytest.mark.parametrize("path", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_the_output_of_the_command_is_no_file(path):
    assert NO_FILE.fullmatch(path)  # not tried: a file in its place would break the machine
    assert not NO_FILE.fullmatch("/dev/shm/status.json")
