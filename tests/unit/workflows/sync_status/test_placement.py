"""Random keys and local files: the differences with a command can all be copied, and then only the others differ."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dims_worker.probes.base import Deadline
from dims_worker.probes.s3.local_tree import LocalTree
from dims_worker.probes.s3.sync import PairDifferences, SyncMerge
from dims_worker.workflows.sync_status.placement import fold, refused_differences

NFC, NFD = "\u00e9", unicodedata.normalize("NFD", "\u00e9")
PART = st.sampled_from(["a", "A", "b", NFC, NFD, "stra\u00dfe", "STRASSE", "n" * 256])
KEY = st.lists(st.one_of(PART, st.sampled_from(["", ".", "..", "a"])), min_size=1, max_size=3).map("/".join)
PATH = st.lists(PART.filter(lambda part: len(part) < 99), min_size=1, max_size=3).map("/".join)


def compare(folder: Path, objects: Mapping[str, bytes]) -> PairDifferences:
    tree = LocalTree(str(folder), "p/", "/elsewhere", Deadline.after(timedelta(seconds=60)))
    merge = SyncMerge(tree, lambda _: True, True, math.inf)
    entries: list[Any] = [
        {"Key": key, "Size": len(body), "ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'}
        for key, body in sorted(objects.items())
    ]
    merge.add(entries)
    merge.finish()
    assert merge.failure is None
    return PairDifferences(str(folder), "p/", tuple(merge.kept), tuple(merge.markers))


def put(path: Path, content: bytes) -> None:
    """Write a file if nothing is in its way."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            path.write_bytes(content)
    except (FileExistsError, NotADirectoryError):
        return


def copy(key: str, path: str, objects: dict[str, bytes], *, up: bool) -> None:
    """Copy as the command does: it makes folders, and it follows links."""
    if up:
        objects[key] = Path(path).read_bytes()
        return
    assert not os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114 - `..` must stay in the path
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
    assert not os.path.exists(path)  # noqa: PTH110
    with open(path, "xb") as file:  # noqa: PTH123
        file.write(objects[key])


def files(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(KEY, st.sampled_from([b"", b"1", b"2"]), max_size=8),
    st.dictionaries(PATH, st.sampled_from([b"", b"1", b"2"]), max_size=8),
    st.sets(PATH, max_size=2),
)
def test_only_the_refused_differences_remain(
    objects: dict[str, bytes], local: dict[str, bytes], links: set[str]
) -> None:
    place = Path(tempfile.mkdtemp())
    try:
        folder = place / "copy"
        (place / "outside").mkdir()
        folder.mkdir()
        for name in links:
            if not (folder / name).parent.exists() or os.path.lexists(folder / name):
                continue
            (folder / name).symlink_to(place / "outside")
        for name, content in local.items():
            if not links & {name, *map(str, Path(name).parents)}:
                put(folder / name, content)
        check(place, folder, {f"p/{name}": body for name, body in objects.items()})
    finally:
        shutil.rmtree(place)


def check(place: Path, folder: Path, objects: dict[str, bytes]) -> None:
    before = compare(folder, objects)
    refused = refused_differences([before], {}, "/elsewhere", Deadline.after(timedelta(seconds=60)))
    kept, stored = files(place), dict(objects)
    for each in before.differences:
        if each not in refused and each.kind != "different":
            copy(each.key, each.path, objects, up=each.kind == "only_local")
    after = compare(folder, objects)
    assert {each.key for each in after.differences} == {
        each.key for each in before.differences if each in refused or each.kind == "different"
    }
    now = files(place)
    assert {name: now[name] for name in kept} == kept and {key: objects[key] for key in stored} == stored
    assert all(name.startswith("copy/") for name in now.keys() - kept.keys())
    check_letters(folder, before, refused.keys())


def check_letters(folder: Path, before: PairDifferences, refused: Any) -> None:
    """Nothing with a command shares a path with another where letter case and Unicode forms do not count."""
    taken = Counter(fold(str(path)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    for each in before.differences:
        if each not in refused:
            assert taken[fold(each.path)] == 1, each
            others = {other.path for other in before.differences if fold(other.path) == fold(each.path)}
            assert others == {each.path}
