"""Every fault, under load: nothing is lost, and the system is as before in the promised time by itself.

CELERY_OPS_CHAOS=all runs them all with 2,000 tasks each, and the five commonest CELERY_OPS_CHAOS_RUNS times; otherwise
the eight commonest once, with fewer tasks.
"""

import os

import pytest
from experiment import experiment
from faults import COMMONEST, FAULTS, TWENTY_TIMES, Fault
from subject import Subject

ALL = os.environ.get("CELERY_OPS_CHAOS") == "all"
RUNS = int(os.environ.get("CELERY_OPS_CHAOS_RUNS", "1"))
TASKS = int(os.environ.get("CELERY_OPS_CHAOS_TASKS", "2000" if ALL else "300"))
RATE = float(os.environ.get("CELERY_OPS_CHAOS_RATE", "40"))
CASES = [
    pytest.param(fault, id=f"{fault.key}-{run + 1}")
    for fault in (FAULTS if ALL else COMMONEST)
    for run in range(RUNS if fault in TWENTY_TIMES else 1)
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", CASES)
def test_nothing_is_lost_and_everything_comes_back(fault: Fault, subject: Subject):
    row = experiment(fault, subject, TASKS, RATE)
    print(row)
    assert row["lost"] == 0, row
    assert row["doubled"] == 0 or fault.doubles, row
    assert row["recovery"] <= fault.promise, row
