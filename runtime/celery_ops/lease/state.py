"""The rules of the lease, without a broker or a clock: who leads, for how long, and what a successor has to know.

The lease is a token in a quorum queue with a single active consumer: RabbitMQ delivers to one consumer alone, and to
the next one when that is gone. The leader renews the token by publishing its successor; the successor has to come back
before the leader acknowledges what it held. So a token is never away, and whoever holds the newest one leads.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

RENEW_EVERY = 1.5
"""Seconds between two renewals."""
FENCE = 3.5
"""Seconds, from the sending of the last confirmed renewal, for which the leader may send.

RabbitMQ gives the lease of a leader that is frozen or cut off to another one after 2 HEARTBEATs at the earliest.
"""
HEARTBEAT = 4
"""Seconds of AMQP's heartbeat."""

Runs = dict[str, tuple[str, int]]
"""By an entry's name, when it ran last (ISO 8601) and how often."""


class Lost(Exception):
    """The lease is lost, or can't be proven; the reason is for the operator."""


class State(Enum):
    """What a candidate is."""

    STANDBY = "standby"
    CLAIMING = "claiming"
    """The first token came: this is the active consumer. What the queue holds is being read to its end."""
    CLAIMED = "claimed"
    LEADING = "leading"


@dataclass(frozen=True)
class Token:
    """One message of the lease's queue. `seq` counts the renewals; 0 is a seed, which leads to nothing by itself."""

    seq: int
    by: str
    runs: Runs = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def dump(self) -> str:
        """Return the message's body."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, body: Any) -> Token:
        """Return what a body says; of one that is no token, a seed that nobody has published."""
        try:
            found = json.loads(body)
            runs = {str(name): (str(last), int(count)) for name, (last, count) in found["runs"].items()}
            return cls(int(found["seq"]), str(found["by"]), runs, str(found["id"]))
        except (ValueError, TypeError, LookupError, AttributeError):
            return cls(0, "")


class Lease:
    """One candidate's view of the lease, over one connection. Times are seconds of a clock that counts suspension."""

    def __init__(self, by: str) -> None:
        self.by = by
        self.state = State.STANDBY
        self.held: dict[int, Token] = {}
        """What was delivered and is not acknowledged, by delivery tag."""
        self.pending: Token | None = None
        """What was published and has to come back."""
        self.newest = Token(0, by)
        self.sent = 0.0
        self.valid_until = 0.0

    def seed(self) -> Token:
        """Return what every candidate puts into the queue, so that there is something to be delivered."""
        return Token(0, self.by)

    def claim(self) -> Token:
        """Return what comes back after all that is in the queue: the newest token is then among what is held."""
        self.pending = self.seed()
        return self.pending

    def renewal(self, now: float, runs: Runs) -> Token:
        """Return the token that replaces the newest one; `now` is when it is sent."""
        self.pending, self.sent = Token(self.newest.seq + 1, self.by, runs), now
        return self.pending

    def received(self, tag: int, token: Token) -> list[int]:
        """Take a delivery; return the tags to acknowledge. Raises Lost where another one has led meanwhile."""
        self.held[tag] = token
        if self.pending is None or token.id != self.pending.id:
            if self.state is State.LEADING:
                return self._received_beside(tag, token)
            if self.state is State.STANDBY:
                self.state = State.CLAIMING
            return self._older()
        self.pending = None
        if self.state is State.CLAIMING:
            self.newest = max(self.held.values(), key=lambda one: one.seq)
            self.state = State.CLAIMED
            return []
        self.state, self.newest, self.valid_until = State.LEADING, token, self.sent + FENCE
        done = [each for each in self.held if each != tag]
        self.held = {tag: token}
        return done

    def _older(self) -> list[int]:
        """Forget all but the newest token while the queue is read to its end; return the tags to acknowledge.

        Candidates that end before they lead leave their seeds: more of them than the broker delivers at a time would
        keep the end from being read.
        """
        newest = max(self.held, key=lambda tag: self.held[tag].seq)
        done = [tag for tag in self.held if tag != newest]
        self.held = {newest: self.held[newest]}
        return done

    def _received_beside(self, tag: int, token: Token) -> list[int]:
        if token.seq > self.newest.seq and token.by != self.by:
            raise Lost(f"{token.by} has led meanwhile (renewal {token.seq}, this one's is {self.newest.seq})")
        del self.held[tag]
        return [tag]

    def may_send(self, now: float) -> bool:
        """Whether a task may be sent."""
        return self.state is State.LEADING and now < self.valid_until

    def age(self, now: float) -> float:
        """Return the seconds since the last confirmed renewal was sent."""
        return now - (self.valid_until - FENCE)

    def due_in(self, now: float) -> float:
        """Return the seconds until the next renewal is due."""
        return max(0.0, self.sent + RENEW_EVERY - now)
