"""The probe of CONTRIBUTING.md, put together from the blocks of the page and run against the code as it is."""

from __future__ import annotations

import re
import shutil
import types
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dims_worker import config
from dims_worker.config import metrics, sources
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Probe, ScanContext

REPO = Path(__file__).parents[2]
PAGE = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")
SOURCE, METRIC, PROBE, CASE, UNIT_TEST = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


def defined(code: str, within: dict[str, Any]) -> types.SimpleNamespace:
    """What the code defines, as if it were part of a module with these names."""
    names = dict(within)
    exec(compile(code, "CONTRIBUTING.md", "exec", dont_inherit=True), names)
    return types.SimpleNamespace(**names)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """The classes of the page: DiskSource, DiskMetric and DiskProbe."""
    source = defined(SOURCE, vars(sources)).DiskSource
    metric = defined(METRIC, vars(metrics)).DiskMetric
    monkeypatch.setattr(config, "DiskSource", source, raising=False)
    monkeypatch.setattr(config, "DiskMetric", metric, raising=False)
    return defined(PROBE, {"__name__": "dims_worker.probes.disk.probe"})


def test_the_probe_of_the_page_measures(page: types.SimpleNamespace, tmp_path: Path) -> None:
    assert isinstance(page.DiskProbe(), Probe)
    context, deadline = ScanContext(tmp_path, tmp_path / ".dims"), Deadline.after(timedelta(seconds=30))
    wanted = {"m.total": page.DiskMetric(source="x", measure="total", unit="GB")}
    (reading,) = page.DiskProbe().scan(page.DiskSource(type="disk"), wanted, context, deadline).readings
    assert (reading.metric, reading.unit, reading.method) == ("m.total", "GB", "exact")
    assert reading.value == shutil.disk_usage(tmp_path).total / 10**9
    with pytest.raises(MeasureError, match="gone"):
        page.DiskProbe().scan(page.DiskSource(type="disk", path="gone"), wanted, context, deadline)


def test_the_unit_test_of_the_page_passes(page: types.SimpleNamespace, tmp_path: Path) -> None:
    context, deadline = ScanContext(tmp_path, tmp_path / ".dims"), Deadline.after(timedelta(seconds=30))
    test = defined(UNIT_TEST, vars(page)).test_the_total_is_the_size_of_the_file_system
    test(context, deadline)


def test_the_case_of_the_page_fits_the_contract(page: types.SimpleNamespace) -> None:
    contract = (REPO / "tests" / "integration" / "probes" / "test_contract.py").read_text(encoding="utf-8")
    assert re.search(r"^def _every\(", contract, re.M)
    assert re.search(r"^CASES = ", contract, re.M)
    assert re.search(r"^def command\(tmp_path: Path, _store: Store\) -> dict\[str, Any\]:$", contract, re.M)
    assert CASE.startswith("def disk(tmp_path: Path, _store: Store) -> dict[str, Any]:\n")


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`((?:dims_worker|tests|docs|producers)/[\w./]+)`", PAGE)) - {"dims_worker/probes/disk/"}
    assert len(named) > 4
    assert [name for name in sorted(named) if not (REPO / name).exists()] == []
