"""The kit's Jinja filters."""

import pytest
from ansible.errors import AnsibleFilterError
from rabbitmq_filters import rabbitmq_password_hash


def test_the_hash_of_the_rabbitmq_documentation():
    """Password and salt of the worked example in RabbitMQ's guide on passwords."""
    assert rabbitmq_password_hash("test12", "908DC60A") == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


@pytest.mark.parametrize("salt", ["", "908DC60", "908DC60Z", "908DC60A0", None])
def test_a_salt_that_is_none(salt):
    with pytest.raises(AnsibleFilterError, match="8 hex digits"):
        rabbitmq_password_hash("test12", salt)


def test_an_empty_password_would_let_anyone_in():
    with pytest.raises(AnsibleFilterError, match="empty"):
        rabbitmq_password_hash("", "908DC60A")
