"""What a supervisor left behind when it was killed: found by its notes and its processes' mark."""

from __future__ import annotations

from dims_worker.services import process
from dims_worker.services.home import Home, read_json
from dims_worker.services.process import Identity


def end_orphans(home: Home, grace: float) -> list[str]:
    """End the processes of a dead supervisor, the last of its Procfile first; a sentence for each.

    The caller has the home (`hold`): with a living supervisor these are no orphans.
    """
    sentences = []
    notes = read_json(home.processes_json)
    for note in reversed(notes.get("processes", [])):
        leader = Identity.from_json(note)
        if leader is None or not process.family(leader):
            continue
        process.end_family(leader, grace)
        sentences.append(f"{note['name']} (pid {leader.pid}), left by an earlier run, was ended.")
    # One that was started in the instant before the supervisor's death is in no notes.
    for stray in process.marked(home.path):
        if stray.alive():
            process.end_family(stray, grace)
            sentences.append(f"A process (pid {stray.pid}), left by an earlier run, was ended.")
    return sentences
