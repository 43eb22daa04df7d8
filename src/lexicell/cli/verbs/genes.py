"""Verbs that read a model's genes."""

from __future__ import annotations

from pathlib import Path

from lexicell.cli.verbs.result import Result


def genes_table(run: Path, *, out: Path | None = None) -> Result:
    """Write the gene embeddings as a table: species, id, symbol, exposure and one column a dimension.

    Parameters
    ----------
    run
        Folder of a trained run.
    out
        File to write (.parquet, .csv or .tsv). Default: genes.parquet in the run's folder.
    """
    from lexicell.workflows.genes import genes_table

    return genes_table(run, out or run / "genes.parquet")
