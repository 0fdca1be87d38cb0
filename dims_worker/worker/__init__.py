"""The Celery application and what runs beside its tasks: dispatcher, sweep, retention."""
