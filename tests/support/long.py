"""Tests that take minutes each: `make chaos` runs them, `make operate` those of the verbs; CI leaves them out."""

import os

import pytest

ALL = os.environ.get("CELERY_OPS_CHAOS") == "all"
LONG = pytest.mark.skipif(not ALL, reason="make chaos or make operate runs it")
