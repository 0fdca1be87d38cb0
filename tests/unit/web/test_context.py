"""The filters of the templates."""

from __future__ import annotations

import pytest

from dims_worker.web.context import breakable_name, breakable_value, code_spans


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("`dims up` starts `it`", "<code>dims up</code> starts <code>it</code>"),
        ("a `<b>` & a lone `", "a <code>&lt;b&gt;</code> &amp; a lone `"),
        ("turned \u202eround", r"turned \x202eround"),
        ("``", "``"),
    ],
)
def test_text_in_backticks_becomes_code(text: str, page: str) -> None:
    assert code_spans(text) == page


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("+1,234,567 files", "+1,<wbr>234,<wbr>567 files"),
        ("a, b", "a, b"),
        ("<b>1,2", "&lt;b&gt;1,<wbr>2"),
    ],
)
def test_a_number_may_wrap_after_its_commas(text: str, page: str) -> None:
    assert breakable_value(text) == page


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("s3.total_objects", "s3.<wbr>total_<wbr>objects"),
        ("plain", "plain"),
        ("a_<b>.c_", "a_&lt;b&gt;.<wbr>c_"),
    ],
)
def test_a_name_may_wrap_between_its_words(name: str, page: str) -> None:
    assert breakable_name(name) == page
