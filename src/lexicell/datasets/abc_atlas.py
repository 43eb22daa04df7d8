"""Yao et al. 2023: the whole mouse brain, from the Allen Brain Cell Atlas.

A release is a manifest, ``releases/DATE/manifest.json``, that lists every file with its size and MD5. Of these only
the raw counts, the table of cells and the table of cluster memberships are fetched. The sizes below are those of the
release that lexicell takes by default, so that they can be told without asking the server; what is fetched goes by
the manifest.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lexicell.datasets.allen_portal import corpus_text, first_of, header_of
from lexicell.datasets.download import RemoteFile, fetch_bytes
from lexicell.datasets.entries import DataFile, Dataset
from lexicell.datasets.hosted import CORPUS, HostedSource, Plan, joined
from lexicell.errors import InputError, listing

RELEASE = "20231215"
LEVELS = ("class", "subclass", "supertype", "cluster")
_COLLECTIONS = ("WMB-10Xv2", "WMB-10Xv3", "WMB-10XMulti")
_CELLS = ("WMB-10X", "cell_metadata")
_TERMS = ("WMB-taxonomy", "cluster_to_cluster_annotation_membership")
_TERM_KEY, _TERM_NAMES, _TERM_VALUES = (
    "cluster_alias",
    "cluster_annotation_term_set_name",
    "cluster_annotation_term_name",
)
_SIZES = {
    "WMB-10Xv2-CTXsp": 1_734_161_062,
    "WMB-10Xv2-HPF": 6_096_269_724,
    "WMB-10Xv2-HY": 2_908_443_982,
    "WMB-10Xv2-Isocortex-1": 8_601_133_978,
    "WMB-10Xv2-Isocortex-2": 9_444_387_082,
    "WMB-10Xv2-Isocortex-3": 8_457_819_034,
    "WMB-10Xv2-Isocortex-4": 8_692_589_466,
    "WMB-10Xv2-MB": 811_153_174,
    "WMB-10Xv2-OLF": 5_128_120_156,
    "WMB-10Xv2-TH": 4_038_679_930,
    "WMB-10Xv3-CB": 5_610_691_342,
    "WMB-10Xv3-CTXsp": 3_277_343_842,
    "WMB-10Xv3-HPF": 7_409_633_208,
    "WMB-10Xv3-HY": 7_248_338_584,
    "WMB-10Xv3-Isocortex-1": 11_768_194_128,
    "WMB-10Xv3-Isocortex-2": 8_356_210_362,
    "WMB-10Xv3-MB": 13_726_487_690,
    "WMB-10Xv3-MY": 7_206_054_638,
    "WMB-10Xv3-OLF": 3_114_998_442,
    "WMB-10Xv3-P": 5_200_570_200,
    "WMB-10Xv3-PAL": 4_067_049_816,
    "WMB-10Xv3-STR": 11_915_297_204,
    "WMB-10Xv3-TH": 5_811_140_682,
    "WMB-10XMulti": 132_220_015,
}


def collection_of(matrix: str) -> str:
    """Return the collection of a matrix: ``WMB-10Xv2-HPF`` is of ``WMB-10Xv2``."""
    return next(name for name in _COLLECTIONS if matrix == name or matrix.startswith(f"{name}-"))


def region_of(matrix: str) -> str:
    """Return the region of a matrix: that of ``WMB-10Xv2-Isocortex-1`` is ``Isocortex``."""
    rest = matrix.removeprefix(collection_of(matrix)).lstrip("-")
    return re.sub(r"-\d+$", "", rest) or "Multi"


def _data_file(path: str, matrix: str, size: int) -> DataFile:
    return DataFile(path, region_of(matrix), size, (matrix,))


def _known_files() -> Iterator[DataFile]:
    for matrix, size in _SIZES.items():
        collection = collection_of(matrix)
        version = "20230830" if collection == "WMB-10XMulti" else "20230630"
        yield _data_file(f"expression_matrices/{collection}/{version}/{matrix}-raw.h5ad", matrix, size)
    yield DataFile(f"metadata/{_CELLS[0]}/20231215/{_CELLS[1]}.csv", "", 858_447_729)
    yield DataFile(f"metadata/{_TERMS[0]}/20231215/{_TERMS[1]}.csv", "", 2_208_190)
    yield DataFile(CORPUS, "", 5_000)


def _look(url: str, release: str | None) -> Plan:
    if release is None or not re.fullmatch(r"\d{8}", release):
        raise InputError(f"release: expected a date such as {RELEASE}, got {release!r}")
    address = f"{url}/releases/{release}/manifest.json"
    content = fetch_bytes(address)
    try:
        manifest = json.loads(content)
        listed = manifest["file_listing"]
        matrices = {
            matrix: kinds["raw"]["files"]["h5ad"]
            for collection in _COLLECTIONS
            for matrix, kinds in sorted(listed.get(collection, {}).get("expression_matrices", {}).items())
            if "raw" in kinds
        }
        if not matrices:
            raise KeyError(_COLLECTIONS[0])
        files, remote = [], []
        for matrix, entry in matrices.items():
            found = _remote(url, entry)
            remote.append(found)
            files.append(_data_file(found.name, matrix, found.size or 0))
        for collection, table in (_CELLS, _TERMS):
            found = _remote(url, listed[collection]["metadata"][table]["files"]["csv"])
            remote.append(found)
            files.append(DataFile(found.name, "", found.size or 0))
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        if isinstance(error, InputError):
            raise
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise InputError(f"{address}: is not a manifest that lexicell can read ({what}); try another release") from None
    facts = {"release": release, "manifest": address, "manifest_sha256": hashlib.sha256(content).hexdigest()}
    return Plan((*files, DataFile(CORPUS, "", 5_000)), tuple(remote), facts)


def _remote(url: str, entry: dict[str, Any]) -> RemoteFile:
    path, size, md5 = entry["relative_path"], entry["size"], entry["file_hash"]
    if not isinstance(path, str) or not isinstance(size, int) or not re.fullmatch(r"[0-9a-f]{32}", str(md5)):
        raise TypeError(f"the entry of {path!r} has no path, size and MD5")
    return RemoteFile(path, joined(url, path), size, str(md5))


def _describe(folder: Path, names: Sequence[str], entry: Dataset) -> str:
    cells = next(name for name in names if PurePosixPath(name).stem == _CELLS[1])
    terms = next(name for name in names if PurePosixPath(name).stem == _TERMS[1])
    columns = header_of(folder / cells)
    if "cell_label" not in columns or _TERM_KEY not in columns:
        raise InputError(
            f"{folder / cells}: expected the columns 'cell_label' and '{_TERM_KEY}'; it has {listing(columns, 20)}"
        )
    known = _term_sets(folder / terms)
    matrices = [name for name in names if name.endswith(".h5ad")]
    regions = ("region_of_interest_acronym", "region_of_interest_label", "anatomical_division_label")
    kept = [column for column in ("library_label", "dataset_label", "donor_sex") if column in columns]
    defaults: dict[str, object] = {
        "species": "mus_musculus",
        "counts": "X",
        **first_of(columns, "donor", ("donor_label",)),
        **first_of(columns, "tissue", regions),
        "labels": [level for level in LEVELS if level in known],
        "keep": [*kept, *(name for name in ("neurotransmitter",) if name in known)],
        "obs": {
            "path": cells,
            "key": "cell_label",
            "joins": [{"path": terms, "key": _TERM_KEY, "names": _TERM_NAMES, "values": _TERM_VALUES}],
        },
    }
    datasets = []
    for path in matrices:
        matrix = PurePosixPath(path).name.removesuffix("-raw.h5ad")
        assay = collection_of(matrix).removeprefix("WMB-")
        tissue = {} if "tissue" in defaults else {"tissue": {"value": region_of(matrix)}}
        datasets.append({"path": path, "name": matrix, "assay": {"value": assay}, **tissue})
    return corpus_text({"defaults": defaults, "datasets": datasets}, entry)


def _term_sets(table: Path) -> set[str]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        missing = [name for name in (_TERM_KEY, _TERM_NAMES, _TERM_VALUES) if name not in (rows.fieldnames or ())]
        if missing:
            raise InputError(f"{table}: has no column {listing(missing)}; it has {listing(rows.fieldnames or (), 20)}")
        found = {str(row[_TERM_NAMES]) for row in rows}
    if not found & set(LEVELS):
        raise InputError(f"{table}: names none of the levels {listing(LEVELS)}; it names {listing(sorted(found), 10)}")
    return found


_FILES = tuple(_known_files())

ALLEN_2023 = Dataset(
    name="allen-2023",
    title="Whole mouse brain, 10x v2 and v3 (Yao 2023, ABC Atlas): 32,285 genes, 5,322 clusters in 4 levels",
    species=("Mus musculus",),
    cells=4_042_976,
    licence="CC BY-NC 4.0: non-commercial use only, with attribution (creativecommons.org/licenses/by-nc/4.0)",
    citation=(
        "Yao Z, van Velthoven CTJ, Kunst M, et al. A high-resolution transcriptomic and spatial atlas of cell types in "
        "the whole mouse brain. Nature 624, 317-332 (2023). doi:10.1038/s41586-023-06812-z."
    ),
    files=_FILES,
    source=HostedSource(
        url="https://allen-brain-cell-atlas.s3.us-west-2.amazonaws.com",
        variable="LEXICELL_ALLEN_2023_URL",
        size=sum(file.size for file in _FILES),
        look=_look,
        describe=_describe,
        release=RELEASE,
    ),
)
