"""The commands: each module is ``celery-ops-<its name>`` in the bin directory of a release."""
