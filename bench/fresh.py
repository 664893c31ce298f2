#!/usr/bin/env python3
"""site.yml on a bare host, beside what nobody gets around: apt-get with the same packages, pip with the same lock file.

On a host that nothing was done to yet: Debian 13 of the scenario `default`. Its peer is a container of the same image.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.control import install_environment, play  # noqa: E402
from support.host import Host  # noqa: E402
from tables import Row, write  # noqa: E402

HOST, IMAGE = Host("celery-ops-trixie"), "celery-ops-test:trixie"
PACKAGES = "import json; print(*json.load(open('/var/lib/celery-ops/packages.json'))['packages'])"
PIP = (
    "python3 -m venv /tmp/bench-pip && /tmp/bench-pip/bin/pip install -q --disable-pip-version-check -r /tmp/bench.txt"
)


@contextlib.contextmanager
def another() -> Iterator[Host]:
    """A container of the same image."""
    name = f"{HOST.name}-plain"
    subprocess.run(["docker", "run", "-d", "--name", name, IMAGE, "sleep", "infinity"], check=True, capture_output=True)
    try:
        yield Host(name)
    finally:
        subprocess.run(["docker", "rm", "-fv", name], check=True, capture_output=True)


def fresh(plain: Host) -> list[Row]:
    """The row: each once, for neither host is bare again."""
    run = play("site", HOST)
    assert run.rc == 0, run.text[-3000:]
    packages = HOST.output(f'python3 -c "{PACKAGES}"')
    plain.output("cat > /tmp/bench.txt", stdin=(ROOT / "app/requirements.txt").read_text())
    given = install_environment().get("celery_app_install_environment", {})
    begun = time.monotonic()
    plain.output(
        f"apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends {packages}"
    )
    plain.output(" ".join(f"export {name}={value};" for name, value in given.items()) + PIP)
    return [
        Row("site.yml on a bare host", "s", run.seconds, time.monotonic() - begun, "apt and pip alone", at_most=1.3)
    ]


def main() -> None:
    """Entry point."""
    with another() as plain:
        rows = fresh(plain)
    write("fresh", rows, on=f"{HOST.name}, a container with the control node on the same machine")
    for row in rows:
        print(f"{row.what}: {row.ours:.0f} {row.unit}, {row.peer_is}: {row.peer:.0f}, ratio {row.ratio:.2f}")


if __name__ == "__main__":
    main()
