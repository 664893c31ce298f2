"""plugin_utils/tasks.py: what of tasks.yml is refused by its variable's name, and what is told of it."""

import base64
import json
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.celery_ops.kit.plugins.module_utils.delayed import LOOKED, tasks_of
from ansible_collections.celery_ops.kit.plugins.module_utils.task_lists import Chosen
from ansible_collections.celery_ops.kit.plugins.plugin_utils.tasks import by_queue, tasks

ROOT = Path(__file__).resolve().parents[3]
ID = "0c4e0d3e-4f0e-4c38-9d0a-6f1c7c1f0a11"
WORKER = {
    "program": "worker-a", "generation": "shop-worker-a-11111111", "release": "r1", "time": 1000.0, "left_out": 0,
    "running": [{"id": "own id: 7", "name": "shop.add", "root": "7", "since": 990.0}], "waiting": [], "scheduled": [],
}  # fmt: skip


def of(workers=(WORKER,), **given):
    lists = {"__celery_app_tasks": {"workers": [*workers], "time": 1000.0}}
    return tasks(
        {
            "celery_app_tasks": "list", "celery_app_tasks_id": "", "celery_app_tasks_name": "",
            "celery_app_tasks_program": "", "celery_app_tasks_arguments": False, "celery_app_tasks_signal": "SIGTERM",
            "celery_app_tasks_rate": "", "celery_app_tasks_limit": 0, "celery_app_module": "shop",
            "ansible_check_mode": False, "ansible_play_hosts_all": ["w1", "lost"],
            "hostvars": {"w1": lists, "lost": {}},
            **{f"celery_app_{name}": value for name, value in given.items() if not name.startswith("__")},
            **{name: value for name, value in given.items() if name.startswith("__")},
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tasks": "revok"}, "celery_app_tasks: 'revok' is none of list, revoke"),
        ({"tasks": "revoke"}, "celery_app_tasks_id: name the task to revoke"),
        ({"tasks": "revoke", "tasks_id": ID[:8]}, f"celery_app_tasks_id: '{ID[:8]}' is a part of an id"),
        ({"tasks": "terminate", "tasks_id": f"{ID},shop.add"}, "'shop.add' is not the id of a task that a worker has"),
        ({"tasks": "terminate", "tasks_id": ID, "tasks_signal": "9"}, "celery_app_tasks_signal: '9' is not a signal"),
        ({"tasks": "rate_limit", "tasks_rate": "1/m"}, "celery_app_tasks_name: write the name of one task"),
        ({"tasks": "rate_limit", "tasks_name": "a", "tasks_rate": "1 a minute"}, "celery_app_tasks_rate: '1 a minute'"),
        ({"tasks": "time_limit", "tasks_name": "shop.*", "tasks_limit": 9}, "celery_app_tasks_name: write the name"),
        ({"tasks": "time_limit", "tasks_name": "a", "tasks_limit": 1}, "celery_app_tasks_limit: 1 is not a limit"),
        ({"tasks": "time_limit", "tasks_name": "a", "tasks_limit": "soon"}, "tasks_limit: soon is not a limit"),
        ({"tasks_program": "worker-b"}, "no worker is called 'worker-b'. Available: worker-a"),
        ({"tasks_arguments": "maybe"}, "celery_app_tasks_arguments: 'maybe' is neither true nor false"),
    ],
)
def test_refused(given, said):
    found = of(**given)
    assert said in found["wrong"]
    assert (found["note"], found["words"], found["text"]) == ([], [], "")


@pytest.mark.parametrize("one", [ID, "own id: 7", "order_4711", "shop@4711:retry/2"])
def test_ids_of_any_form(one):
    assert of(tasks="revoke", tasks_id=one)["note"] == ["celery-ops-tasks", "note", "--id", one]


def test_commands():
    assert of(tasks="terminate", tasks_id=f"{ID}, order_1")["words"] == [
        *("celery-ops-tasks", "terminate", "-A", "shop", "--id", ID, "--id", "order_1", "--signal", "SIGTERM"),
    ]
    assert of(tasks="rate_limit", tasks_name="a", tasks_rate="0")["words"][-4:] == ["--name", "a", "--rate", "0"]
    assert of(tasks="time_limit", tasks_name="a", tasks_limit=60)["words"][-4:] == ["--hard", "60", "--soft", "54"]
    assert of(tasks="time_limit", tasks_name="a", tasks_limit=1234567)["words"][-3] == "1234567"
    assert of()["words"] == ["celery-ops-tasks", "ask", "-A", "shop"]
    assert of(tasks_arguments=True)["words"][-1] == "--arguments"
    assert of(tasks_arguments="false")["words"] == of()["words"], "as -e gives it"


def test_the_list_says_what_the_broker_says_and_why_it_says_nothing():
    answer = {"rc": 0, "stdout": json.dumps({"delayed": [[512, 10], [8192, 2]], "arguments": {}})}
    text = of(__celery_app_tasks_asked=answer)["text"]
    assert "10 s  shop.add  own id: 7  w1 worker-a  release r1" in text
    assert "SCHEDULED in the broker: 12: 10 due within 9 min, 2 due within 2 h\n  for which queues, and" in text
    down = of(__celery_app_tasks_asked={"rc": 1, "stderr_lines": ["celery-ops-tasks: connection refused"]})["text"]
    assert "RUNNING: 1" in down
    assert "SCHEDULED in the broker: not known (celery-ops-tasks: connection refused). Look: " in down


