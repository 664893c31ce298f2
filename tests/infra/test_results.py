"""What is in the result store is there after a restart of Redis."""

from __future__ import annotations

import pytest

ASK = "python -c 'import os, redis; store = redis.Redis.from_url(os.environ[\"CELERY_RESULT_BACKEND\"]); {}'"


def test_what_was_stored_in_a_transaction_survives_a_restart_of_redis(host):
    """As the parts of a chord are; and on a primary with replicas, every result."""
    if not host.has_systemd:
        pytest.skip("restarted by systemd")
    write = 'store.pipeline().set("kept-a", 1, ex=300).set("kept-b", 2, ex=300).execute()'
    host.output(host.in_release(ASK.format(write)))
    host.output("systemctl restart redis-server")
    read = 'store.ping(); print(store.mget("kept-a", "kept-b"))'
    assert host.output(host.in_release(ASK.format(read))).splitlines()[-1] == "[b'1', b'2']"
