"""Run a workflow in a scan process, which is killed if it does not end in time."""

from __future__ import annotations

from collections.abc import Callable

from dims_worker.config import Config
from dims_worker.config.runtime import WORKFLOW
from dims_worker.errors import NotFound
from dims_worker.probes.scan_process.pool import ProcessCall, never, pool_for
from dims_worker.workflows.base import Progress, WorkflowOutcome, no_progress
from dims_worker.workflows.registry import failed_outcome, run_workflow


class RunningWorkflow:
    """What `run_workflow` does, in another process. `progress` is called in this one, by `outcome`.

    Raises NotFound if the workflow is not configured.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        *,
        quick: bool = False,
        options: frozenset[str] = frozenset(),
        progress: Progress = no_progress,
        with_metrics: bool = True,
    ) -> None:
        short = name.removeprefix(WORKFLOW)
        declared = config.workflow_of(f"{WORKFLOW}{short}")
        if declared is None:
            raise NotFound(f"the workflow {short} is not configured in {config.file}")
        self._config, self._name, self._quick = config, short, quick
        self._pool = pool_for(config)
        arguments = (short, quick, options, with_metrics)
        seconds = declared.timeout.total_seconds()
        self._call = ProcessCall(f"the workflow {short}", _run, arguments, seconds, progress)
        self._pool.start(self._call)

    def outcome(self, stop: Callable[[], bool] = never) -> WorkflowOutcome:
        """Wait for the outcome. It is failed if the workflow exceeds its timeout or ends its process.

        Raises ScanStopped if `stop` returns True first.
        """
        self._pool.wait(self._call, stop)
        if failure := self._call.failure:
            return failed_outcome(self._config, self._name, failure.reason, quick=self._quick, crashed=failure.crashed)
        outcome: WorkflowOutcome = self._call.result
        return outcome


def _run(
    config: Config, progress: Progress, name: str, quick: bool, options: frozenset[str], with_metrics: bool
) -> WorkflowOutcome:
    return run_workflow(config, name, quick=quick, options=options, progress=progress, with_metrics=with_metrics)
