"""What `celery-ops-inspect` judges of an application beside its settings' values."""
