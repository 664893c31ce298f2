"""What a worker's log says of a broker that refuses it; the words are those of RabbitMQ 3.10 and 4.0."""

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.broker_refusal import refused_by_broker


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
