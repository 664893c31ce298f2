"""What of the host is behind an error that the system or a command reports, and what to type about it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils import disk
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError

CLOCK = re.compile(
    r"Release file .* is (not valid yet|expired)|certificate (is not yet valid|has expired)"
    r"|uses (not yet valid|expired) certificate|signature .*(not yet|created in the future)",
    re.IGNORECASE,
)
"""What apt, OpenSSL, GnuTLS and GnuPG say of times that do not fit the host's clock."""


def of_clock(said: str) -> Iterator[str]:
    """Yield what the host's clock says, and how it is set, where an error may be about that."""
    if CLOCK.search(said):
        now = time.strftime("%Y-%m-%d %H:%M %Z")
        yield f"The clock of this host says {now}. Where that is wrong, type there: timedatectl set-ntp true"


def explained(error: OSError | str) -> str:
    """Return the error, with what of the host is behind it."""
    said = str(error).strip()
    return "\n".join([said, *disk.faults(error), *of_clock(said)])


@contextlib.contextmanager
def reported(module: AnsibleModule, **facts: Any) -> Iterator[None]:
    """Fail the module with what the operator reads, where what is done in it raises OperatorError or OSError."""
    try:
        yield
    except OperatorError as error:
        module.fail_json(msg=str(error), **facts)
    except OSError as error:
        module.fail_json(msg=explained(error), **facts)
