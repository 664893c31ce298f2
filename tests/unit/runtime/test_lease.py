"""The rules of the scheduler's lease, played through with a queue in memory that delivers as RabbitMQ does."""

import itertools
import random
from collections import deque

import pytest
from celery_ops.lease.queue import PREFETCH
from celery_ops.lease.state import FENCE, HEARTBEAT, RENEW_EVERY, Lease, Lost, State, Token

RUNS = {"nightly": ("2026-11-26T03:00:00+00:00", 7)}


class Queue:
    """A queue with a single active consumer: the one that subscribed first, then the next one.

    It delivers no more than `prefetch` messages that are not acknowledged.
    """

    def __init__(self, prefetch=PREFETCH):
        self.ready, self.unacked, self.consumers, self.tags = deque(), {}, [], itertools.count(1)
        self.prefetch = prefetch

    def subscribe(self, lease):
        self.ready.append(lease.seed())
        self.consumers.append(lease)

    def publish(self, token):
        self.ready.append(token)

    def deliver(self):
        """Give the active consumer all that is there; messages that it publishes meanwhile, too."""
        while self.ready and self.consumers and len(self.unacked) < self.prefetch:
            lease, token, tag = self.consumers[0], self.ready.popleft(), next(self.tags)
            self.unacked[tag] = token
            for done in lease.received(tag, Token.load(token.dump())):
                del self.unacked[done]
            if lease.state is State.CLAIMING and lease.pending is None:
                self.publish(lease.claim())

    def lose(self, lease):
        """The consumer is gone: what it has not acknowledged comes first, in its old order."""
        if self.consumers.index(lease) == 0:
            self.ready.extendleft(token for _, token in sorted(self.unacked.items(), reverse=True))
            self.unacked = {}
        self.consumers.remove(lease)


def leading(queue, name="a", now=0.0, runs=RUNS):
    lease = Lease(name)
    queue.subscribe(lease)
    queue.deliver()
    assert lease.state is State.CLAIMED
    queue.publish(lease.renewal(now, runs))
    queue.deliver()
    return lease


def test_the_first_one_leads_and_holds_one_token():
    queue = Queue()
    lease = leading(queue)
    assert lease.state is State.LEADING
    assert [token.seq for token in queue.unacked.values()] == [1]
    assert not queue.ready


def test_a_second_one_stands_by_and_its_seed_is_acknowledged():
    queue = Queue()
    first, second = leading(queue), Lease("b")
    queue.subscribe(second)
    queue.deliver()
    assert (first.state, second.state) == (State.LEADING, State.STANDBY)
    assert [token.seq for token in queue.unacked.values()] == [1]


def test_the_next_one_has_what_the_leader_renewed_last():
    queue = Queue()
    first, second = leading(queue), Lease("b")
    queue.subscribe(second)
    later = {"nightly": ("2026-11-27T03:00:00+00:00", 8)}
    queue.publish(first.renewal(2.0, later))
    queue.deliver()
    queue.lose(first)
    queue.deliver()
    assert (second.state, second.newest.seq, second.newest.runs) == (State.CLAIMED, 2, later)
    queue.publish(second.renewal(9.0, later))
    queue.deliver()
    assert [(token.seq, token.by) for token in queue.unacked.values()] == [(3, "b")]


def test_a_renewal_that_the_broker_took_counts_though_its_leader_never_heard():
    queue = Queue()
    first, second = leading(queue), Lease("b")
    queue.subscribe(second)
    later = {"nightly": ("2026-11-27T03:00:00+00:00", 8)}
    queue.publish(first.renewal(2.0, later))
    queue.lose(first)
    queue.deliver()
    assert (second.newest.seq, second.newest.runs) == (2, later)


def test_an_old_leader_may_not_send_after_its_time():
    lease = leading(Queue(), now=100.0)
    assert lease.may_send(100.0 + FENCE - 0.1)
    assert not lease.may_send(100.0 + FENCE)


def test_the_fence_counts_from_the_sending_of_what_was_confirmed():
    queue = Queue()
    lease = leading(queue, now=100.0)
    queue.publish(lease.renewal(103.0, RUNS))  # confirmed later
    assert not lease.may_send(100.0 + FENCE)
    queue.deliver()
    assert lease.may_send(103.0 + FENCE - 0.1)


def test_the_fence_is_closed_before_the_broker_can_give_the_lease_away():
    assert RENEW_EVERY * 2 < FENCE < 2 * HEARTBEAT


def test_who_sees_a_newer_token_of_another_has_lost():
    queue = Queue()
    leading(queue)
    queue.publish(Token(5, "b"))
    with pytest.raises(Lost, match="b has led meanwhile"):
        queue.deliver()


def test_a_late_renewal_of_an_old_leader_changes_nothing():
    queue = Queue()
    first = leading(queue, "a")
    late = first.renewal(2.0, {})
    second = Lease("b")
    queue.subscribe(second)
    queue.lose(first)
    queue.deliver()
    queue.publish(second.renewal(9.0, RUNS))
    queue.deliver()
    queue.publish(late)
    queue.deliver()
    assert second.state is State.LEADING
    assert [(token.seq, token.by) for token in queue.unacked.values()] == [(2, "b")]


def test_candidates_that_end_before_they_lead_do_not_fill_the_queue():
    """As with a database that is down, which the schedule is in: Supervisor starts them again and again."""
    queue = Queue(prefetch=20)
    leader = leading(queue)
    queue.lose(leader)
    for number in range(50):
        candidate = Lease(f"c{number}")
        queue.subscribe(candidate)
        queue.deliver()
        assert (candidate.state, candidate.newest.runs) == (State.CLAIMED, RUNS), f"candidate {number}"
        queue.lose(candidate)
        assert len(queue.ready) <= 3
    assert leading(queue, "b").newest.seq == 2


def test_a_candidate_that_ends_leaves_a_message_that_is_new():
    """RabbitMQ drops one that it has delivered too often, and without any the next in line hears nothing."""
    queue = Queue()
    first = Lease("a")
    queue.subscribe(first)
    queue.deliver()
    assert first.held[max(first.held)].id in {token.id for token in queue.unacked.values()}, "its own claim"


@pytest.mark.parametrize("body", ["", "{}", "[]", "no token", '{"seq": "x", "by": 1, "runs": [], "id": 2}'])
def test_what_is_no_token_is_taken_for_a_seed(body):
    assert (Token.load(body).seq, Token.load(body).runs) == (0, {})


def test_a_token_survives_its_way():
    token = Token(3, "a@host", RUNS)
    assert Token.load(token.dump()) == token


@pytest.mark.parametrize("chance", range(20))
def test_whoever_leads_the_renewals_are_counted_on_and_none_is_forgotten(chance):
    """Leaders come, go at any moment, and come back; each renewal counts one run."""
    random.seed(chance)
    queue, told, candidates = Queue(), 0, []
    for step in range(200):
        while len(candidates) < 3:
            candidates.append(Lease(f"{step}-{len(candidates)}"))
            queue.subscribe(candidates[-1])
        queue.deliver()
        active = queue.consumers[0]
        if active.state in (State.CLAIMED, State.LEADING):
            count = active.newest.runs.get("nightly", ("", 0))[1]
            assert count == told
            queue.publish(active.renewal(float(step), {"nightly": ("", count + 1)}))
            told = count + 1
            if random.random() < 0.5:
                queue.deliver()
        assert sum(lease.state in (State.CLAIMED, State.LEADING) for lease in candidates) <= 1
        if random.random() < 0.3:
            gone = random.choice(candidates)
            candidates.remove(gone)
            queue.lose(gone)
