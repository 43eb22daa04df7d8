"""Fetching large files over HTTP: several at once, each going on where it was cut off.

A file grows as ``NAME.part`` beside its place and bears its name only when it is whole and verified. What was begun
stays there between runs, with a note of what it is part of (``NAME.part.json``), so that bytes of another version of
the file are never joined to it.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from lexicell.errors import InputError, raise_all

THREADS = 4
_TRIES = 5  # in a row that bring nothing
_WAIT = 1.0  # seconds before the second try; doubled every time
_TIMEOUT = 60.0  # seconds without a byte
_PIECE = 1 << 20
_HDF5 = (".hdf5", ".h5", ".h5ad")


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server.

    Parameters
    ----------
    name
        Path in the folder that it goes to, with forward slashes.
    url
        Where it is.
    size
        Bytes; None where nobody says.
    md5
        MD5 as hex; None where nobody says. Then an HDF5 file must at least open.
    """

    name: str
    url: str
    size: int | None = None
    md5: str | None = None


class _CutOffError(Exception):
    """Nothing that a later try could not mend."""


class _StoppedError(Exception):
    """Another file failed for good, or the user has had enough."""


def download(
    files: Sequence[RemoteFile],
    folder: Path,
    done: Callable[[str, dict[str, Any]], None],
    *,
    threads: int = THREADS,
) -> None:
    """Fetch files into a folder.

    Parameters
    ----------
    files
        What to fetch; a file that stands at its place is replaced.
    folder
        Where to.
    done
        Called in this thread with the name of each file that is whole, and its facts: size, mtime_ns, sha256, md5, url.
    threads
        Files that are fetched at once.

    Raises
    ------
    InputError
        With every file that could not be fetched. What came of them is kept, except where it is not what it should be.
    """
    stop = threading.Event()
    faults = []
    with _bars() as bars, ThreadPoolExecutor(threads) as pool:
        try:
            jobs = {pool.submit(_Fetch(file, folder, stop, bars).run): file for file in files}
            for job in as_completed(jobs):
                try:
                    done(jobs[job].name, job.result())
                except InputError as error:
                    faults.append(str(error))
                except _StoppedError:
                    continue
                except OSError as error:
                    stop.set()
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    faults.append(
                        f"{folder}: the disk is full; what came is kept: free some space and run the same command again"
                    )
        finally:
            stop.set()  # for the threads, when the user interrupts
    raise_all(faults, "Not everything could be fetched:")


def fetch_bytes(url: str, *, limit: int = 100_000_000) -> bytes:
    """Return a small file, such as a list of others.

    Raises
    ------
    InputError
        When it cannot be had, or is larger than `limit`.
    """
    stop = threading.Event()
    for attempt in range(_TRIES):
        try:
            with _request(url) as response:
                content: bytes = response.read(limit + 1)
            if len(content) > limit:
                raise InputError(f"{url}: is larger than {limit:,} bytes; this cannot be right")
            return content
        except _CutOffError as error:
            reason = str(error)
        stop.wait(_WAIT * 2**attempt)
    raise InputError(f"{url}: {reason}; check the network and the address, and try again")


def size_of(url: str) -> int | None:
    """Return the size of a file on a server, in bytes; None where the server does not say.

    Raises
    ------
    InputError
        When the file is not there.
    """
    try:
        with _request(url, method="HEAD") as response:
            length = response.headers.get("Content-Length")
    except _CutOffError:
        return None
    return int(length) if length and length.isdigit() else None


