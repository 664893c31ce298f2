"""What Linux starts a program with: variables and arguments over its limits are refused, those under them are not."""

from __future__ import annotations

import resource
import subprocess

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules import environment, programs, variables
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import ARGUMENT, Host

STACK = 8 << 20
"""Bytes; the usual limit, of which a quarter is for arguments and environment."""
LARGE = {f"PART_{number:02}": 120_000 * "x" for number in range(16)}


def starts(environment: dict[str, str]) -> bool:
    """Whether Linux starts a program with these variables."""
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    try:
        subprocess.run(
            ["/bin/true"], env=environment, check=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (STACK, hard)),
        )  # fmt: skip
    except OSError:
        return False
    return True


def refused(app: dict[str, str], secrets: dict[str, str]) -> list[str]:
    """What is said against variables of the application."""
    host = Host("one", {"celery_app_environment": app, "celery_app_secrets": secrets})
    found = [*environment.environment(host), *variables.secrets(host, lambda value: value)]
    return [mistake.text for mistake in found]


@pytest.mark.parametrize("name", ["BLOB", "BLOBS"])
def test_one_variable_is_refused_where_linux_refuses_it(name):
    room = ARGUMENT - len(f"{name}=") - 1
    value = room // 2 * "ü" + room % 2 * "x"  # bytes count, not characters
    for more, fits in (("", True), ("x", False)):
        assert starts({name: value + more}) is fits
        assert (not refused({name: value + more}, {})) is fits
        assert (not refused({}, {name: value + more})) is fits


def test_all_together_are_refused_before_linux_refuses_them():
    rest = environment.MOST_OF_ALL - sum(environment.size_of(*one) + environment.OF_POINTER for one in LARGE.items())
    fill = {"REST": (rest - len("REST=") - 1 - environment.OF_POINTER) * "x"}
    assert refused(LARGE, fill) == refused({**LARGE, **fill}, {}) == refused({}, {**LARGE, **fill}) == []
    assert starts(LARGE | fill)
    more = {"REST": fill["REST"] + "x"}
    (text,) = refused(LARGE, more)
    assert text.startswith(
        f"celery_app_secrets has {environment.size_of(*more.popitem()) + environment.OF_POINTER} bytes, "
    )
    assert f"{environment.MOST_OF_ALL + 1} with celery_app_environment; Linux starts no program" in text
    assert "Write: REST: /path/of/the/file" in text
    assert not starts(LARGE | {f"MORE_{number}": 120_000 * "x" for number in range(3)})


def test_what_is_too_much_is_said_once():
    (text,) = refused(LARGE | {f"MORE_{number}": 120_000 * "x" for number in range(3)}, {"TOKEN": "x"})
    assert text.startswith("celery_app_environment has 228")


def test_queues_are_one_argument():
    names = [f"{number:04}-{200 * 'q'}" for number in range(700)]
    (text,) = programs.queues(names, "shop")
    assert text.startswith("its queues are 144200 bytes together; Linux starts no program with an argument")
    assert not list(programs.queues(names[:600], "shop"))
