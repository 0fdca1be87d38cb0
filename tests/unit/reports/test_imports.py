"""What the reports need beside the base installation."""

from __future__ import annotations

import subprocess
import sys

EXTRAS = ("pandas", "plotly", "starlette", "xlsxwriter")
CODE = """
import sys
for name in sys.argv[1:]:
    sys.modules[name] = None  # importing it fails
from dims_worker.reports import excel, html, json_csv, markdown, spreadsheet
assert html.environment().get_template("report.html")
"""


def test_reports_load_without_the_packages_of_other_extras() -> None:
    subprocess.run([sys.executable, "-c", CODE, *EXTRAS], check=True)
