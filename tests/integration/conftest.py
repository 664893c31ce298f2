"""How the integration tests are spread over processes."""

from support.scheduling import pytest_xdist_make_scheduler  # noqa: F401
