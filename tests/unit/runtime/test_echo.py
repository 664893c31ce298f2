"""The echo without RabbitMQ. With one: tests/infra/test_flow.py."""

from celery import Celery
from celery_ops.worker import echo
from kombu.serialization import disable_insecure_serializers, registry


def test_it_arrives_where_the_application_takes_nothing_but_signed_messages(monkeypatch):
    monkeypatch.setattr(registry, "_disabled_content_types", set())
    disable_insecure_serializers(None)  # as app.setup_security() does
    app = Celery("demo", broker="memory://", set_as_current=False)
    with app.connection_for_write() as connection, echo.echo_queue(connection) as echoes:
        app.tasks[echo.TASK](echoes.queue)
        assert echoes.take(20)["host"]
