"""The part of celery-ops that lives in an application's virtualenv.

An application needs one line of it: ``app.config_from_object("celery_ops.settings")``.
"""

__version__ = "0.1.0"
