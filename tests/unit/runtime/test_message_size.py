"""How much a broker takes in one message."""

from __future__ import annotations

import pytest
from celery_ops.worker.message_size import limit


@pytest.mark.parametrize(
    ("product", "version", "most"),
    [
        ("RabbitMQ", "3.10.8", 128 * 2**20),
        ("RabbitMQ", "4.0.5", 16 * 2**20),
        ("RabbitMQ", "5.1.0+rc1", 16 * 2**20),
        ("RabbitMQ", "None", 0),
        ("LavinMQ", "2.1.0", 0),
    ],
)
def test_limit(product, version, most, monkeypatch):
    monkeypatch.delenv("CELERY_OPS_MAX_MESSAGE_BYTES", raising=False)
    assert limit(product, version) == most
    monkeypatch.setenv("CELERY_OPS_MAX_MESSAGE_BYTES", "1000")
    assert limit(product, version) == 1000
