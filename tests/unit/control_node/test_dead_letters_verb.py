"""plugin_utils/dead_letters.py: what dead_letters.yml asks the application's command, and what it refuses."""

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.dead_letters import dead_letters


def of(what="list", check_mode=False, **given):
    known = {"task": "", "id": "", "queue": "", "reason": "", "max": 0, "confirm": "", **given}
    return dead_letters(
        {
            "celery_app_name": "shop", "celery_app_module": "shop.app", "celery_app_dead_letters": what,
            "ansible_check_mode": check_mode,
            **{f"celery_app_dead_letters_{name}": value for name, value in known.items()},
        }
    )  # fmt: skip


def test_the_command():
    words = of("replay", task="shop.add; rm", id=7, queue="mail box", reason="rejected", max="3")["words"]
    assert words == [
        *("celery-ops-dead-letters", "replay", "-A", "shop.app", "--queue", "shop.dead"),
        *("--task", "shop.add; rm", "--id", "7", "--from-queue", "mail box"),
        *("--reason", "rejected", "--max", "3", "--confirm", ""),
    ]


def test_a_release_of_an_earlier_version_is_not_told_an_option_that_it_does_not_know():
    assert "--from-queue" not in of()["words"]


def test_check_mode_only_lists():
    found = of("discard", check_mode=True)
    assert found["wrong"] == "" and found["words"][1] == "list"


def test_discarding_is_confirmed():
    found = of("discard")
    assert "nothing was discarded" in found["wrong"] and "-e celery_app_dead_letters_confirm=yes" in found["wrong"]
    assert found["words"] == []
    assert of("discard", confirm="yes")["words"][-2:] == ["--confirm", "yes"]


@pytest.mark.parametrize("most", ["ten", "-1", "1.5", ""])
def test_what_is_no_number_means_not_all(most):
    assert f"celery_app_dead_letters_max is {most!r}" in of("discard", confirm="yes", max=most)["wrong"]
