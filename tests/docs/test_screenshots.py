"""The screenshots of the dashboard: few, each shown in its guide, and all taken by one script."""

from __future__ import annotations

import re

from tests.browser.screenshots import PICTURES
from tests.conftest import REPO


def test_the_guide_shows_exactly_the_screenshots_that_the_script_takes() -> None:
    taken = sorted("_".join(picture) + ".png" for picture in PICTURES)
    shown = re.findall(r"\]\(web/(\w+\.png)\)", (REPO / "docs" / "web.md").read_text(encoding="utf-8"))
    assert sorted(shown) == taken
    assert sorted(file.name for file in (REPO / "docs" / "web").iterdir()) == taken
