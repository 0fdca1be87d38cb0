"""Build the zip of the S3 Lambda from the installed packages: `python -m dims_producers.lambda_zip [FILE]`.

It contains the modules that `dims_producers.s3_lambda` imports, and redis with its dependencies. All are compiled for
the Python that builds the zip, because a Lambda would compile them again at each cold start. The same files give the
same zip, byte for byte. Nothing is downloaded.
"""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import dims_producers
import dims_worker
from dims_worker.errors import DimsError, ServiceError

HANDLER = "dims_producers.s3_lambda"

_FILE = Path("build/dims-s3-lambda.zip")
_OURS = ("dims_producers/", "dims_worker/")
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest time in a zip
_TIMED = f"""
import sys, time
sys.path.insert(0, sys.argv[1])
start = time.perf_counter()
import {HANDLER}
print(time.perf_counter() - start)
"""


def build(file: Path) -> int:
    """Write the zip and return the number of its files. Raises ServiceError if redis cannot be packed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for target, source in (*_ours(), *_theirs("redis", set())):
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            (folder / target).write_bytes(source.read_bytes())
        # In a new process: the bytes of a compiled file depend a little on what its process did before.
        _python("-m", "compileall", "-q", "-s", name, "--invalidation-mode", "unchecked-hash", name)
        paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        file.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(file, "w") as archive:
            for path in paths:
                info = zipfile.ZipInfo(path, _TIME)
                info.external_attr, info.compress_type = 0o100644 << 16, zipfile.ZIP_DEFLATED
                archive.writestr(info, (folder / path).read_bytes(), compresslevel=9)
    return len(paths)


def cold_import(file: Path, times: int = 5) -> float:
    """Return the median of the seconds that a new Python takes to import the handler from the unpacked zip only."""
    with tempfile.TemporaryDirectory() as name:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(name)
        return statistics.median(float(_python("-S", "-B", "-c", _TIMED, name)) for _ in range(times))


def _ours() -> Iterator[tuple[str, Path]]:
    """Yield the modules of this project that the handler imports, directly or not, anywhere in a file."""
    seen = set()
    waiting = ["dims_producers/__init__.py", "dims_worker/__init__.py", f"{HANDLER.replace('.', '/')}.py"]
    while waiting:
        target = waiting.pop()
        if target in seen:
            continue
        seen.add(target)
        yield target, _source(target)
        for node in ast.walk(ast.parse(_source(target).read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                files = (f"{name.replace('.', '/')}.py" for name in names)
                waiting += [file for file in files if file.startswith(_OURS) and _source(file).is_file()]


def _source(target: str) -> Path:
    """Return where a file of the zip is installed. In a checkout, the two packages are in different folders."""
    package = dims_worker if target.startswith("dims_worker/") else dims_producers
    return Path(str(package.__file__)).parents[1] / target


def _theirs(name: str, seen: set[str]) -> Iterator[tuple[str, Path]]:
    """Yield the sources and the licence of a distribution and of its installed dependencies.

    A dependency that is not installed is for other versions of Python. The installer has left it out.
    """
    package = distribution(name)
    seen.add(name)
    for file in package.files or ():
        if file.suffix in (".so", ".pyd"):
            raise ServiceError(f"{name} is compiled for this machine ({file}) and may not run in a Lambda")
        if file.suffix == ".py" or file.name == "METADATA" or "LICENSE" in file.name:
            yield file.as_posix(), Path(str(file.locate()))
    if not package.files:
        raise ServiceError(f"{name} has no list of its files. Install it with pip.")
    for requirement in package.requires or ():
        other = re.split(r"[^\w.-]", requirement)[0].lower()
        if "extra ==" not in requirement and other not in seen:
            try:
                yield from _theirs(other, seen)
            except PackageNotFoundError:
                continue


def _python(*arguments: str) -> str:
    return subprocess.run([sys.executable, "-I", *arguments], check=True, capture_output=True, text=True).stdout


def main(argv: Sequence[str] | None = None) -> int:
    """Build the zip, and print its size and the time of a cold import."""
    arguments = sys.argv[1:] if argv is None else argv
    file = Path(arguments[0]) if arguments else _FILE
    try:
        count = build(file)
    except (DimsError, OSError) as error:
        sys.stderr.write(f"lambda_zip: {error}\n")
        return error.exit_code if isinstance(error, DimsError) else 3
    size, version = file.stat().st_size / 1e6, "python{}.{}".format(*sys.version_info[:2])
    sys.stdout.write(
        f"{file}: {size:.2f} MB, {count} files, redis {distribution('redis').version}, for the runtime {version}\n"
        f"cold import: {cold_import(file) * 1000:.0f} ms (the handler with redis, median of 5 fresh processes)\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
