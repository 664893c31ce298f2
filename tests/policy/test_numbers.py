"""Numbers that the pages say are those of the code."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.action import deploy_lock
from ansible_collections.celery_ops.kit.plugins.module_utils import (
    delayed,
    host_work,
    layout,
    notices,
    task_lists,
    usage,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.disk import FULL_SHARE
from ansible_collections.celery_ops.kit.plugins.module_utils.status.broker import LOOKED
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor import intake
from ansible_collections.celery_ops.kit.plugins.plugin_utils import certificates
from celery_ops import arrays, publish, shared_memory
from celery_ops.cli import check, dead_letters
from celery_ops.launch import listener
from celery_ops.lease import state
from celery_ops.watchdog import assessment, recycling, ring, telling, tracker
from celery_ops.worker import acks, heartbeat, results, revoked, task_list
from kit import ROOT

MIB, DAY, MINUTE = 2**20, 86400, 60
WORDS = {2: "two", 3: "three", 5: "five", 10: "ten"}
SAID = {
    "docs/architecture.md": [
        f"stale after {layout.LEASE_TIMEOUT:g} seconds",
        f"calls of at most {host_work.CALL:g} seconds",
        f"({layout.STOP_MARGIN} s more)",
        f"void after {WORDS[intake.AT_MOST / MINUTE]} minutes",
        f"renews it every {WORDS[deploy_lock.RENEW_EVERY]} seconds",
    ],
    "docs/dead-letters.md": [f"reads the first {dead_letters.LOOK} messages"],
    "docs/fleet.md": [
        f"valid for {certificates.LIFETIME.days} days",
        f"from the {certificates.RENEW.days}th day before its end",
        f"a problem {layout.CERTIFICATE_DAYS} days before",
        f"every {state.RENEW_EVERY:g} s",
        f"renewal was sent {state.FENCE:g} s ago",
        f"(heartbeat {state.HEARTBEAT} s)",
        f"for up to {WORDS[results.PATIENCE / MINUTE]} minutes",
    ],
    "docs/operations.md": [
        f"frees itself after {layout.LEASE_TIMEOUT:g} s",
        f"{task_list.MOST} tasks at most",
        f"older than {task_lists.STALE:g} s",
        f"the first {delayed.LOOKED} messages of each",
        f"up to {recycling.PAUSES[1]:g} s, while it takes too much in its first {recycling.PAUSES[0]:g} s",
        f"the seconds until the end, or {listener.RETRY_AFTER}",
        f"no answer comes within {check.BUSY_AFTER:g} s",
        f"{notices.LINES} at most",
        f"has {notices.DEADLINE} seconds",
        f"with {telling.LINES} lines",
        f"fewer than {WORDS[usage.FEW / MINUTE]} minutes of samples",
        f"for {revoked.KEEP // DAY} days",
    ],
    "docs/status.md": [f"{FULL_SHARE:g} % full", f"the first {LOOKED} in the queue"],
    "docs/watchdog.md": [
        "after {:g} s SIGCONT, after {:g} s TERM, after {:g} s KILL".format(*assessment.FROZEN),
        f"after {assessment.DEAF:g} s TERM",
        f"after {assessment.STUCK:g} s TERM",
        f"silent for {assessment.LATE + heartbeat.EVERY:g} s",
        f"none of the waiting tasks for {assessment.IDLE:g} s",
        f"has drained for {assessment.MARGIN:g} s more",
        f"it waits {tracker.PAUSES[0]:g} s before",
        f"up to {tracker.PAUSES[1] / MINUTE:g} minutes",
        f"({ring.SAMPLES} samples, {ring.NAMES} queues)",
        f"({ring.DAY_SAMPLES})",
        f"the newest {revoked.MOST_STAMPS:,} are kept",
    ],
    "docs/your-app.md": [
        f"`unconfirmed` ({publish.UNCONFIRMED})",
        f"more than {arrays.MAX_BYTES // MIB} MiB",
        f"take {shared_memory.MOST // MIB} MiB at most",
        f"for {acks.HOLD * 1000:g} ms at most",
    ],
}


@pytest.mark.parametrize("page", SAID)
def test_a_page_says_the_number_of_the_code(page):
    text = " ".join((ROOT / page).read_text().split())
    assert [said for said in SAID[page] if said not in text] == []
