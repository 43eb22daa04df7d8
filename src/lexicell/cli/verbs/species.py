"""Verbs about several species: extend, genes match."""

from __future__ import annotations

from pathlib import Path

from lexicell.cli.verbs.result import Result


def extend(
    run: Path,
    *,
    store: list[Path],
    out: Path,
    recipe: str = "extend",
    replay: list[Path] | None = None,
    no_replay: bool = False,
    truth_levels: tuple[str, ...] | None = None,
    orthologs: Path | None = None,
    disjoint_panels: bool = False,
    resume: bool = False,
    overrides: dict[str, object] | None = None,
) -> Result:
    """Let one or several species join a trained model: new gene rows by coupling the species, then two phases.

    Phase 1 trains the new rows alone, with all else frozen; phase 2 trains everything at a lower rate, with old cells
    replayed. The report tells what was gained and what was forgotten, and the labels of matched groups are written
    beside it (report/species_labels.csv). Genes of a known species that the old panel lacked are added as well.
    Interrupted with Ctrl-C, it stops at a step from which it can resume.

    Parameters
    ----------
    run
        Folder of the trained run. It is not changed.
    store
        Folder of a store with cells of the new species; give it once for every store.
    out
        Folder of the extended run.
    recipe
        Name of a recipe of extensions that comes with lexicell, or path of a YAML file.
    replay
        Where a store that the run was trained on lies now; give it once for every store that has moved.
    no_replay
        Go without the stores that the run was trained on: rows begin from mean expression alone, no old cell is
        replayed, forgetting is not measured, and depths are not compared.
    truth_levels
        Label levels of the run that the new stores carry too, with commas between: the annotation of the new species
        is scored by them. They are not trained on, unless `--labels true` is given.
    orthologs
        Table of one-to-one orthologs, by which gene rows are scored. It is not trained on.
    disjoint_panels
        Accept a store of a species that the run knows though hardly any of its genes is known.
    resume
        Go on where this extension was stopped.
    overrides
        Fields of the recipe, by dotted name.
    """
    from lexicell.workflows.extend import extend

    return extend(
        run,
        store,
        out,
        recipe=recipe,
        replay=replay or (),
        no_replay=no_replay,
        truth_levels=truth_levels,
        orthologs=orthologs,
        disjoint_panels=disjoint_panels,
        resume=resume,
        overrides=overrides,
    )


def genes_match(
    run: Path,
    *,
    from_: str,
    to: str,
    out: Path,
    orthologs: Path | None = None,
    top: int = 5,
    seed: int = 0,
) -> Result:
    """Match the genes of one species to those of another by their embeddings, without orthologs.

    Parameters
    ----------
    run
        Folder of a run that knows both species: trained on both, or extended by one.
    from_
        Species of the genes.
    to
        Species among whose genes matches are looked for.
    out
        File to write (.parquet, .csv or .tsv): gene, match, score, whether the match is mutual, confidence.
    orthologs
        Table of one-to-one orthologs: a confidence is fitted on half of them and checked on the other half.
    top
        Matches a gene.
    seed
        Draws the halves.
    """
    from lexicell.workflows.genes_match import genes_match

    return genes_match(run, from_, to, orthologs=orthologs, top=top, out=out, seed=seed)
