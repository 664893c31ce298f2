"""Celery's consumer, which throws no message away: what can't be decoded is a dead letter, too."""

from celery.utils.log import get_logger
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu import Message

logger = get_logger(__name__)


class Consumer(CeleryConsumer):
    """The worker's consumer (setting ``worker_consumer``)."""

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Reject a message whose body is damaged or of a refused type; Celery's own way is to acknowledge it."""
        logger.critical(
            "Can't decode a message of type %s: %s: %s. It goes to the dead queue",
            message.content_type,
            type(exc).__name__,
            exc,
        )
        message.reject_log_error(logger, self.connection_errors)
