#!/usr/bin/env python3
"""site.yml on a bare host, beside what nobody gets around: apt-get with the same packages, pip with the same lock file.

`python3 bench/fresh.py HOST PLAIN`: two hosts of one Debian release that nothing was done to yet.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.control import install_environment, play  # noqa: E402
from support.host import Host  # noqa: E402
from tables import Row, write  # noqa: E402

PACKAGES = "import json; print(*json.load(open('/var/lib/celery-ops/packages.json'))['packages'])"
PIP = (
    "python3 -m venv /tmp/bench-pip && /tmp/bench-pip/bin/pip install -q --disable-pip-version-check -r /tmp/bench.txt"
)


def fresh(host: Host, plain: Host) -> list[Row]:
    """The row: each once, for neither host is bare again."""
    run = play("site", host)
    assert run.rc == 0, run.text[-3000:]
    packages = host.output(f'python3 -c "{PACKAGES}"')
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


def main(arguments: list[str]) -> None:
    """Entry point."""
    host, plain = map(Host, arguments or ("celery-ops-bookworm", "celery-ops-bare"))
    rows = fresh(host, plain)
    write("fresh", rows, on=f"{host.name}, a container with the control node on the same machine")
    for row in rows:
        print(f"{row.what}: {row.ours:.0f} {row.unit}, {row.peer_is}: {row.peer:.0f}, ratio {row.ratio:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
