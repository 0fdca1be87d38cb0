"""Keep files with the owner of their folder, even if root creates them.

If `sudo dims ...` left files of root in the spool, the user whose data directory it is could not report a commit any
more.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Create `folder` and the folders above it that are missing. They get the owner of the folder that they are in."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):  # another process was faster
        folder.mkdir()
        give_to_owner(folder, folder.parent)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def give_to_owner(file: Path | int, folder: Path) -> None:
    """Give `file` (a path or a descriptor) to the owner of `folder`, if this process runs as root."""
    if os.geteuid() != 0:
        return
    status = folder.stat()
    if isinstance(file, int):
        os.fchown(file, status.st_uid, status.st_gid)
    else:
        os.chown(file, status.st_uid, status.st_gid, follow_symlinks=False)
