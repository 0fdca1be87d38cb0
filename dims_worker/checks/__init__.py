"""Checks of everything that should run. `dims status`, `dims doctor`, the dashboard and the exporter share them."""

from __future__ import annotations

from dims_worker.checks.check import STATES, Check, State, worst_state

__all__ = ["STATES", "Check", "State", "worst_state"]
