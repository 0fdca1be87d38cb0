"""A worker bootstep that reports and observes its worker, and the signals of Celery that note its progress."""

from __future__ import annotations

import logging
from typing import Any

from billiard import current_process
from celery import bootsteps, signals

from dims_worker.broker.outage_log import BROKER, outages
from dims_worker.broker.queues import INGEST
from dims_worker.store.engine import engine
from dims_worker.store.process_reporter import ProcessReporter, identify_process
from dims_worker.worker.progress import progress
from dims_worker.worker.watchdog import WorkerWatchdog, end_stalled_worker

log = logging.getLogger(__name__)


class ProcessStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the threads that report and observe the worker, and stops them with the worker."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.reporter: ProcessReporter | None = None
        self.watchdog: WorkerWatchdog | None = None

    def start(self, worker: Any) -> None:
        config, queues = worker.app.dims_config, set(worker.app.amqp.queues.consume_from)
        if config.database_url is None:
            return  # a task that needs the database reports what to set
        watchdog = WorkerWatchdog(worker, config, progress, queues, self._end)
        role = "ingest" if queues == {INGEST} else "worker"
        identity = identify_process(role, config, name=worker.hostname, queues=queues)
        self.reporter = ProcessReporter(
            engine(config.database_url),
            identity,
            config.settings.sweep,
            lambda: progress.report(watchdog.problem or outages.problem(BROKER)),
        )
        self.watchdog = watchdog
        self.reporter.start()
        watchdog.start()

    def stop(self, worker: Any) -> None:
        if self.watchdog:
            self.watchdog.stop()
        if self.reporter:
            self.reporter.stop()

    def _end(self, reason: str) -> None:
        """End the worker. Its watchdog calls this in its own thread."""
        assert self.reporter is not None
        assert self.watchdog is not None
        self.reporter.report_now()
        end_stalled_worker(self.watchdog, progress, reason)


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
