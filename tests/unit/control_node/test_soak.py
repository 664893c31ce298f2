"""plugin_utils/soak.py: what of soak.yml is refused, its commands, and what is told of the ledger."""

import json

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.soak import soak

COUNTED = {
    "attempted": 80, "confirmed": 79, "lost": [], "doubled": [7], "rerun": 0, "wait_p50": 0.004, "wait_max": 0.05,
    "confirm_p99": 0.01, "stall": 0.06, "standstill": 0.07, "without_consumer": 0, "samples": 40,
}  # fmt: skip


def of(published=None, executed=(), reconciled=None, **given):
    return soak(
        {
            "celery_app_name": "shop", "celery_app_module": "shop.app", "celery_app_stage": "test",
            "celery_app_soak_on_production": "", "celery_app_soak_queue": "shop", "celery_app_soak_rate": 20.0,
            "celery_app_soak_duration": "60", "celery_app_soak_patience": 200,
            **{f"celery_app_{name}": value for name, value in given.items()},
            **({"__celery_app_published": {"stdout": json.dumps({"run": "run-1"})}} if published else {}),
            **({"__celery_app_reconciled": reconciled} if reconciled else {}),
            "ansible_play_hosts_all": ["w1", "w2"],
            "hostvars": {
                host: {"__celery_app_executed": {"stdout": text, "failed": False}}
                for host, text in zip(("w1", "w2"), executed or ("", ""), strict=True)
            },
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stage": "production"}, "20.0 tasks a second for 60 s among your own. Nothing was sent."),
        ({"stage": "production", "soak_on_production": "true"}, "add -e celery_app_soak_on_production=yes"),
        ({"soak_rate": 0}, "celery_app_soak_rate is 0"),
        ({"soak_rate": "201"}, "celery_app_soak_rate is 201, it may be up to 200 tasks a second"),
        ({"soak_rate": "fast"}, "celery_app_soak_rate is fast"),
        ({"soak_duration": 0}, "celery_app_soak_duration is 0, it may be 1 to 3600 seconds"),
        ({"soak_rate": 200, "soak_duration": 251}, "both may make 50,000 tasks"),
        ({"soak_patience": 9}, "celery_app_soak_patience is 9, it may be 10 to 3600 seconds"),
    ],
)
def test_refused(given, said):
    assert said in of(**given)["wrong"]


@pytest.mark.parametrize(
    "given", [{}, {"stage": "production", "soak_on_production": "yes"}, {"soak_rate": "200", "soak_duration": "250"}]
)
def test_allowed(given):
    assert of(**given)["wrong"] == ""


def test_the_commands_as_far_as_the_run_has_come():
    before = of(soak_queue="hot mail")
    assert before["publish"] == [
        *("celery-ops-soak", "publish", "-A", "shop.app", "--queue", "hot mail", "--rate", "20.0", "--duration", "60")
    ]
    assert (before["files"], before["text"]) == ([], "")
    after = of(published=True, executed=("1 began", "2 began\n2 done"))
    assert after["collect"] == ["celery-ops-soak", "collect", "--run", "run-1", "--patience", "200"]
    assert after["reconcile"] == ["celery-ops-soak", "reconcile", "--run", "run-1"]
    assert after["executed"] == "1 began\n2 began\n2 done"
    assert after["files"] == ["/var/lib/shop/ledger/run-1", "/var/lib/shop/ledger/run-1.json"]


def test_what_is_told_of_the_ledger():
    good = of(published=True, reconciled={"rc": 0, "stdout": json.dumps(COUNTED)})["text"]
    assert good == (
        "79 of 80 tasks were confirmed: 0 lost, 1 doubled, 0 run again; waited 0.004 s (median), 0.05 s (longest); "
        "99 of 100 publishes were confirmed within 0.01 s, at most 0.06 s without a confirm, 0.07 s without a task "
        "begun; 0 of 40 samples without a consumer."
    )
    lost = of(published=True, reconciled={"rc": 1, "stdout": json.dumps({**COUNTED, "lost": [3, 5]})})["text"]
    assert lost.endswith("The lost ones: 3, 5. What ran is in /var/lib/shop/ledger/run-1 on every worker host.")


def test_a_release_that_counts_less_and_one_that_could_not_count():
    older = {key: value for key, value in COUNTED.items() if key not in ("confirm_p99", "stall", "standstill")}
    said = of(published=True, reconciled={"rc": 0, "stdout": json.dumps(older)})["text"]
    assert "confirmed within ? s, at most ? s without a confirm, ? s without a task begun" in said
    assert of(published=True, reconciled={"rc": 1, "stdout": "", "msg": "status 1, no ledger"})["text"].endswith(
        "ledger"
    )
