"""Data sets that lie as files on a web server: fetched in place, with a corpus.yaml that says how to read them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from lexicell.datasets.cache import Announce, Shelf, sha256_of
from lexicell.datasets.download import RemoteFile, download, part_of
from lexicell.datasets.entries import DataFile, Dataset
from lexicell.errors import InputError, listing

CORPUS = "corpus.yaml"


@dataclass(frozen=True)
class Plan:
    """What a server has.

    Parameters
    ----------
    files
        The data set's files there.
    remote
        Where each one is, its size and checksum.
    facts
        Further facts for the note beside the files.
    """

    files: tuple[DataFile, ...]
    remote: tuple[RemoteFile, ...]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HostedSource:
    """Files on a web server.

    Parameters
    ----------
    url
        Address that the files' paths are relative to.
    variable
        Environment variable that can name another address.
    size
        Bytes of all files.
    look
        Asks a server (address, release) what it has.
    describe
        Makes the text of ``corpus.yaml`` for the fetched files (folder, their names, entry).
    release
        Release to fetch; None where there are no releases.
    plan
        What the server has, once it was asked.
    """

    url: str
    variable: str
    size: int
    look: Callable[[str, str | None], Plan]
    describe: Callable[[Path, Sequence[str], Dataset], str]
    release: str | None = None
    plan: Plan | None = None

    @property
    def how(self) -> str:
        """How it is fetched, in a few words."""
        return f"HTTP from {self.url}" + ("" if self.release is None else f", release {self.release}")

    def fetch(self, names: Sequence[str], folder: Path) -> None:
        """Not this way: see `fetch_hosted`."""
        raise NotImplementedError


def planned(entry: Dataset, *, release: str | None, mirror: str | None) -> Dataset:
    """Return an entry as a release or a mirror has it; without either, nothing is asked of any server yet.

    Raises
    ------
    InputError
        When it has no releases, the address is none, or the server does not have it.
    """
    source = entry.source
    assert isinstance(source, HostedSource)
    if release is not None and source.release is None:
        raise InputError(f"{entry.name}: has no releases; leave --release out")
    url = _address(mirror or os.environ.get(source.variable) or source.url)
    release = release or source.release
    if (url, release) == (source.url, source.release):
        return entry
    plan = source.look(url, release)
    size = sum(file.size for file in plan.files)
    return replace(entry, files=plan.files, source=replace(source, url=url, release=release, size=size, plan=plan))


def fetch_hosted(entry: Dataset, files: Sequence[DataFile], shelf: Shelf, announce: Announce) -> None:
    """Bring files to their place and write ``corpus.yaml`` for them; the shelf is locked.

    Raises
    ------
    InputError
        When the disk is too full, a file of another origin is in the way, or the download fails. What came is kept
        for the next run.
    """
    source = entry.source
    assert isinstance(source, HostedSource)
    names = [file.name for file in files if file.name != CORPUS]
    facts, plan = shelf.facts(), source.plan
    missing = [name for name in names if not shelf.intact(name)]
    if plan is None and missing:
        plan = source.look(source.url, source.release)
        _announce_other_sizes(entry, plan, announce)
    remote = {file.name: file for file in plan.remote} if plan is not None else {}
    lost = [name for name in names if plan is not None and name not in remote]
    if lost:
        raise InputError(f"{source.url}: does not have {listing(lost)}; try another release or mirror")
    for name in names:
        md5 = remote[name].md5 if name in remote else None
        if name not in missing and md5 is not None and facts[name].get("md5") != md5:
            announce(f"{name}: {source.url} lists another version of it by now")
            missing.append(name)
    provenance: dict[str, Any] = {
        "name": entry.name,
        "title": entry.title,
        "licence": entry.licence,
        "citation": entry.citation,
        "source": source.how,
        **(plan.facts if plan is not None else {}),
    }
    if missing:
        announce(f"{entry.name}: {entry.title}\n  licence: {entry.licence}\n  cite: {entry.citation}")
        wanted = [name for name in missing if not _adopted(shelf, remote[name], provenance, known=name in facts)]
        for name in wanted:
            if (shelf.folder / name).exists():
                announce(f"{shelf.folder / name}: damaged, or another version; getting it again")
        _check_disk(entry, shelf, [(name, remote[name].size or _about(files, name)) for name in wanted])
        announce(f"  from: {source.how}")
        download([remote[name] for name in wanted], shelf.folder, lambda name, new: shelf.note({name: new}, provenance))
        for name in wanted:
            before, now = facts.get(name, {}).get("sha256"), shelf.noted()[name]
            if remote[name].md5 is None and before not in (None, now):
                announce(f"{shelf.folder / name}: not the file of the first download (SHA-256 {before}, now {now})")
    _write_corpus(source.describe(shelf.folder, names, entry), shelf, provenance, announce)


def _announce_other_sizes(entry: Dataset, plan: Plan, announce: Announce) -> None:
    known = {file.name: file.size for file in entry.files}
    other = [
        file.name for file in plan.remote if file.size is not None and file.md5 and file.size != known.get(file.name)
    ]
    if other:
        announce(f"{entry.source.how}: has another size of {listing(other)} than lexicell knows; going by the server")


def _about(files: Sequence[DataFile], name: str) -> int:
    return next(file.size for file in files if file.name == name)


def _adopted(shelf: Shelf, remote: RemoteFile, provenance: Mapping[str, Any], *, known: bool) -> bool:
    """Take a file that lies at its place already, if it is the right one; refuse to overwrite a stranger."""
    path = shelf.folder / remote.name
    if not path.exists():
        return False
    stat = path.stat()
    if remote.md5 is not None and stat.st_size == remote.size and path.is_file():
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if md5 == remote.md5:
            new = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256_of(path), "md5": md5}
            shelf.note({remote.name: {**new, "url": remote.url}}, provenance)
            return True
    if not known:
        raise InputError(f"{path}: already there, but not as lexicell put it; move it away, or choose another folder")
    return False


def _check_disk(entry: Dataset, shelf: Shelf, wanted: Sequence[tuple[str, int]]) -> None:
    parts = {name: part_of(shelf.folder / name) for name, _ in wanted}
    needed = sum(max(0, size - (parts[n].stat().st_size if parts[n].exists() else 0)) for n, size in wanted)
    free = shutil.disk_usage(shelf.folder).free
    if free < needed:
        raise InputError(
            f"{shelf.folder}: disk too full: {entry.name} needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; "
            "take fewer parts with --subset, or another folder with --to"
        )


def _write_corpus(text: str, shelf: Shelf, provenance: Mapping[str, Any], announce: Announce) -> None:
    path = shelf.folder / CORPUS
    digest = hashlib.sha256(text.encode()).hexdigest()
    found = sha256_of(path) if path.is_file() else None
    if found == digest and shelf.noted().get(CORPUS) == digest:
        return
    if found not in (None, digest, shelf.noted().get(CORPUS)):
        path = path.with_name("corpus.new.yaml")
        announce(f"{shelf.folder / CORPUS}: was changed by you and is left as it is; the new one is {path.name}")
    staged = path.with_name(f".{path.name}.part")
    staged.write_text(text, encoding="utf-8")
    staged.replace(path)
    if path.name == CORPUS:
        shelf.note({CORPUS: {"sha256": digest}}, provenance)
    announce(f"next: lexicell prepare {path} --out STORE")


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(f"mirror: expected an address such as https://host/folder, got {text!r}")
    return text.rstrip("/")


def joined(url: str, path: str) -> str:
    """Return the address of a file below `url`; refuse paths that lead elsewhere."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\\" in path or ":" in path:
        raise InputError(f"{url}: names a file {path!r}, which does not lie below it; this mirror cannot be used")
    return f"{url}/{path}"
