"""Where a host reaches what listens on it."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.addresses import own_address


@pytest.mark.parametrize(
    ("bind", "at"),
    [
        ("", "127.0.0.1"),
        (None, "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
        ("0:0::0", "::1"),
        ("::1", "::1"),
        ("10.0.0.5", "10.0.0.5"),
        ("2001:db8::5", "2001:db8::5"),
        ("localhost", "localhost"),
    ],
)
def test_all_addresses_are_reached_on_loopback_and_a_single_one_at_itself(bind, at):
    assert own_address(bind) == at
