"""Run all benchmarks (`make bench`), or the named ones (`python -m benchmarks git_hook`)."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = (
    "git_hook",
    "files_walk",
    "s3_listing",
    "event_throughput",
    "event_latency",
    "event_drain",
    "busy_day",
    "slow_sources",
    "event_limits",
    "report_html",
    "history_scale",
    "expectation",
    "record_bands",
    "incident_year",
    "web_overview",
)

for name in sys.argv[1:] or BENCHMARKS:
    importlib.import_module(f"benchmarks.{name}").main()
