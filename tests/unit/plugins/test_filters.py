"""The kit's Jinja filters."""

import pytest
from ansible_collections.celery_ops.kit.plugins.filter.celery_programs import as_app, own_queues, tick_queue


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python manage.py migrate", ["python", "manage.py", "migrate"]),
        ("bash script.sh", ["bash", "script.sh"]),
        ("env A=1 own", ["env", "A=1", "own"]),
        ("bin/own 'a b'", ["bin/own", "a b"]),
        ("celery-ops-prove -A shop", ["/srv/shop/current/venv/bin/celery-ops-prove", "-A", "shop"]),
    ],
)
def test_a_commands_first_word_is_looked_up_on_the_host(command, words):
    context = {"app": "shop", "release": "/srv/shop/current", "environment_file": "/etc/shop/env"}
    found = as_app(command, context)
    assert found[found.index("/srv/shop/current/app") + 2 :] == words
    assert as_app(" ", context) == []


@pytest.mark.parametrize(
    ("report", "named", "queues"),
    [
        ({"queues": ["celery"], "routes": []}, [None], ["celery"]),
        ({"queues": ["celery", "bills"], "routes": ["bills", "mail"]}, [None], ["celery", "bills", "mail"]),
        ({"queues": ["celery"], "routes": ["mail"]}, [None, ["mail"]], ["celery"]),
        ({"queues": ["celery"], "routes": []}, [None, ["celery"]], ["celery"]),
        ({}, [None], []),
    ],
)
def test_a_program_without_queues_consumes_the_applications_own_that_no_other_names(report, named, queues):
    programs = [{"name": f"p{number}", **({"queues": names} if names else {})} for number, names in enumerate(named)]
    assert own_queues(report, programs) == queues


@pytest.mark.parametrize(
    ("queues", "expected"),
    [
        ([["shop"]], ""),
        ([["mail"], ["shop", "bulk"]], ""),
        ([["mail", "bulk"], ["reports"]], "mail"),
        ([["mail"], None], ""),
        ([], ""),
    ],
    ids=["default", "default of another", "named ones alone", "the application's own", "no program"],
)
def test_ticks_go_to_a_queue_that_a_program_consumes(queues, expected):
    programs = [{"name": f"p{number}", **({"queues": names} if names else {})} for number, names in enumerate(queues)]
    assert tick_queue(programs, "shop") == expected
