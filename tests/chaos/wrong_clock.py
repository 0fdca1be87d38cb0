"""A clock that a test can move while processes run. A small C library replaces the time of day in these processes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


class WrongClock:
    """The clock of the processes that are started with `variables`. It is right at first.

    It needs a C compiler. `problem` says why it cannot move, or is empty.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"clock-{name}"
        self._library = folder / "wrong_clock.so"
        self.problem = "" if self._library.exists() else self._build()
        self.move(0)

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of its processes."""
        if self.problem:
            return {}
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK_FILE": str(self._file)}

    def move(self, seconds: int) -> None:
        """Set the clock to the true time and these seconds. Processes notice it within a second."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{seconds:+d}\n", encoding="utf-8")
        draft.replace(self._file)

    def _build(self) -> str:
        compiler = shutil.which("cc")
        if compiler is None:
            return "no C compiler (`cc`) is installed"
        argv = [compiler, "-shared", "-fPIC", "-O2", "-o", str(self._library), str(SOURCE)]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
        return f"cc failed: {done.stderr.strip()}" if done.returncode else ""
