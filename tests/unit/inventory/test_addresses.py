"""The line to write for a broker of somebody else: with any password it is a URL that Celery reads right."""

import re
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.addresses import EXAMPLE, broker_url
from kombu.utils.url import parse_url

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = [
    EXAMPLE,
    yaml.safe_load((ROOT / "docs/examples.yml").read_text())["celery_app_broker_url"],
    *re.findall(r'^celery_app_broker_url: "(.*?)"', (ROOT / "docs/your-app.md").read_text(), re.MULTILINE),
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_password_of_any_characters_arrives_as_it_is(example):
    password = "a/b+c@d:e;f%g#h?i=j k&é"
    name = re.search(r"{{ (\w+)", example)[1]
    url = Templar(DataLoader(), variables={name: password}).template(trust_as_template(example))
    assert broker_url(url) == "", "the rule takes it"
    assert parse_url(url)["password"] == password


def test_another_name_for_rabbitmq_is_not_taken_for_another_broker():
    assert "Write: amqp://" in broker_url("pyamqp://shop:secret@host//")
    assert "RabbitMQ alone" in broker_url("redis://host/1")
