"""Writing a store: in parts, from a staging folder, and visible only when whole.

Design choices
- Beside the target ``NAME`` stands ``.NAME.staging`` while it is written. Each source becomes one part in
  there, renamed when whole, so an interrupted writer goes on behind the last whole part.
- A part bears a key that says what it was made from; a part with another key is made anew.
- A lock in the staging folder keeps a second writer out; it dies with its process.
- The parts are joined into the final arrays, flushed to disk, and renamed to the target in one step.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from filelock import FileLock, Timeout

from lexicell.data import store_format as fmt
from lexicell.data.counts import NotCountsError, RawRows, block_of
from lexicell.data.store_assembly import assemble, flush
from lexicell.data.store_parts import ENTRY, Part, part_entry, write_part
from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon

__all__ = ["Part", "StoreWriter", "check_target", "explained", "staging_folder", "write_part"]

_USER_ERRNOS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing there is not permitted",
    errno.EPERM: "writing there is not permitted",
    errno.ENOTDIR: "a part of the path is a file",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "the path runs in a circle of links",
    errno.EFBIG: "the file system does not hold files of this size",
}


class StoreWriter:
    """Writes a store; use it as a context manager.

    >>> with StoreWriter(path, lexicon, label_levels=("class", "type")) as writer:
    ...     writer.add(Part("a", "mus_musculus", panel), chunks, obs)
    ...     writer.finish()

    Parameters
    ----------
    out
        The store's folder. Nothing stands there before `finish`.
    lexicon
        The genes of the store.
    label_levels
        Columns of every `obs` that hold labels, coarse to fine; a source may lack some.
    overwrite
        Replace a store that stands at `out`. Anything else that stands there is never replaced.

    Raises
    ------
    InputError
        When something stands at `out`, another process writes there, or writing is not possible. What can be
        used again stays in the staging folder, which the message names.
    """

    def __init__(
        self, out: str | Path, lexicon: Lexicon, label_levels: Sequence[str] = (), *, overwrite: bool = False
    ) -> None:
        self.out = Path(out)
        self.lexicon = lexicon
        self.label_levels = tuple(label_levels)
        self.overwrite = overwrite
        self.staging = staging_folder(self.out)
        self._parts: list[Path] = []
        self._finished = False

    def __enter__(self) -> Self:
        check_target(self.out, overwrite=self.overwrite)
        with explained(self.out):
            (self.staging / "parts").mkdir(parents=True, exist_ok=True)
            # No thread-local bookkeeping, so that two writers of one process exclude each other as well.
            self._lock = FileLock(self.staging / "lock", timeout=0, thread_local=False)
            try:
                self._lock.acquire()
            except Timeout:
                raise InputError(
                    f"{self.out}: another process is writing this store (it holds {self.staging / 'lock'}). "
                    "Wait for it, or choose another name."
                ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        worth_keeping = not self._finished and any((self.staging / "parts").glob(f"*/{ENTRY}"))
        if not worth_keeping:
            shutil.rmtree(self.staging, ignore_errors=True)
        self._lock.release()
        if isinstance(error, OSError):
            with explained(self.out):
                raise error

    def part_folder(self, place: int) -> Path:
        """Return where the part of source number `place` will stand."""
        return self.staging / "parts" / f"{place:05d}"

    def has(self, place: int, key: str) -> bool:
        """Say whether an earlier run left source number `place` whole, made from the same `key`."""
        entry = part_entry(self.part_folder(place))
        return bool(key) and entry is not None and entry["key"] == key and entry["n_genes"] == len(self.lexicon)

    def add(self, part: Part, chunks: Iterable[sp.csr_matrix], obs: pd.DataFrame) -> None:
        """Write the next source from chunks of rows with one column per gene of the lexicon.

        Parameters
        ----------
        part
            Name, species, panel.
        chunks
            CSR matrices (n, n_genes of the lexicon) of raw counts; their rows follow each other.
        obs
            One row a cell.
        """
        identity = np.arange(len(self.lexicon), dtype=np.int32)
        folder = self.part_folder(len(self._parts))
        try:
            blocks = (block_of(_raw_rows(chunk), identity, len(self.lexicon)) for chunk in chunks)
            write_part(folder, part, len(self.lexicon), blocks, obs)
        except NotCountsError as fault:
            raise InputError(f"{part.name}: {fault.kind} value {fault.value}; expected raw counts.") from None
        self._parts.append(folder)

    def adopt(self, place: int) -> None:
        """Take the whole part of source number `place`, which `write_part` wrote, as the next one."""
        self._parts.append(self.part_folder(place))

    def finish(self, details: Mapping[str, Any] | None = None) -> Path:
        """Join the parts and give the store its name; return its path.

        Parameters
        ----------
        details
            Further facts for ``meta.json`` (JSON-able); they do not enter the fingerprint.
        """
        draft = self.staging / "store"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        assemble(draft, self._parts, self.lexicon, self.label_levels, {**(details or {}), "name": self.out.name})
        if self.overwrite and self.out.exists():
            self.out.rename(self.staging / "replaced")
        draft.replace(self.out)
        flush(self.out.parent)
        self._finished = True
        return self.out


def _raw_rows(chunk: sp.csr_matrix) -> RawRows:
    matrix = sp.csr_matrix(chunk)
    return RawRows(matrix.data, matrix.indices, matrix.indptr.astype(np.int64))


def staging_folder(out: Path) -> Path:
    """Return the folder in which the store `out` is built."""
    return out.parent / f".{out.name}.staging"


def check_target(out: Path, *, overwrite: bool) -> None:
    """Raise InputError when a store may not be written to `out`."""
    if not out.name:
        raise InputError(f"{out}: give the store a name.")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(f"{out}: is a file or a link; give a new folder name for the store.")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / fmt.META).is_file():
        raise InputError(f"{out}: this folder holds other things and is not a store; give a new name.")
    if not overwrite:
        raise InputError(f"{out}: a store stands there already; give another name, or overwrite it on purpose.")


@contextmanager
def explained(out: Path) -> Iterator[None]:
    """Turn operating-system errors that are not ours (disk full, no permission, ...) into InputError."""
    try:
        yield
    except OSError as error:
        reason = _USER_ERRNOS.get(error.errno or 0)
        if reason is None:
            raise
        where = f" ({error.filename})" if error.filename else ""
        kept = staging_folder(out)
        left = f" What was written so far is kept in {kept}: run the same again to go on." if kept.exists() else ""
        raise InputError(f"{out}: the store cannot be written: {reason}{where}.{left}") from None