class _Fetch:
    """One file on its way."""

    def __init__(self, file: RemoteFile, folder: Path, stop: threading.Event, bars: Progress) -> None:
        self._file = file
        self._target = folder / file.name
        self._part = part_of(self._target)
        self._mark = self._part.with_name(self._part.name + ".json")
        self._stop = stop
        self._bars = bars
        self._bar = bars.add_task(Path(file.name).name, total=file.size)

    def run(self) -> dict[str, Any]:
        """Fetch, verify and name it; return its facts."""
        if self._stop.is_set():
            raise _StoppedError
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._drop_strangers()
        failures = 0
        while True:
            before = _bytes_in(self._part)
            try:
                self._transfer()
                break
            except _CutOffError as error:
                failures = 1 if _bytes_in(self._part) > before else failures + 1
                if failures >= _TRIES:
                    raise InputError(
                        f"{self._file.url}: {error}; {_bytes_in(self._part):,} bytes are kept in {self._part}: "
                        "run the same command again to go on"
                    ) from None
            if self._stop.wait(_WAIT * 2 ** (failures - 1)):
                raise _StoppedError
        facts = self._verified()
        self._part.replace(self._target)
        self._mark.unlink(missing_ok=True)
        stat = self._target.stat()
        return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, **facts, "url": self._file.url}

    def _drop_strangers(self) -> None:
        """Drop what an earlier run left of another version of the file."""
        if not self._part.exists():
            return
        try:
            mark = json.loads(self._mark.read_text(encoding="utf-8"))
            now = asdict(self._file)
            if self._file.md5 is not None:
                del now["url"]  # the checksum tells, so a download may go on from another mirror
            same = all(mark[key] == value for key, value in now.items())
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        if not same or (self._file.size is not None and _bytes_in(self._part) > self._file.size):
            self._drop()

    def _drop(self) -> None:
        self._part.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)

    def _transfer(self) -> None:
        """Fetch what is lacking; return when all is there, raise `_CutOffError` when something is still lacking."""
        have = _bytes_in(self._part)
        if have and have == self._file.size:
            return
        headers = {}
        if have:
            headers["Range"] = f"bytes={have}-"
            mark = json.loads(self._mark.read_text(encoding="utf-8"))
            if mark.get("etag") and mark["url"] == self._file.url:
                headers["If-Range"] = mark["etag"]  # a file that changed comes whole
        try:
            response = _request(self._file.url, headers)
        except _RangeError:
            self._drop()
            raise _CutOffError("the server has less than what came before") from None
        with response:
            begin, total = _extent(response)
            if begin not in (0, have):
                raise _CutOffError(f"the server sent bytes from {begin:,} on, not from {have:,}")
            if self._file.size is not None and total not in (None, self._file.size):
                raise InputError(f"{self._file.url}: has {total:,} bytes on the server; expected {self._file.size:,}")
            etag = response.headers.get("ETag", "")
            mark = asdict(self._file) | {"etag": etag if etag.startswith('"') else None}
            self._mark.write_text(json.dumps(mark), encoding="utf-8")
            self._bars.update(self._bar, total=total, completed=begin)
            with self._part.open("ab" if begin else "wb") as part:
                self._copy(response, part)
        if total is not None and _bytes_in(self._part) != total:
            raise _CutOffError(f"the connection was cut off after {_bytes_in(self._part):,} of {total:,} bytes")

    def _copy(self, response: http.client.HTTPResponse, part: Any) -> None:
        while True:
            if self._stop.is_set():
                raise _StoppedError
            with _network(self._file.url):
                piece = response.read1(_PIECE)
            if not piece:
                return
            part.write(piece)
            self._bars.advance(self._bar, len(piece))

    def _verified(self) -> dict[str, Any]:
        """Return the checksums; drop a file that is another one than it should be."""
        size = _bytes_in(self._part)
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        with self._part.open("rb") as part:
            while piece := part.read(_PIECE):
                if self._stop.is_set():
                    raise _StoppedError
                sha256.update(piece)
                md5.update(piece)
        found = {"sha256": sha256.hexdigest(), "md5": md5.hexdigest()}
        wrong = ""
        if self._file.size not in (None, size):
            wrong = f"{size:,} bytes; expected {self._file.size:,}"
        elif self._file.md5 not in (None, found["md5"]):
            wrong = f"MD5 {found['md5']}; expected {self._file.md5}"
        elif self._file.md5 is None and self._target.suffix in _HDF5:
            wrong = _hdf5_fault(self._part)
        if wrong:
            self._drop()
            raise InputError(
                f"{self._file.url}: what came is not the file that it should be: {wrong}. It was changed on its way "
                "or on the server, and was not kept: run the same command again, or try another mirror"
            )
        return found


def part_of(target: Path) -> Path:
    """Return where a file grows."""
    return target.with_name(target.name + ".part")


def _bytes_in(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class _RangeError(Exception):
    """The server cannot go on from there."""


def _request(url: str, headers: dict[str, str] | None = None, *, method: str = "GET") -> http.client.HTTPResponse:
    # Only identity is asked for: a packed answer has other bytes at the same place.
    asked = {"User-Agent": "lexicell", "Accept-Encoding": "identity", **(headers or {})}
    request = urllib.request.Request(url, headers=asked, method=method)
    with _network(url):
        try:
            response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:
                raise _RangeError from None
            if error.code in (405, 408, 425, 429) or error.code >= 500:  # 405: this server does not know HEAD
                raise _CutOffError(f"the server says {error.code} {error.reason}") from None
            raise InputError(
                f"{url}: the server says {error.code} {error.reason}: there is no such file, or it is not public"
            ) from None
    return response


@contextmanager
def _network(url: str) -> Iterator[None]:
    """Turn passing faults of the network into `_CutOffError`."""
    try:
        yield
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise InputError(f"{url}: the server's certificate cannot be verified ({error.reason})") from None
        raise _CutOffError(f"the server cannot be reached ({error.reason})") from None
    except (http.client.HTTPException, OSError) as error:
        raise _CutOffError(f"the connection failed ({str(error) or type(error).__name__})") from None


def _extent(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Return where an answer begins in the file, and the size of the whole file."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if match is None:
            raise _CutOffError("the server sent a part and did not say which")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _hdf5_fault(path: Path) -> str:
    try:
        with h5py.File(path, "r") as file:
            list(file)
    except (OSError, RuntimeError) as error:
        return f"it does not open as HDF5 ({str(error).splitlines()[0]})"
    return ""


@contextmanager
def _bars() -> Iterator[Progress]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bars:
        yield bars
