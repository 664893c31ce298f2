"""The plan of a handover: what becomes of each program, the operations in their order, and their inverses."""

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor import plan
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.generation import Generation
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.plan import (
    AwaitReady,
    Hold,
    Leaving,
    LetGo,
    Point,
    Reload,
    Restore,
    Retire,
    Seen,
    Start,
    StartAgain,
    Stop,
    StopAgain,
    Withdraw,
    Write,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.rpc import ProcessInfo

A1, A2, A3 = (f"app-worker-a-{digit * 8}" for digit in "123")
B1, B2 = (f"app-worker-b-{digit * 8}" for digit in "12")
SOCKET = "app-worker-socket"


def generation(name, conf="conf", **more):
    return Generation(plan.program_of(name), name, conf, **more)


def process(name, state="RUNNING"):
    return ProcessInfo(name, state, 7 if state in ("RUNNING", "STOPPING") else 0, 1, "", 0)


def seen(*running, conf="conf", **more):
    """These run, from conf files that a reboot starts; each may take 60 s to stop."""
    stopwaitsecs = dict.fromkeys((A1, A2, A3, B1, B2, SOCKET), 60)
    files, processes = dict.fromkeys(running, conf), {name: process(name) for name in running}
    return Seen(**{"files": files, "processes": processes, "stopwaitsecs": stopwaitsecs, **more})


def action(one, found):
    return plan.changes([one], found)[0].action


def operations(programs, found, drain_wait=None):
    return plan.plan(plan.changes(programs, found, waits=drain_wait is None), found, drain_wait)


def leaving(name, successor, limit=70.0):
    return Leaving(name, successor, limit)


# What becomes of a program.


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (seen(), plan.STARTED),
        (seen(A2), plan.UNCHANGED),
        (seen(A2, conf="older"), plan.REWRITTEN),
        (seen(A2, stale={A2}), plan.RESTARTED),
        (seen(A2, processes={A2: process(A2, "FATAL")}), plan.STARTED),
        (seen(A2, processes={A2: process(A2, "BACKOFF")}), plan.STARTED),
        (seen(A2, provisional={A2}), plan.STARTED),
        (seen(A1), plan.HANDED_OVER),
        (seen(A1, A2), plan.HANDED_OVER),
        (seen(A1, A2, processes={A1: process(A1, "STOPPING"), A2: process(A2)}), plan.DRAINED),
        (seen(orphans={A1}), plan.HANDED_OVER),
        (seen(B1), plan.STARTED),
    ],
)
def test_what_becomes_of_a_program(found, expected):
    assert action(generation(A2), found) == expected


def test_replace_is_told_from_a_handover():
    assert action(generation(A2, strategy="replace"), seen(A1)) == plan.REPLACED


def test_what_is_ours_and_not_intended_is_removed_also_a_link_that_leads_nowhere():
    found = seen(A1, B1, provisional={A3}, orphans={B2})
    assert plan.changes([generation(A1)], found)[1:] == [plan.Change(plan.REMOVED, name) for name in (A3, B1, B2)]


def test_an_old_generation_that_drains_already_is_no_change_for_a_run_that_does_not_wait():
    found = seen(A1, A2, processes={A1: process(A1, "STOPPING"), A2: process(A2)})
    [waited], [left] = (plan.changes([generation(A2)], found, waits=waits) for waits in (True, False))
    assert waited.is_change and not left.is_change and left.draining == (A1,)


def test_a_generation_that_still_drains_is_begun_anew_under_another_name():
    one = generation(A1, conf=f"[program:{A1}]", ready=["ready", A1], log=f"/log/{A1}.log")
    draining = seen(A1, A2, provisional={A1}, processes={A1: process(A1, "STOPPING"), A2: process(A2)})
    again = plan.able_to_run(one, draining)
    assert again.name not in (A1, A2) and again.program == one.program and again.of == A1
    assert again.conf == f"[program:{again.name}]" and again.ready == ["ready", again.name]
    assert plan.able_to_run(one, seen(again.name)) == again, "it runs under that name already"
    assert plan.able_to_run(one, seen(A2)) == one


def test_a_restart_takes_a_name_that_is_free_and_later_runs_know_it_again():
    one = generation(A1)
    once = plan.restarted(one, seen(A1))
    assert once.name != A1 and once.of == A1 and once.program == one.program
    assert plan.able_to_run(one, seen(once.name)) == once, "a deploy finds it under its name"
    assert plan.able_to_run(once, seen(A1)) == one, "so does a run that has the restarted one in its record"
    assert plan.restarted(once, seen(once.name)) == one, "the first name is free again"
    assert plan.restarted(one, seen(A1, once.name)).name not in (A1, once.name), "one still drains"
    with pytest.raises(OperatorError, match="can't be restarted once more"):
        plan.restarted(one, seen(*(each.name for each in one.names)))


