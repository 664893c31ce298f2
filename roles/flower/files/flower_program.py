"""Run Flower with the settings of a file, so that no password is on a command line or in an environment.

Without `control`, workers are asked nothing: questions go by an exchange that also carries commands to end them.
"""

import ctypes
import json
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app.control import Control
from celery.events.event import event_exchange
from flower import urls
from flower.options import options
from flower.views import monitor

PDEATHSIG = 1
OPEN = (monitor.Metrics, monitor.Healthcheck)
"""The pages that ask for no password."""


class NoControl(Control):
    """Sends nothing; Flower takes that for workers that do not answer."""

    def broadcast(self, command: str, *_: Any, **__: Any) -> None:
        """Answer as no worker would."""


def application(settings: dict[str, Any]) -> Celery:
    """Return a Celery application that hears the events of the vhost's workers, and has no tasks."""
    app = Celery("flower", broker=settings["broker_url"], control=None if settings["control"] else NoControl)
    app.conf.update(
        event_queue_prefix="celeryev.flower",
        event_queue_exclusive=True,  # RabbitMQ 4.3 refuses transient queues that others may use
        broker_connection_timeout=4,
        broker_heartbeat=0,  # Celery sends none while events come without a pause; TCP's keepalive finds a dead broker
    )
    if settings["broker_url"].startswith("amqps://"):
        app.conf.broker_use_ssl = {"server_hostname": settings["broker_name"] or None}
        if settings["broker_ca"]:
            app.conf.broker_use_ssl |= {"ca_certs": settings["broker_ca"], "cert_reqs": ssl.CERT_REQUIRED}
        if settings["broker_client"]:
            app.conf.broker_use_ssl["certfile"] = settings["broker_client"]
    # The workers declare it; whoever may declare it may delete it as well.
    event_exchange.no_declare = True
    return app


def main() -> None:
    """Entry point."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    # With supervisord goes Flower: a second one could not have its port.
    ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGTERM)
    urls.handlers[:] = [each for each in urls.handlers if not isinstance(each, tuple) or each[1] not in OPEN]
    for name, value in settings["flower"].items():
        setattr(options, name, value)
    application(settings).start(["--quiet", "flower"])


if __name__ == "__main__":
    main()
