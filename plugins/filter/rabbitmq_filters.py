"""Jinja filters for RabbitMQ."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable

from ansible.errors import AnsibleFilterError


def rabbitmq_password_hash(password: str, salt: str) -> str:
    """Return the password as RabbitMQ stores it: base64 of the salt and the SHA-256 of salt and password.

    `salt` is 8 hex digits (4 bytes). It has to be kept with the password, or each run makes another hash.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{8}", str(salt)):
        raise AnsibleFilterError(f"rabbitmq_password_hash: the salt must be 8 hex digits, not {salt!r}.")
    if not password:
        raise AnsibleFilterError("rabbitmq_password_hash: the password is empty.")
    prefix = bytes.fromhex(salt)
    return base64.b64encode(prefix + hashlib.sha256(prefix + str(password).encode()).digest()).decode()


class FilterModule:
    """Tells Ansible what is here."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"rabbitmq_password_hash": rabbitmq_password_hash}