# The operations.


def test_a_handover_is_read_from_top_to_bottom():
    new = generation(A2)
    assert operations([new], seen(A1)) == [
        Write(new, lasting=False, spare=A1, undo=(Withdraw(A2, plan.RUN_ON),)),
        Start((new,)),
        AwaitReady((new,)),
        Retire((leaving(A1, A2),), (new,), undo=(StartAgain(A1),)),
    ]


def test_replace_stops_the_old_before_the_new_is_written():
    new = generation(A2, strategy="replace")
    stop, write, start, _, retire = operations([new], seen(A1))
    assert stop == Stop((A1,), (A2,), undo=(StartAgain(A1),))
    assert write.undo == (Withdraw(A2, 70.0),), "the old one starts again only when no process of the new one is left"
    assert start == Start((new,)) and retire.leaving == (leaving(A1, A2),) and retire.undo == ()


def test_a_program_that_was_renamed_takes_over_from_the_one_it_replaces():
    before, now = "app-health-11111111", "app-watchdog-22222222"
    found = Seen({before: "conf"}, processes={before: process(before)}, stopwaitsecs={before: 10})
    new = generation(now, strategy="replace", replaces=["app-health"])
    [change] = plan.changes([new], found)
    assert (change.action, change.olds) == (plan.REPLACED, (before,))
    [stop, *_] = plan.plan([change], found)
    assert stop == Stop((before,), (now,), undo=(StartAgain(before),)), "never do two run"


def test_replace_goes_back_to_the_one_that_was_ready():
    new = generation(A3, strategy="replace")
    [stop, *_] = operations([new], seen(A1, A2, provisional={A2}, processes={A2: process(A2)}))
    assert stop.names == (A1, A2) and stop.undo == (StartAgain(A1),)


def test_all_are_ready_before_any_is_retired():
    kinds = [type(one) for one in operations([generation(A2), generation(B2)], seen(A1, B1))]
    assert kinds == [Write, Write, Start, AwaitReady, Retire]


W1, W2 = (f"app-web-{digit * 8}" for digit in "12")
S1, S2 = (f"app-scheduler-{digit * 8}" for digit in "12")
PRODUCERS = ["app-web", "app-scheduler"]


def ordered(programs, found):
    return plan.plan(plan.changes(programs, found), found, None, PRODUCERS)


def test_producers_start_once_the_new_consumers_are_ready_and_the_old_are_held_and_all_are_observed_at_once():
    consumer, web, scheduler = generation(A2), generation(W2), generation(S2, strategy="replace")
    plans = ordered([web, consumer, scheduler], seen(A1, W1, S1))
    assert [type(one) for one in plans] == [
        Write, Start, AwaitReady, Hold, Stop, Write, Write, Start, AwaitReady, AwaitReady, Retire,
    ]  # fmt: skip
    [ready, hold, stop, *_] = plans[2:]
    assert ready == AwaitReady((consumer,), observed=False)
    assert hold.names == (A1,) and hold.undo == (LetGo((A1,)),)
    assert hold.observed == AwaitReady((consumer,)) and hold.retired.leaving == (leaving(A1, A2),)
    assert stop.undo == (StartAgain(S1), LetGo((A1,))), "the last is undone first: tasks wait for the old consumer"
    assert plans[-2] == AwaitReady((consumer, web, scheduler))
    assert {one.name for one in plans[-1].leaving} == {A1, W1, S1}


@pytest.mark.parametrize(
    ("programs", "found", "held"),
    [
        ([generation(W2)], seen(W1), None),
        ([generation(A2)], seen(A1), None),
        ([generation(A2), generation(W2)], seen(W1), ()),
        ([generation(A2, strategy="replace"), generation(W2)], seen(A1, W1), ()),
        ([generation(A2), generation(W2)], seen(A1, B1, W1), (B1, A1)),
        ([generation(A1), generation(W2)], seen(A1, B1, W1), (B1,)),
        ([generation(A2), generation(W2)], seen(A1, W1, processes={A1: process(A1, "STOPPING")}), ()),
    ],
)
def test_what_is_held_is_every_old_consumer_that_runs_while_producers_start(programs, found, held):
    plans = ordered(programs, found)
    assert [one.names for one in plans if isinstance(one, Hold)] == ([held] if held else [])


def test_producers_come_with_the_last_of_rolling_consumers():
    programs = [generation(A2, strategy="rolling"), generation(B2, strategy="rolling"), generation(W2)]
    plans = ordered(programs, seen(A1, B1, W1))
    assert [[each.name for each in one.programs] for one in plans if isinstance(one, Start)] == [[A2], [B2], [W2]]
    assert [one.names for one in plans if isinstance(one, Hold)] == [(B1,)]


