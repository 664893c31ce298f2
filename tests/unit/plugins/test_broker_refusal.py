"""What a worker's log says of a broker that refuses it; the words are those of RabbitMQ 3.10 and 4.0."""

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.broker_refusal import refused_by_broker, unreached_broker
from celery_ops.errors import TAKES_NOTHING


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("(0, 0): (403) ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.", "Login was refused"),
        ("(10, 40): (530) NOT_ALLOWED - vhost /shop/x not found", "vhost /shop/x not found"),
        ("(10, 40): (530) NOT_ALLOWED - access to vhost 'a b' refused for user 'own'", "access to vhost 'a b' refused"),
        ("(50, 10): (403) ACCESS_REFUSED - access to queue 'q' in vhost 'v' refused for user 'own'", "to queue 'q' in"),
        (
            "(40, 10): (403) ACCESS_REFUSED - configure access to exchange 'c' in vhost 'v' refused for user 'own'",
            "configure access to exchange 'c'",
        ),
    ],
)
def test_a_refused_login_vhost_or_permission_is_told_with_where_to_look(said, told):
    answer = refused_by_broker(["Traceback ...", f"amqp.exceptions.AccessRefused: {said}", "Bye."])
    assert told in answer and "celery_app_broker_url" in answer and "not at fault" in answer


def test_other_words_tell_nothing():
    assert refused_by_broker(["Connection refused", "PRECONDITION_FAILED - inequivalent arg", "access refused"]) == ""


NOT_READY = "shop-worker-default-01234567 did not come up: not ready within 60 s: its ready command says: "


@pytest.mark.parametrize(
    "reason",
    [
        "broker amqp://shop:**@10.0.0.5:5672/shop can't be reached: [Errno 111] Connection refused",
        "broker amqp://shop:**@a:5672/shop, amqp://shop:**@b:5672/shop can't be reached: timed out",
        f"broker amqp://shop:**@10.0.0.5:5672/shop accepts connections but {TAKES_NOTHING}",
        "the connection to the broker was lost: Server unexpectedly closed connection",
    ],
)
def test_a_broker_that_is_away_or_takes_nothing_is_no_fault_of_the_release(reason):
    assert "not at fault" in unreached_broker(f"{NOT_READY}{reason}")


@pytest.mark.parametrize(
    "seen",
    [
        f"{NOT_READY}shop-worker-default-01234567@w1 does not answer: not up yet, gone, or stuck; look at its log",
        f"{NOT_READY}ValueError: broker can't be reached",
        "shop-worker-default-01234567 did not come up: it is BACKOFF",
    ],
)
def test_what_a_release_does_itself_stays_its_fault(seen):
    assert unreached_broker(seen) == ""
