"""Tiny mirrors of the Allen Institute's atlases, with exactly their layout, from simulated cells."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData

RELEASE = "20231215"
MATRICES = {
    "WMB-10Xv2-Isocortex-1": range(0, 40),
    "WMB-10Xv2-HPF": range(40, 70),
    "WMB-10Xv3-Isocortex-2": range(70, 110),
    "WMB-10XMulti": range(110, 120),
}


def write_2023(folder: Path, cells: AnnData) -> AnnData:
    """Write the ABC Atlas with four matrices of raw counts; return the cells with their true annotation."""
    truth = cells.copy()
    truth.obs_names = [f"{'ACGT'[i % 4]}CGT{i:04d}-{i // 50}_A01" for i in range(truth.n_obs)]
    truth.var = pd.DataFrame(
        {"gene_symbol": [f"Gene{i}" for i in range(truth.n_vars)]},
        index=pd.Index([f"ENSMUSG{i:011d}" for i in range(truth.n_vars)], name="gene_identifier"),
    )
    kinds = truth.obs["type"].astype(str)
    obs = pd.DataFrame(index=pd.Index(truth.obs_names, name="cell_label"))
    obs["library_label"] = "L8TX"
    obs["feature_matrix_label"] = ""
    obs["dataset_label"] = "WMB-10Xv2"
    obs["donor_label"] = truth.obs["donor"].astype(str).to_numpy()
    obs["donor_sex"] = "F"
    obs["region_of_interest_acronym"] = "ACA"
    obs["cluster_alias"] = (pd.factorize(kinds, sort=True)[0] + 11).astype(str)
    terms = []
    for alias, kind in sorted(set(zip(obs["cluster_alias"], kinds, strict=True))):
        parent = truth.obs.loc[(kinds == kind).to_numpy(), "class"].astype(str).iloc[0]
        names = {"neurotransmitter": "NA", "class": f"01 {parent}", "subclass": f"001 {kind}",
                 "supertype": f"0001 {kind}_1", "cluster": f"00{alias} {kind}_1"}  # fmt: skip
        terms += [(f"CS_{level}_{name}", "CCN20230722", alias, name, level) for level, name in names.items()]
    columns = ["cluster_annotation_term_label", "cluster_annotation_term_set_label", "cluster_alias",
               "cluster_annotation_term_name", "cluster_annotation_term_set_name"]  # fmt: skip
    names = pd.DataFrame(terms, columns=columns)
    for level in ("class", "subclass", "supertype", "cluster"):
        of_alias = names[names["cluster_annotation_term_set_name"] == level].set_index("cluster_alias")
        truth.obs[f"true_{level}"] = of_alias["cluster_annotation_term_name"][obs["cluster_alias"]].to_numpy()
    truth.obs["matrix"] = ""
    truth.obs["known"] = np.arange(truth.n_obs) % 10 != 3  # one in ten has no row in the table of cells
    for matrix, rows in MATRICES.items():
        truth.obs.iloc[list(rows), truth.obs.columns.get_loc("matrix")] = matrix
        obs.iloc[list(rows), obs.columns.get_loc("feature_matrix_label")] = matrix
        collection = "-".join(matrix.split("-")[:2])
        date = "20230830" if matrix == "WMB-10XMulti" else "20230630"
        path = folder / f"expression_matrices/{collection}/{date}/{matrix}-raw.h5ad"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = AnnData(truth.X[list(rows)], var=truth.var.copy())
        part.obs = pd.DataFrame(
            {"cell_barcode": "ACGT", "library_label": "L", "anatomical_division_label": matrix.split("-")[-1]},
            index=pd.Index(truth.obs_names[list(rows)], name="cell_label"),
        )
        part.write_h5ad(path)
    for path, table in {
        f"metadata/WMB-10X/{RELEASE}/cell_metadata.csv": obs[truth.obs["known"].to_numpy()].iloc[::-1].reset_index(),
        f"metadata/WMB-taxonomy/{RELEASE}/cluster_to_cluster_annotation_membership.csv": names,
    }.items():
        (folder / path).parent.mkdir(parents=True)
        table.to_csv(folder / path, index=False)
    write_manifest(folder)
    return truth


def write_manifest(folder: Path, release: str = RELEASE) -> Path:
    """Write the manifest of what lies in a mirror."""
    listing: dict[str, dict] = {}
    for path in sorted([*folder.rglob("*.h5ad"), *folder.rglob("*.csv")]):
        relative = path.relative_to(folder).as_posix()
        kind, collection, version, name = relative.split("/")
        content = path.read_bytes()
        entry = {"version": version, "relative_path": relative, "url": f"https://elsewhere.invalid/{relative}",
                 "size": len(content), "file_hash": hashlib.md5(content).hexdigest()}  # fmt: skip
        of_kind = listing.setdefault(collection, {}).setdefault(kind, {})
        if kind == "metadata":
            of_kind[Path(name).stem] = {"files": {"csv": entry}}
        else:
            of_kind[name.removesuffix("-raw.h5ad")] = {"raw": {"files": {"h5ad": entry}}}
    manifest = {"version": release, "resource_uri": "s3://elsewhere/", "directory_listing": {}, "file_listing": listing}
    target = folder / f"releases/{release}/manifest.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(manifest))
    return target


def write_2021(folder: Path, truth: AnnData, *, turned: bool = False, chunks: tuple[int, int] = (50, 32)) -> None:
    """Write the two files of Yao 2021."""
    counts = truth.X.toarray().astype(np.int32)
    with h5py.File(folder / "expression_matrix.hdf5", "w") as file:
        matrix = counts if turned else counts.T
        file.create_dataset("data/counts", data=matrix, chunks=chunks, compression="gzip")
        file["data/gene"] = np.array(truth.var_names, dtype="S")
        file["data/samples"] = np.array(truth.obs_names, dtype="S")
        file["data/shape"] = matrix.shape
    kinds = truth.obs["type"].astype(str)
    table = pd.DataFrame(
        {
            "sample_name": truth.obs_names,
            "donor_sex_label": "M",
            "external_donor_name_label": truth.obs["donor"].astype(str).to_numpy(),
            "region_label": "VISp",
            "class_label": truth.obs["class"].astype(str).to_numpy(),
            "subclass_label": ("s " + kinds).to_numpy(),
            "cluster_label": ("1_" + kinds).to_numpy(),
            "neighborhood_label": "CGE",
        }
    )
    table[truth.obs["known"].to_numpy()].sample(frac=1, random_state=0).to_csv(folder / "metadata.csv", index=False)