def test_a_host_without_a_worker_is_named_and_no_program_is_wrong_there():
    text = of(workers=(), tasks_program="worker-b", __celery_app_tasks_asked={"rc": 1, "msg": "no broker"})["text"]
    assert "RUNNING: 0" in text
    assert "w1: no worker runs. Look: ansible-playbook playbooks/status.yml" in text


def test_the_outcome_names_who_did_not_answer():
    sent = {"stdout": json.dumps({"answers": {}})}
    lines = of(tasks="revoke", tasks_id=ID, __celery_app_tasks_sent=sent)["text"].split("\n")
    assert lines[0].startswith("No answer from w1 worker-a")
    assert lines[-1] == f"revoke {ID}: 0 of 1 workers answered"
    sent = {"stdout": json.dumps({"answers": {"shop-worker-a-11111111@w1": {"ok": "x"}}})}
    lines = of(tasks="rate_limit", tasks_name="a", tasks_rate="1/m", __celery_app_tasks_sent=sent)["text"].split("\n")
    assert "{'a': {'rate_limit': '1/m'}}" in lines[0]
    assert lines[-1] == "rate_limit a to 1/m: 1 of 1 workers answered"


def answer(*levels):
    coded = [[[base64.b64encode(part.encode()).decode() for part in row] for row in level] for level in levels]
    return f"warning\nanswer {base64.b64encode(json.dumps(coded).encode()).decode()}\nok\n"


def row(queue, number, eta):
    return [f"{'0.' * 27}1.{queue}", f"id-{number}", "shop.add", eta]


def test_what_waits_in_delay_queues_is_told_by_queue_with_the_next_one():
    first = [row("shop", 1, "2026-11-26T18:00:05+00:00"), row("mail.out", 2, "2026-11-26T19:30:00+01:00")]
    found = tasks_of(answer([], first, [row("shop", 3, "2026-11-26T19:00:01+01:00"), row("shop", 4, "odd\x1b")]))
    assert found["tasks"][1] == {
        "queue": "mail.out", "id": "id-2", "name": "shop.add", "eta": "2026-11-26T19:30:00+01:00",
    }  # fmt: skip
    assert by_queue(found, Chosen()) == [
        "  for mail.out: 1, the next at 2026-11-26T19:30:00+01:00: shop.add id-2",
        "  for shop: 3, the next at 2026-11-26T19:00:01+01:00: shop.add id-3",
    ]
    assert by_queue(found, Chosen(id="id-1")) == ["  for shop: 1, the next at 2026-11-26T18:00:05+00:00: shop.add id-1"]
    assert found["tasks"][3]["eta"] == "odd?"


def test_what_can_not_be_seen_of_delay_queues_is_said():
    full = tasks_of(answer([row("shop", 1, "2026-11-26T18:00:05+00:00")] * LOOKED))
    assert by_queue(full, Chosen())[-1] == "  Of each delay queue its first 50 were looked at; there are more."
    [said] = by_queue({"msg": "the broker on this host does not report it: rabbitmqctl eval: timeout\nmore"}, Chosen())
    assert said == (
        "  for which queues, and when, can't be seen: "
        "the broker on this host does not report it: rabbitmqctl eval: timeout"
    )
    assert "somebody else's" in by_queue({"tasks": [], "more": False}, Chosen())[0]
    with pytest.raises(ValueError, match="no answer"):
        tasks_of("Error: no")


@pytest.mark.parametrize("brokers", [[], ["b1", "b2"]])
def test_where_no_broker_is_a_host_of_the_inventory_the_list_goes_without_a_look_into_it(brokers):
    # Ansible evaluates the host of a task that is skipped, too.
    entries = yaml.safe_load((ROOT / "roles/celery/tasks/tasks.yml").read_text())
    host = next(entry["delegate_to"] for entry in entries if "delegate_to" in entry)
    known = {"__celery_app_tasks_brokers": brokers, "inventory_hostname": "w1"}
    assert Templar(DataLoader(), variables=known).template(trust_as_template(host)) == (brokers or ["w1"])[0]
    skipped = of(**{"__celery_app_tasks_asked": {"stdout": ""}, "__celery_app_tasks_delayed": {"skipped": True}})
    assert "shop.add" in skipped["text"]


def test_a_revocation_that_is_kept_is_recorded_although_the_broker_is_away():
    steps = [task["name"] for task in yaml.safe_load((ROOT / "roles/celery/tasks/tasks.yml").read_text())]
    kept, recorded, told = (
        next(number for number, name in enumerate(steps) if name == f"tasks | {step}")
        for step in (
            "Keep the revocations on each host",
            "Record the revocations in the audit log",
            "Send the command to the workers",
        )
    )
    assert kept < recorded < told
