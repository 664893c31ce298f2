"""Broker and result store ask for certificates only where all programs that run show one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.environments import BROKER, STORE, parse
from ansible_collections.celery_ops.kit.plugins.module_utils.files import read_json
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import CONF_D, TLS_CLIENT, Layout, Release


def problems(app: str, *, verify: bool, conf_d: Path = CONF_D) -> Iterator[str]:
    """Say which programs would be refused, and what to type."""
    if verify and (found := sorted(lacking(app, conf_d))):
        yield (
            f"celery_app_tls_verify_clients is true, and programs that run show no certificate: {', '.join(found)}. "
            "Broker or result store would refuse them. Leave the variable out, type: ansible-playbook "
            "playbooks/site.yml; then set it, and type it again. An application that does not take the kit's settings "
            "needs, before that: app.conf.broker_use_ssl = {**(app.conf.broker_use_ssl or {}), "
            f'"certfile": "{Layout(app).tls_client}"}}'
        )


def lacking(app: str, conf_d: Path) -> Iterator[str]:
    """Yield the programs that use TLS by their environment, and show no certificate."""
    for conf in conf_d.glob(f"{app}-*.conf"):
        with suppress(OSError):  # it may go meanwhile
            text = conf.read_text()
            file = re.search(r"--env-file (\S+)", text)
            home = re.search(r"--chdir (\S+?/releases/[^/\s]+)", text)
            if not file or not home:
                continue
            environment = parse(Path(file[1]).read_text())
            broker, store = (environment.get(url, "").partition("://")[0] for url in (BROKER, STORE))
            knows = bool(environment.get(TLS_CLIENT))
            # To the broker, only the application's settings show it.
            report = read_json(Release(Path(home[1])).state_file).get("inspect", {})
            shows = knows and report.get("shows_certificate", False)
            if (broker == "amqps" and not shows) or (store in ("rediss", "sentinel") and not knows):
                yield conf.stem
