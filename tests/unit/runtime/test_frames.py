"""Several threads that acknowledge over one connection; test_oldest.py has the py-amqp that matters."""

import threading

from amqp import spec
from amqp.serialization import dumps
from celery_ops.worker import frames
from kombu.transport import pyamqp


class Transport:
    """Has another thread send in the midst of a write, as the kernel may."""

    def __init__(self):
        self.sent, self.meanwhile = [], None

    def write(self, frame):
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile.start()
            meanwhile.join(0.3)
        self.sent.append(bytes(frame))


def test_an_acknowledgement_is_not_overwritten_by_that_of_another_thread():
    frames.connect()
    connection, transport = pyamqp.Connection(), Transport()
    connection.frame_writer = connection.frame_writer_cls(connection, transport)

    def acknowledge(tag):
        connection.frame_writer(1, 1, spec.Basic.Ack, dumps("Lb", (tag, False)), None)

    other = transport.meanwhile = threading.Thread(target=acknowledge, args=(2,))
    acknowledge(1)
    other.join(10)
    assert [int.from_bytes(frame[11:19], "big") for frame in transport.sent] == [1, 2]
