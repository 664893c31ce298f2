"""The ledger's look at a queue: a leader that does not answer in time is no proof that nobody consumes."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor

from support.host import APP
from support.wait import wait_until

STARTED, STOP = f"/run/{APP}/test-ledger-started", f"/run/{APP}/test-ledger-stop"
SAMPLES = f"""
import json, pathlib, time
from celery_ops.ledger import Monitor
from {APP}.celery import app
monitor = Monitor(app.connection_for_write, app.conf.task_default_queue)
monitor.start()
deadline = time.monotonic() + 60
enough = 0
while not 0 < enough <= len(monitor.samples) and time.monotonic() < deadline:
    if monitor.samples:
        pathlib.Path("{STARTED}").touch()
    if not enough and pathlib.Path("{STOP}").exists():
        enough = len(monitor.samples) + 5
    time.sleep(0.1)
print(json.dumps(monitor.samples))
"""
# The queue's leader stands still for a second, as that of a starved broker does.
SUSPEND = f"""
{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{APP}">>, queue, <<"{APP}">>)),
{{Leader, _}} = amqqueue:get_pid(Queue),
erlang:suspend_process(whereis(Leader)),
timer:sleep(1000).
"""


def test_a_leader_that_does_not_answer_is_no_queue_without_a_consumer(host):
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(host.output, host.in_release("python -"), stdin=SAMPLES)
        try:
            wait_until(lambda: host.ask(f"ls {STARTED}"), 30, "the monitor's first sample")
            host.output(f"rabbitmqctl -q eval '{SUSPEND}'")
        finally:
            host.output(f"touch {STOP}")
        samples = json.loads(asked.result())
        host.output(f"rm {STARTED} {STOP}")
    moments = [at for at, _, _ in samples]
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) > 0.9, "it has not stood still"
    assert [consumers for _, consumers, _ in samples if not consumers] == []
