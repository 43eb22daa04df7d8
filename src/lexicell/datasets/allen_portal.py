"""Yao et al. 2021: mouse isocortex and hippocampal formation, as the Allen Institute's cell type portal has it.

Counts (``expression_matrix.hdf5``) and cell annotation (``metadata.csv``) are two files without published checksums:
the first download is noted with its SHA-256.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import yaml

from lexicell.datasets.download import RemoteFile, size_of
from lexicell.datasets.entries import DataFile, Dataset
from lexicell.datasets.hosted import CORPUS, HostedSource, Plan, joined
from lexicell.errors import InputError, listing

_COUNTS, _CELLS = "expression_matrix.hdf5", "metadata.csv"
_FILES = (DataFile(_COUNTS, "", 5_300_000_000), DataFile(_CELLS, "", 491_000_000), DataFile(CORPUS, "", 1_000))
_LEVELS = ("class_label", "subclass_label", "cluster_label")


def _look(url: str, _release: str | None) -> Plan:
    sizes = {name: size_of(joined(url, name)) for name in (_COUNTS, _CELLS)}
    remote = tuple(RemoteFile(name, joined(url, name), size) for name, size in sizes.items())
    return Plan(tuple(DataFile(f.name, f.part, sizes.get(f.name) or f.size) for f in _FILES), remote)


def _describe(folder: Path, _names: Sequence[str], entry: Dataset) -> str:
    columns = header_of(folder / _CELLS)
    levels = [level for level in _LEVELS if level in columns]
    if "sample_name" not in columns or not levels:
        raise InputError(
            f"{folder / _CELLS}: expected the columns 'sample_name' and {listing(_LEVELS)}; "
            f"it has {listing(columns, 20)}"
        )
    dataset: dict[str, object] = {
        "path": _COUNTS,
        "name": entry.name,
        "species": "mus_musculus",
        "assay": {"value": "10Xv2"},
        **first_of(columns, "donor", ("external_donor_name_label", "donor_label", "donor_name_label")),
        **first_of(columns, "tissue", ("region_label", "joint_region_label")),
        "labels": levels,
        "keep": [column for column in ("neighborhood_label", "donor_sex_label") if column in columns],
        "obs": {"path": _CELLS, "key": "sample_name"},
    }
    return corpus_text({"datasets": [dataset]}, entry) + (
        "# Genes are symbols. To give them the Ensembl ids that other data sets have, name a gene table:\n"
        "#   genes: TABLE.tsv\n"
    )


def header_of(table: Path) -> list[str]:
    """Return the columns of a CSV."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        return next(csv.reader(file), [])


def first_of(columns: Sequence[str], key: str, candidates: Sequence[str]) -> dict[str, object]:
    """Return an entry of a corpus for the first candidate that is a column; nothing where none is."""
    return next(({key: column} for column in candidates if column in columns), {})


def corpus_text(content: dict[str, object], entry: Dataset) -> str:
    """Return a corpus.yaml that says where its data are from."""
    head = [f"# {entry.name}: {entry.title}", f"# Licence: {entry.licence}", f"# Cite: {entry.citation}"]
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=False, width=100)
    return "\n".join([*head, body])


ALLEN_2021 = Dataset(
    name="allen-2021",
    title="Mouse isocortex and hippocampal formation, 10x v2 (Yao 2021): 31,053 genes, 388 clusters in 3 levels",
    species=("Mus musculus",),
    cells=1_169_213,
    licence=(
        "Allen Institute Terms of Use: research and other non-commercial purposes only "
        "(alleninstitute.org/legal/terms-of-use)"
    ),
    citation=(
        "Yao Z, van Velthoven CTJ, Nguyen TN, et al. A taxonomy of transcriptomic cell types across the isocortex and "
        "hippocampal formation. Cell 184, 3222-3241 (2021). doi:10.1016/j.cell.2021.04.021."
    ),
    files=_FILES,
    source=HostedSource(
        url="https://idk-etl-prod-download-bucket.s3.amazonaws.com/aibs_mouse_ctx-hpf_10x",
        variable="LEXICELL_ALLEN_2021_URL",
        size=sum(file.size for file in _FILES),
        look=_look,
        describe=_describe,
    ),
)