def test_rolling_takes_one_program_after_the_other_and_the_others_first():
    programs = [generation(A2, strategy="rolling"), generation(B2, strategy="rolling"), generation(SOCKET)]
    plans = operations(programs, seen(A1, B1), drain_wait=5)
    assert [one.programs[0].name for one in plans if isinstance(one, Start)] == [SOCKET, A2, B2]
    retires = [one for one in plans if isinstance(one, Retire)]
    assert [one.wait for one in retires] == [None, None, 5], "only the last may be left to drain by itself"
    assert retires[1].undo == (StartAgain(A1),), "if B2 fails, A1 comes back"


def test_a_program_that_keeps_its_name_is_restarted_last_and_gets_its_file_back():
    new = generation(SOCKET, conf="newer")
    plans = operations([new, generation(A2)], seen(SOCKET, A1, stale={SOCKET}))
    assert [type(one) for one in plans] == [Write, Start, AwaitReady, Write, Reload, Retire]
    assert plans[3] == Write(new, lasting=True, undo=(Restore(SOCKET),))
    assert plans[4] == Reload(new), "what ran is started again by Restore"
    found = seen(SOCKET, stale={SOCKET}, processes={SOCKET: process(SOCKET, "FATAL")})
    assert operations([new], found)[1].undo == (StopAgain(SOCKET, unload=True),)


def test_a_file_that_was_edited_is_written_and_what_is_loaded_is_looked_at_again():
    one = generation(A1)
    assert operations([one], seen(A1, conf="edited")) == [
        Write(one, lasting=True, undo=(Restore(A1),)),
        Reload(one),
        Retire((), (one,)),
    ]


def test_what_was_down_is_stopped_again_only_where_something_else_serves_or_it_was_not_loaded():
    down = {A2: process(A2, "STOPPED")}
    [_, start, *_] = operations([generation(A2)], seen(A2, processes=down))
    assert start.undo == (), "it is to run: supervisord goes on trying"
    [_, start, *_] = operations([generation(A2)], seen(A1, A2, processes={A1: process(A1), **down}))
    assert start.undo == (StopAgain(A2, unload=False),)
    [_, start, *_] = operations([generation(A2)], seen(A2, processes={}))
    assert start.undo == (StopAgain(A2, unload=True),)


def test_what_leaves_is_waited_for_to_its_stop_timeout_or_until_it_is_killed():
    [*_, retire] = operations([generation(A2, stop_timeout=20)], seen(A1))
    assert retire.leaving == (leaving(A1, A2, 20.0),)
    [*_, retire] = operations([generation(A2, stop_timeout=60)], seen(A1))
    assert retire.leaving == (leaving(A1, A2, 60 + plan.STOP_MARGIN),)
    [retire] = operations([], seen("app-worker-c-11111111"))
    assert retire.leaving == (leaving("app-worker-c-11111111", "app-worker-c-11111111", plan.UNKNOWN_STOP),)


def test_what_is_unchanged_only_gets_its_logs_stable_name():
    one = generation(A1)
    assert operations([one], seen(A1)) == [Point(one), Retire((), ())]


def test_the_time_that_undoing_takes_at_most():
    found = seen(A1)
    assert plan.seconds_back(operations([generation(A2)], found), found) == plan.RUN_ON + plan.START_AGAIN
    assert plan.seconds_back(operations([generation(A2, strategy="replace")], found), found) == 70 + plan.START_AGAIN


@pytest.mark.parametrize(
    ("programs", "expected"), [(["app-worker-a"], {A1}), (None, {A1, B1})], ids=["of these programs", "of any"]
)
def test_an_orphan_is_a_generation_by_name(programs, expected):
    removed = [A1, B1, "app-worker-a", "app-worker-a-by-hand"]
    assert plan.orphans_of(["app-worker-"], programs, removed) == expected


# One that may start beside some and not beside others.


def test_what_may_start_beside_the_old_one_does():
    found, one = seen(A1, conf="leased"), generation(A2, "leased", beside="leased")
    assert plan.stops_first(one, found).strategy == "overlap"


def test_what_may_not_start_beside_the_old_one_stops_it_first():
    found, one = seen(A1, conf="alone"), generation(A2, "leased", beside="leased")
    first, *_ = operations([plan.stops_first(one, found)], found)
    assert isinstance(first, Stop)
    assert first.names == (A1,)


def test_an_old_one_that_does_not_run_is_none_to_stop():
    found = seen(A1, conf="alone", processes={A1: process(A1, "STOPPED")})
    assert plan.stops_first(generation(A2, "leased", beside="leased"), found).strategy == "overlap"


def test_the_older_generations_of_a_program_are_those_of_its_names():
    found = seen(A1, A2, B1)
    assert plan.olds_of(generation(A2), found) == [A1]
    assert plan.olds_of(generation(A3, replaces=["app-worker-b"]), found) == [A1, A2, B1]
