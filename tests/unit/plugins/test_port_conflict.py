"""What a program's log says of a port that is taken."""

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.port_conflict import LAST, taken_port

SAID = (
    "OSError: [Errno 98] Address already in use",
    "[Errno 98] error while attempting to bind on address ('0.0.0.0', 9100): address already in use",
)


@pytest.mark.parametrize("said", SAID)
def test_it_is_told_with_what_to_write_where_an_old_generation_runs(said):
    assert "handover: replace" in taken_port([said, "Bye."], ["shop-worker-default-1a2b3c4d"])
    alone = taken_port([said], [])
    assert "ss -ltnp" in alone and "handover" not in alone


def test_what_a_program_tried_long_before_its_end_tells_nothing():
    assert taken_port([SAID[0], *["other words"] * LAST], ["shop-worker-default-1a2b3c4d"]) == ""
