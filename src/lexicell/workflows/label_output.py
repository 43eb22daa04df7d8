"""Where an annotation goes: obs columns of the query, and files beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
from anndata import AnnData
from anndata.io import read_elem, write_elem

from lexicell.annotation.held_out import HeldOutReport
from lexicell.annotation.result import Annotation
from lexicell.errors import InputError
from lexicell.reporting.calibration_figure import draw_reliability


def checked_out(out: str | Path | None, query: AnnData | str | Path) -> Path | None:
    """Return the file to write, or raise InputError where it cannot be one."""
    if out is None:
        return None
    path = Path(out)
    if path.suffix not in (".h5ad", ".csv"):
        raise InputError(f"{path}: the output is an h5ad or a csv file; end its name in .h5ad or .csv.")
    if path.suffix == ".h5ad" and not isinstance(query, AnnData) and Path(query).suffix != ".h5ad":
        raise InputError(f"{path}: the query is not an h5ad file; write a csv, or convert the query to h5ad first.")
    return path


def write(
    annotation: Annotation, query: AnnData | str | Path, report: HeldOutReport | None, out: Path | None
) -> tuple[Path, ...]:
    """Write the h5ad (where asked for), the CSV, the extended JSON and the reliability plot; return their names.

    An h5ad query in a file is copied as it is and gets its columns there, so that it need not fit into memory.
    """
    if out is None:
        return ()
    out.parent.mkdir(parents=True, exist_ok=True)
    written = []
    if out.suffix == ".h5ad":
        part = out.with_name(f".{out.name}.part")
        if isinstance(query, AnnData):
            query.write_h5ad(part, compression="gzip")
        else:
            _copy_with_columns(Path(query), part, annotation)
        part.replace(out)
        written.append(out)
    extended = out.with_suffix(".extended.json")
    table = out.with_suffix(".csv")
    for path in (table, extended):
        part = path.with_name(f".{path.name}.part")
        if path is table:
            annotation.to_csv(part, extended.name)
        else:
            annotation.to_json(part)
        part.replace(path)
        written.append(path)
    if report is not None and len(report.reliability):
        picture = out.with_suffix(".reliability.svg")
        part = picture.with_name(f".{picture.name}.part")
        part.write_text(draw_reliability(report.reliability, report.levels), encoding="utf-8")
        part.replace(picture)
        written.append(picture)
    return tuple(written)


def annotated(query: AnnData, annotation: Annotation) -> AnnData:
    """Return a copy of AnnData with the new columns."""
    adata = query.to_memory() if query.isbacked else query.copy()
    adata.obs_names = adata.obs_names.astype(str)
    annotation.write_obs(adata)
    return adata


def _copy_with_columns(source: Path, target: Path, annotation: Annotation) -> None:
    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        obs = read_elem(file["obs"])
        obs.index = obs.index.astype(str)
        shell = AnnData(obs=obs, uns=read_elem(file["uns"]) if "uns" in file else {})
        annotation.write_obs(shell)
        write_elem(file, "obs", shell.obs)
        write_elem(file, "uns", dict(shell.uns))
