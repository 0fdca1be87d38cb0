"""A worker bootstep that reports the worker in `dims_processes`, and the signals of Celery that note its progress."""

from __future__ import annotations

import logging
from typing import Any

from billiard import current_process
from celery import bootsteps, signals

from dims_worker.broker.queues import INGEST
from dims_worker.store.engine import engine
from dims_worker.store.process_reporter import ProcessReporter, identify_process
from dims_worker.worker.progress import progress

log = logging.getLogger(__name__)


class ProcessStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the thread that writes the worker's row, and stops it with the worker, which deletes the row."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.reporter: ProcessReporter | None = None

    def start(self, worker: Any) -> None:
        config, queues = worker.app.dims_config, set(worker.app.amqp.queues.consume_from)
        if config.database_url is None:
            return  # a task that needs the database reports what to set
        role = "ingest" if queues == {INGEST} else "worker"
        identity = identify_process(role, config, name=worker.hostname, queues=queues)
        self.reporter = ProcessReporter(engine(config.database_url), identity, config.settings.sweep, progress.report)
        self.reporter.start()

    def stop(self, worker: Any) -> None:
        if self.reporter:
            self.reporter.stop()


def _child_number() -> int:
    """Return the number of this child in its pool. A child that replaces another has its number."""
    return int(getattr(current_process(), "index", 0) or 0)


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _note_child(**_: Any) -> None:
    progress.child_started(_child_number())


@signals.task_prerun.connect  # type: ignore[untyped-decorator]
def _note_start_of_task(**_: Any) -> None:
    progress.task_started(_child_number())


@signals.task_postrun.connect  # type: ignore[untyped-decorator]
def _note_end_of_task(**_: Any) -> None:
    progress.task_ended(_child_number())
