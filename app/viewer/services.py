"""Ask a worker for a record's volume, and fetch the answer when it is there."""

import numpy as np
from celery.exceptions import TimeoutError as ResultTimeoutError
from celery.result import AsyncResult
from django.core import signing
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from viewer.errors import ServiceUnreachable, UnexpectedResult
from viewer.models import Record
from viewer.tasks import loadArray

TICKET_SALT = "viewer.volume"
TICKET_SECONDS = 3600
# How long a broker may take for one message; a frozen or blocked one would otherwise hold us for ever.
PUBLISH_SECONDS = 1.5


def ask_for_volume(record: Record) -> AsyncResult:
    """Publish the task that loads this record's volume. Raises ServiceUnreachable."""
    try:
        return loadArray.apply_async(
            (record.filepath, record.shape, record.dtype),
            timeout=PUBLISH_SECONDS,
            confirm_timeout=PUBLISH_SECONDS,
        )
    except (OperationalError, OSError) as error:
        raise ServiceUnreachable(f"The message broker (CELERY_BROKER_URL) does not answer: {error}") from error
    except (RedisError, RuntimeError) as error:
        raise _result_store_unreachable(error) from error


def volume_of(result: AsyncResult, seconds: float = 0) -> np.ndarray | None:
    """Return the volume, or None when it has not come within `seconds`.

    Raises what the task raised (a VolumeError as a rule), UnexpectedResult, or ServiceUnreachable.
    """
    try:
        if seconds:
            value = result.get(timeout=seconds, propagate=False)
        elif result.ready():
            value = result.result
        else:
            return None
    except ResultTimeoutError:
        return None
    except (RedisError, OSError, RuntimeError) as error:
        raise _result_store_unreachable(error) from error
    if isinstance(value, BaseException):
        raise value
    if not isinstance(value, np.ndarray) or value.ndim != 3:
        raise UnexpectedResult(f"loadArray returned {type(value).__name__}, not a three-dimensional array.")
    return value


def ticket_for(result: AsyncResult, record: Record) -> str:
    """Return a signed, expiring token for the page to come back with: it opens this result and no other."""
    return signing.dumps({"task": result.id, "record": record.pk}, salt=TICKET_SALT)


def redeem(ticket: str) -> tuple[AsyncResult, int]:
    """Return the result a ticket stands for and the record's id. Raises django.core.signing.BadSignature."""
    content = signing.loads(ticket, salt=TICKET_SALT, max_age=TICKET_SECONDS)
    return loadArray.AsyncResult(content["task"]), content["record"]


def _result_store_unreachable(error: Exception) -> ServiceUnreachable:
    # Celery wraps the cause in a RuntimeError that advises a restart; the next request simply tries anew.
    return ServiceUnreachable(f"The result store (CELERY_RESULT_BACKEND) does not answer: {error.__cause__ or error}")
