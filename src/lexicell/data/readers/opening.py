"""Which reader belongs to which input."""

from __future__ import annotations

from pathlib import Path

from anndata import AnnData

from lexicell.data.readers.allen_hdf5 import is_allen_hdf5, open_allen_hdf5
from lexicell.data.readers.anndata_groups import open_h5ad, open_h5mu, open_zarr
from lexicell.data.readers.hdf5 import open_hdf5
from lexicell.data.readers.loom import open_loom
from lexicell.data.readers.memory import AnnDataSource
from lexicell.data.readers.source import MatrixSource
from lexicell.data.readers.tenx import find_mtx, open_tenx_h5, open_tenx_mtx
from lexicell.errors import InputError

FORMATS = ".h5ad, .h5mu, .zarr, 10x .h5, a 10x folder with matrix.mtx, .loom, Allen .hdf5"


def open_source(data: AnnData | str | Path, name: str | None = None) -> MatrixSource:
    """Open an input; use the result as a context manager.

    Parameters
    ----------
    data
        AnnData, or a path of one of the formats that lexicell reads.
    name
        What to call it in messages; the path by default.

    Raises
    ------
    InputError
        When there is no such file, its format is not known, or it is damaged.
    """
    if isinstance(data, AnnData):
        return AnnDataSource(data, name or "AnnData")
    path = Path(data)
    name = name or str(path)
    _check_path(path, name)
    suffixes = path.name.lower()
    mtx = find_mtx(path)
    if mtx is not None:
        return open_tenx_mtx(mtx, name)
    if path.is_dir():
        if (path / ".zgroup").exists() or (path / "zarr.json").exists():
            return open_zarr(path, name)
        raise InputError(f"{name}: is a folder that holds no data lexicell reads; expected {FORMATS}.")
    if suffixes.endswith(".h5mu"):
        return open_h5mu(path, name)
    if suffixes.endswith(".h5ad"):
        return open_h5ad(path, name)
    if suffixes.endswith((".h5", ".hdf5")):
        with open_hdf5(path, name) as file:
            anndata_like = "obs" in file and "var" in file
            allen_like = is_allen_hdf5(file)
        if allen_like:
            return open_allen_hdf5(path, name)
        return open_h5ad(path, name) if anndata_like else open_tenx_h5(path, name)
    if suffixes.endswith(".loom"):
        return open_loom(path, name)
    raise InputError(f"{name}: this format is not known; expected {FORMATS}.")


def _check_path(path: Path, name: str) -> None:
    try:
        path.stat()
    except FileNotFoundError:
        raise InputError(f"{name}: there is no such file.") from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name}: cannot be read ({reason}).") from None
