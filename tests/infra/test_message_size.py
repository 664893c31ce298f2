"""What is too large for the broker is refused on the caller's side."""

from __future__ import annotations

import json

PUBLISH = """
import json, os
from petct.celery import app
from celery_ops.worker import message_size

with app.connection_for_write() as connection:
    server = connection.default_channel.connection.server_properties
most = message_size.limit(server["product"], server["version"])
os.environ["CELERY_OPS_MAX_MESSAGE_BYTES"] = "5000"
try:
    app.send_task("celery_ops.tick", ["x" * 5000], queue="message-size", retry=False)
except message_size.MessageTooLarge as error:
    refused = str(error)
app.send_task("celery_ops.tick", ["x" * 500], queue="message-size", retry=False)
with app.connection_for_write() as connection:
    waiting = connection.default_channel.queue_declare("message-size", passive=True).message_count
    connection.default_channel.queue_delete("message-size")
print(json.dumps([most, refused, waiting]))
"""


def test_a_message_that_the_broker_does_not_take_is_refused_before_it_is_sent(host):
    most, refused, waiting = json.loads(host.output(host.in_release("python -"), stdin=PUBLISH).splitlines()[-1])
    assert f"{most}" == host.output("rabbitmqctl eval '{ok, N} = application:get_env(rabbit, max_message_size), N.'")
    assert refused.startswith("task celery_ops.tick has 50")
    assert "the broker takes 5000 at most; nothing was sent" in refused
    assert waiting == 1
