"""What makes the kit fast does so: each way beside another one, in turns on the same host, so that its load meets both.

The bench measures the same with more care (bench/README.md). What is asked here leaves room for a busy machine, and is
beyond what is reached without the feature.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from statistics import median

import pytest
from support.host import Host
from throughput import DEFAULTS, KIT, SHORT, Bench, bench_on
from volumes import ON_HOST

pytestmark = [pytest.mark.only_on("bare"), pytest.mark.timeout(300)]  # RabbitMQ 3.10: the oldest


@pytest.fixture(scope="module")
def bench(host: Host) -> Iterator[Bench]:
    with bench_on(host) as bench:
        yield bench


def test_many_confirmed_messages_cost_less_than_as_many_unconfirmed_one_by_one(bench):
    """In the publisher's CPU: beside unconfirmed messages, time depends on who of both gets the processor."""
    many, confirmed, unconfirmed = bench.by_turns(
        2,
        ("publish", KIT, {"how": "many", "number": 2000}),
        ("publish", KIT, {"how": "each", "number": 500}),
        ("publish", DEFAULTS, {"how": "each", "number": 2000}),
    )
    assert many["cpu_us"] < 1.1 * unconfirmed["cpu_us"], (many, unconfirmed)
    assert many["rate"] > 1.5 * confirmed["rate"], (many, confirmed)


def test_acknowledgements_in_batches_spare_the_broker_work(bench):
    """In the broker's CPU, for a worker with messages ahead."""
    batches, single = bench.by_turns(1, ("drain", SHORT, {}), ("drain", SHORT | {"single": True}, {}))
    assert batches["us_broker"] < 0.75 * single["us_broker"], (batches, single)


def test_an_array_is_a_result_faster_than_pickled_and_than_lists(host):
    said = host.output(host.in_release("python - quick"), stdin=ON_HOST.read_text())
    times = {way: median(samples) for way, samples in json.loads(said.splitlines()[-1])["forms"].items()}
    assert times["arrays"] < 0.6 * times["pickle"], times
    assert times["arrays_by_lists"] < times["lists"] / 5, times
