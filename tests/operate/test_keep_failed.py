"""celery_app_keep_failed: a task that raised an exception waits in the dead queue, named, and can be replayed."""

from support.control import play
from support.long import LONG
from support.wait import wait_until


@LONG
def test_a_task_that_raised_is_listed_with_its_exception_and_replayed(host):
    done = play("deploy", celery_app_keep_failed=True)
    assert done.rc == 0, done.text
    try:
        call = "celery call celery_ops.ledger --queue petct -a '[\"no/name\", 1, 0]'"
        name = host.output(host.in_release(call)).split()[-1]
        listing = host.in_release(f"celery-ops-dead-letters list -A petct --queue petct.dead --id {name}")
        wait_until(lambda: name in host.ask(listing), 20, "the dead letter")
        listed = play("dead_letters", celery_app_dead_letters_id=name)
        assert "1 x celery_ops.ledger from queue petct" in listed.words
        assert "why: failed: ValueError" in listed.words
        replayed = play("dead_letters", celery_app_dead_letters="replay", celery_app_dead_letters_id=name)
        assert f"1 of 1 dead letters replayed with id {name}" in replayed.words
        wait_until(lambda: name in host.ask(listing), 20, "its second failure")
        discard = {"celery_app_dead_letters": "discard", "celery_app_dead_letters_confirm": "yes"}
        assert play("dead_letters", celery_app_dead_letters_id=name, **discard).rc == 0
    finally:
        assert play("deploy").rc == 0
