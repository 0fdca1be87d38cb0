from __future__ import annotations

import os
from pathlib import Path

import pytest

from dims_producers.change_batch import ChangeBatch
from dims_producers.home import find_home
from dims_producers.path_list import bounded_paths
from dims_producers.producer_name import producer_name


def test_paths_are_sorted_without_duplicates() -> None:
    assert bounded_paths(["b", "a", "b"]) == ["a", "b"]


@pytest.mark.parametrize("count, known", [(1000, True), (1001, False)])
def test_too_many_paths_are_unknown(count: int, known: bool) -> None:
    assert bool(bounded_paths(f"{i}" for i in range(count))) is known


def test_paths_that_are_too_long_as_json_are_unknown() -> None:
    assert bounded_paths(["x" * 1000 + str(i) for i in range(100)])
    assert bounded_paths(["x" * 1000 + str(i) for i in range(140)]) == []
    assert bounded_paths(["\x01" * 1000 + str(i) for i in range(30)]) == []


def test_a_path_that_is_longer_than_an_event_may_have_makes_the_list_unknown() -> None:
    assert bounded_paths(["ü" * 2048, "a"]) == ["a", "ü" * 2048]
    assert bounded_paths(["ü" * 2048 + "x", "a"]) == []


def test_a_name_that_is_not_utf8_makes_the_list_unknown() -> None:
    assert bounded_paths(["fine", os.fsdecode(b"caf\xe9")]) == []


def test_a_producer_name_has_kind_host_and_path() -> None:
    assert producer_name("git", "/a b/ü", host="h:1") == "dims:git.h%3A1:/a%20b/%C3%BC"
    assert producer_name("enqueue", host="h") == "dims:enqueue.h"
    assert producer_name("git", "/" + "ü" * 2000, host="h").startswith("dims:git.h:sha256-")
    assert producer_name("git", os.fsdecode(b"/caf\xe9"), host="h") == "dims:git.h:/caf%E9"


def test_the_data_directory_is_dims_home_or_the_nearest(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "a" / ".dims").mkdir()
    assert find_home({}, below) == tmp_path / "a" / ".dims"
    assert find_home({"DIMS_HOME": "x"}, below) == below / "x"
    assert find_home({"DIMS_HOME": "/x"}, below) == Path("/x")
    assert find_home({"DIMS_HOME": ""}, tmp_path) in (None, find_home({}, tmp_path.parent))


def test_changes_are_due_when_the_folder_is_quiet_or_after_the_longest_wait() -> None:
    changes = ChangeBatch(settle=0.3, longest=2.0)
    assert changes.due() is None
    assert changes.add("a", 10.0)
    assert not changes.add("b", 10.2)
    assert changes.due() == pytest.approx(10.5)
    for tick in range(100):
        changes.add("b", 10.2 + tick * 0.1)
    assert changes.due() == pytest.approx(12.0)
    assert changes.take() == ["a", "b"]
    assert changes.due() is None


def test_a_new_batch_is_not_unknown() -> None:
    changes = ChangeBatch(0.3)
    changes.add("a", 0)
    changes.add(None, 0)
    assert changes.take() == []
    for i in range(5000):
        changes.add(str(i), 1)
    assert changes.take() == []
    changes.add("c", 2)
    assert changes.take() == ["c"]
