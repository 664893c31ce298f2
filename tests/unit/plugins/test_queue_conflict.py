"""What a worker's log says of a queue that exists with other arguments; the words are those of RabbitMQ 3.10 to 4.2."""

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.queue_conflict import advice

SAYS = "PRECONDITION_FAILED - inequivalent arg "


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "'x-max-priority' for queue 'shop' in vhost 'shop': received none but current is the value '10' of type "
            "'signedint'",
            "The queue shop (vhost shop) exists with x-max-priority 10, and the release declares it with no x-max-pri",
        ),
        (
            "'x-queue-type' for queue 'mails & more' in vhost '/': received the value 'quorum' of type 'longstr' but "
            "current is none",
            "The queue mails & more (vhost /) exists with no x-queue-type, and the release declares it with x-queue",
        ),
        (
            "'x-queue-type' for queue 'a b' in vhost 'shop': received 'quorum' but current is 'classic'",
            "The queue a b (vhost shop) exists with x-queue-type classic",
        ),
        (
            "'durable' for queue 'q' in vhost 'v': received 'true' but current is 'false'",
            "exists with durable false, and the release declares it with durable true",
        ),
        (
            "'type' for exchange 'celery' in vhost 'shop': received 'topic' but current is 'direct'",
            "shop celery amqp exchange.delete celery false; then deploy",
        ),
    ],
)
def test_it_says_which_queue_which_argument_and_what_to_type(said, told):
    log = ["Starting up.", f'error: PreconditionFailed(406, "{SAYS}{said}", (50, 10), "Queue.declare")', "Bye."]
    assert told in advice(log, "shop", ["old"])


def test_it_says_nothing_of_another_end():
    assert advice(["ModuleNotFoundError: shop", "(406) something else"], "shop", ["old"]) == ""
