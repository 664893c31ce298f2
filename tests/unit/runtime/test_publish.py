"""`publish_many` without a broker: what needs no confirms. With RabbitMQ: tests/infra/test_publish.py."""

import celery_ops
import pytest
from celery import Celery, Task, chain, states
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import EagerResult
from celery_ops.publish import Batch, NotPublished


def made(**settings):
    app = Celery("demo", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(settings)

    @app.task
    def note(number):
        return number

    return app, note


def test_nothing_is_published_for_nothing():
    assert celery_ops.publish_many([]) == []


def test_a_transport_without_confirms_publishes_as_it_does():
    app, note = made()
    ids = celery_ops.publish_many(note.s(number) for number in range(100))
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery", no_ack=True)
        assert [queue.get(block=False).headers["id"] for _ in range(100)] == ids


def test_tasks_of_a_test_suite_run_at_once():
    app, note = made(task_always_eager=True, task_store_eager_result=True)
    ids = celery_ops.publish_many(note.s(number) for number in range(3))
    assert [app.AsyncResult(task_id).get() for task_id in ids] == [0, 1, 2]


def test_what_can_not_be_written_is_refused_and_the_rest_is_published():
    _, note = made()
    with pytest.raises(NotPublished, match=r"2 messages confirmed, 1 refused, 0 unknown.*EncodeError") as caught:
        celery_ops.publish_many(note.s(one) for one in (1, {2}, 3))
    assert len(caught.value.confirmed) == 2 and list(caught.value.unsent) == []


def test_a_task_with_too_many_arguments_is_refused_by_its_id():
    _, note = made()
    with pytest.raises(NotPublished) as caught:
        celery_ops.publish_many([note.s(1, 2).set(task_id="wrong"), note.s(1).set(task_id="right")])
    assert caught.value.confirmed == ["right"] and "TypeError" in caught.value.refused["wrong"]


def test_the_soft_time_limit_of_the_task_that_publishes_ends_it():
    app, _ = made()

    class Late(Task):
        def apply_async(self, args=None, kwargs=None, **options):
            if args == (2,):
                raise SoftTimeLimitExceeded  # as the signal's handler does, wherever the task is
            return super().apply_async(args, kwargs, **options)

    @app.task(base=Late, shared=False)
    def late(number):
        return number

    tried = []
    with pytest.raises(SoftTimeLimitExceeded):
        celery_ops.publish_many(late.s(number) for number in range(5) if not tried.append(number))
    assert tried == [0, 1, 2]


class Once(Task):
    """A task that is not sent while the same one waits, as those of celery-singleton and celery-once."""

    def apply_async(self, args=None, kwargs=None, **options):
        if args == (1,):
            return self.AsyncResult("waits-already")
        if args == (2,):
            return EagerResult(None, None, states.REJECTED)
        return super().apply_async(args, kwargs, **options)


def test_what_the_application_does_not_send_twice_has_the_id_of_the_first_or_is_named():
    app, _ = made()

    @app.task(base=Once, shared=False)
    def once(number):
        return number

    assert celery_ops.publish_many([once.s(1)]) == ["waits-already"]
    with pytest.raises(NotPublished) as caught:
        celery_ops.publish_many([once.s(2).set(task_id="dropped"), once.s(3).set(task_id="sent")])
    assert caught.value.confirmed == ["sent"] and "sent nothing" in caught.value.refused["dropped"]


def test_a_chain_has_the_id_of_its_end():
    _, note = made()
    assert celery_ops.publish_many([chain(note.s(1), note.si(2)).set(task_id="end")]) == ["end"]


def test_a_broker_that_is_away_leaves_all_of_them_unsent():
    _, note = made(broker_url="amqp://127.0.0.1:1", task_publish_retry_policy={"max_retries": 1, "interval_start": 0})
    with pytest.raises(NotPublished, match="the connection was lost") as caught:
        celery_ops.publish_many(note.s(number) for number in range(3))
    assert (caught.value.confirmed, caught.value.refused, caught.value.unknown) == ([], {}, {})
    assert [signature.args for signature in caught.value.unsent] == [(0,), (1,), (2,)]


@pytest.mark.parametrize(
    ("tag", "multiple", "left"), [(2, False, [1, 3]), (2, True, [3]), (3, True, []), (9, False, [1, 2, 3])]
)
def test_a_confirm_is_for_one_message_or_for_all_up_to_it(tag, multiple, left):
    app, note = made()
    batch = Batch(app, 10)
    batch.sent = {number: (str(number), note.s(number), str(number)) for number in (1, 2, 3)}
    batch.on_ack(tag, multiple)
    assert list(batch.sent) == left
