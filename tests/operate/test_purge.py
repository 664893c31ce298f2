"""purge.yml: a queue is emptied into the dead queue, and back; what is not the application's is refused."""

import json

from support.control import play

SEND = (
    "python -c \"from petct import celery_app as app; [app.send_task('celery_ops.ledger', ['purge', n, 0],"
    " expires=600 if n % 2 else None, queue='petct') for n in range({count})]\""
)
COUNT = (
    'python -c "from petct import celery_app as app; c = app.connection_for_read().channel();'
    " print(c.queue_declare('{queue}', passive=True).message_count)\""
)


def count(host, queue):
    return int(host.output(host.in_release(COUNT.format(queue=queue))))


def test_what_waits_is_moved_and_replayed(host):
    worker = host.program("worker-default").name
    before = count(host, "petct.dead")
    host.output(f"supervisorctl stop {worker}")
    try:
        host.output(host.in_release(SEND.format(count=20)))
        done = play("purge", options=["--check"], celery_app_purge="petct")
        assert done.rc == 0 and f" messages wait in petct; {before} in petct.dead" in done.words, done.text  # and ticks
        assert count(host, "petct") >= 20
        done = play("purge", celery_app_purge="petct", celery_app_purge_confirm="petct")
        assert done.rc == 0, done.text
        assert " messages of petct moved to petct.dead; " in done.words
        moved = count(host, "petct.dead") - before
        assert moved >= 20
        entry = json.loads(host.output("tail -1 /var/log/petct/deploys.log"))
        assert entry["action"] == "purge" and entry["changed"][0].startswith(f"{moved} of {moved} messages of petct")

        listed = play("dead_letters", celery_app_dead_letters_reason="purged")
        assert "why: purged: an operator has emptied its queue" in listed.words
        done = play("dead_letters", celery_app_dead_letters="replay", celery_app_dead_letters_reason="purged")
        assert done.rc == 0 and f"{moved} of {before + moved} dead letters replayed" in done.words, done.text
        entry = host.last_deploy()
        assert entry["action"] == "dead_letters" and entry["changed"][0].startswith(f"{moved} of {before + moved} dead")
        assert count(host, "petct.dead") == before and count(host, "petct") >= 20
    finally:
        host.output(f"supervisorctl start {worker}")


def test_what_is_not_confirmed_or_not_the_applications_is_refused(host):
    done = play("purge", celery_app_purge="petct", celery_app_purge_confirm="pet")
    assert done.rc != 0 and "nothing was purged" in done.words
    done = play("purge", celery_app_purge="shop", celery_app_purge_confirm="shop")
    assert done.rc != 0, done.text
    assert "celery_app_purge: shop is not a queue of this application. It has: petct" in done.words
