"""A species joins a trained model: its genes become new rows, which are trained alone and then with everything."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lexicell.data.store import Store
from lexicell.errors import InputError, listing, raise_all
from lexicell.inference.cell_model import CellModel
from lexicell.model.checkpoint import CONFIG, WEIGHTS, ModelSpec, load_model, save_model
from lexicell.model.counts import lower_edges
from lexicell.processes import is_child
from lexicell.training.extension import EXTENSION, Growth, Lineage, LineCells, PhaseStart
from lexicell.training.extension_checks import check_growth, open_replay, tell_distance
from lexicell.training.extension_recipe import ExtensionRecipe, PhaseConfig, load_extension_recipe
from lexicell.training.fit import FitResult, fit
from lexicell.training.rows_by_mean import rows_by_mean
from lexicell.training.run_folder import CHECKPOINTS, EXPOSURE, RECIPE, RUN, read_json, write_array, write_json
from lexicell.training.species_rows import NewGeneRows, new_gene_rows
from lexicell.workflows.extend_result import JOINED, PHASES, ROWS, ExtendResult, write_tables
from lexicell.workflows.report import report
from lexicell.workflows.species_labels import coupled_labels, score_labels, write_labels
from lexicell.workflows.species_measures import Yardstick, find_pairs

START, STEPS = "start", "extension_steps.json"


def extend(
    run: str | Path,
    store: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    recipe: str | Path | ExtensionRecipe = "extend",
    replay: str | Path | Sequence[str | Path] = (),
    no_replay: bool = False,
    truth_levels: Sequence[str] | str | None = None,
    orthologs: str | Path | None = None,
    disjoint_panels: bool = False,
    resume: bool = False,
    overrides: Mapping[str, object] | None = None,
    progress: bool = True,
) -> ExtendResult:
    """Let one or several species join a trained model, without orthologs.

    The lexicon and the gene table grow at their end. New rows are set by coupling the species; phase 1 trains them, and
    the new species' covariate, with all else frozen; phase 2 trains everything at a lower rate, with old cells among
    the new ones. Before training and after each phase it is measured what was gained and what was forgotten. Where
    species were coupled and the old stores have labels, those of matched groups are written as
    ``report/species_labels.parquet`` and ``.csv``, with an unknown score, for every new cell. Genes of a known species
    that the old panel lacked are added too: they are placed by co-expression with its old genes.

    Parameters
    ----------
    run
        Run folder of the trained model.
    store
        Folders that `prepare` wrote, with the cells of the new species.
    out
        Run folder to make.
    recipe
        A shipped recipe's name (``extend``), a YAML file, or an `ExtensionRecipe`.
    replay
        Where the stores are now that the model was trained on; not needed where they lie as run.json says.
    no_replay
        Go without the old stores: rows begin from mean expression alone (of a known species, from co-expression), no
        old cell is replayed, forgetting is not measured, depths are not compared, and no labels of matched groups are
        written.
    truth_levels
        Label levels that the new stores carry under the same names as the old ones, to score the annotation by.
        They are not trained on, unless the recipe's ``labels`` is true.
    orthologs
        Table of one-to-one orthologs, to score gene rows by. It is not trained on.
    disjoint_panels
        A store of a known species may share hardly a gene with the model.
    resume
        Go on where an extension was stopped.
    overrides
        Dotted fields of the recipe to change, such as ``{"phase1.steps": 1000}``.
    progress
        Say what is being done, and show progress.

    Returns
    -------
    ExtendResult
        Its ``run`` is a run folder as `pretrain` makes it.

    Raises
    ------
    InputError
        When run, stores, recipe or tables cannot be used, or they are not those of the extension to resume.
    """
    if isinstance(recipe, ExtensionRecipe):
        if overrides:
            raise InputError("overrides: change the ExtensionRecipe itself (dataclasses.replace), or give its name")
    else:
        recipe = load_extension_recipe(recipe, overrides)
    levels = tuple(truth_levels.split(",")) if isinstance(truth_levels, str) else tuple(truth_levels or ())
    plan = _plan(Path(run), _paths(store), recipe, _paths(replay), replayed=not no_replay, disjoint=disjoint_panels)
    yardstick = _yardstick(plan, levels, None if orthologs is None else Path(orthologs))
    folder = _Folder(Path(out), plan, levels, Path(orthologs) if orthologs else None)
    folder.open(resume=resume)
    return _Extension(plan, folder, yardstick, Console(quiet=not progress or is_child(), stderr=True), progress).run()


def _paths(given: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(given)] if isinstance(given, str | Path) else [Path(item) for item in given]


@dataclass(frozen=True, eq=False)
class _Plan:
    """All that is decided before anything is written."""

    source: Path
    recipe: ExtensionRecipe
    spec: ModelSpec  # of the old model
    line: Lineage  # with the new generation
    old: list[Store]
    new: list[Store]
    growth: Growth
    notes: tuple[str, ...]

    @property
    def grown(self) -> ModelSpec:
        return replace(self.spec, lexicon=self.growth.lexicon, covariates=dict(self.growth.covariates))

    @property
    def generations(self) -> tuple[Any, ...]:
        """Generations whose stores are there."""
        return self.line.generations if self.old else self.line.generations[-1:]

    @property
    def species(self) -> tuple[str, ...]:
        """Species of the new stores."""
        return tuple(dict.fromkeys(name for store in self.new for name in store.lexicon.species))

    def phases(self) -> dict[str, PhaseConfig]:
        phases = dict(zip(PHASES, (self.recipe.phase1, self.recipe.phase2), strict=True))
        if not self.old:
            phases = {name: replace(phase, replay=0.0) for name, phase in phases.items()}
        return {name: phase for name, phase in phases.items() if phase.steps}

    def cells(self) -> LineCells:
        """All cells, held out as they were, under the grown lexicon and the old labels."""
        base = self.recipe.of_phase(self.line.base, self.recipe.phase1, labelled=True)
        n_old, labels = len(self.generations) - 1, self.recipe.labels
        stores = [*self.old, *self.new]
        return LineCells(self.generations, stores, base, self.grown, n_old=n_old, replay=None, labels=labels)


def _plan(
    run: Path, store: Sequence[Path], recipe: ExtensionRecipe, replay: Sequence[Path], *, replayed: bool, disjoint: bool
) -> _Plan:
    """Open everything and check it."""
    spec = load_model(run)[1]
    line = Lineage.of(run, spec)
    if replay and not replayed:
        raise InputError("--replay names old stores and --no-replay leaves them out: give one of the two")
    if replayed and not line.stores:
        raise InputError(
            f"{run}: does not say which stores it was trained on (no {RUN}), so no old cell can be replayed and rows "
            "cannot be matched by whole expression profiles; go without with --no-replay"
        )
    if not store:
        raise InputError("no store given; make one with `lexicell prepare` and pass it with --store")
    new = [Store.open(path) for path in store]
    known = {entry["fingerprint"]: entry["path"] for entry in line.stores}
    raise_all(
        (f"{item.path}: the model was trained on this very store already" for item in new if item.fingerprint in known),
        "there is nothing to extend by:",
    )
    old = open_replay(line, replay, run) if replayed else []
    growth = Growth.of(spec, old, new)
    raise_all(check_growth(growth, spec, new, disjoint=disjoint), f"{run}: cannot be extended")
    entries = [
        {
            "name": item.name,
            "path": str(item.path.resolve()),
            "cells": item.n_cells,
            "genes": item.n_genes,
            "species": sorted({source.species for source in item.sources}),
            "fingerprint": item.fingerprint,
        }
        for item in new
    ]
    joined = line.joined_by(entries, recipe.validation, recipe.seed)
    return _Plan(run, recipe, spec, joined, old, new, growth, tuple(tell_distance(old, new, spec)))


def _yardstick(plan: _Plan, levels: tuple[str, ...], orthologs: Path | None) -> Yardstick:
    """Prepare what is measured; refuse truth and orthologs that could not be scored."""
    cells = plan.cells()
    own = plan.spec.label_tree.levels if plan.spec.label_tree is not None else ()
    faults = [
        f"truth level '{level}': the model's label levels are {listing(map(repr, own)) or 'none: it has no label head'}"
        for level in levels
        if level not in own
    ]
    faults += [
        f"truth level '{level}': {store.path} has no such column; it has {listing(store.columns, 20)}"
        for store in plan.new
        for level in levels
        if level not in store.columns
    ]
    raise_all(faults, "the annotation of the new species cannot be scored:")
    pairs = find_pairs(orthologs, plan.growth, plan.species) if orthologs is not None else []
    edges = lower_edges(plan.spec.config.counts)
    return Yardstick(cells, plan.growth, plan.recipe.measure, edges, levels, pairs)


@dataclass(frozen=True, eq=False)
class _Folder:
    """The run folder while it is being made: a folder for each step, and the figures of the steps that are done."""

    out: Path
    plan: _Plan
    levels: tuple[str, ...]
    orthologs: Path | None

    def open(self, *, resume: bool) -> None:
        """Begin, or see that what is there is of the same extension."""
        plan, path = self.plan, self.out / EXTENSION
        facts = {
            "from": str(plan.source.resolve()),
            "from_lexicon": plan.spec.lexicon.fingerprint,
            "to_lexicon": plan.growth.lexicon.fingerprint,
            "n_genes": plan.growth.n_genes,
            "species": list(plan.species),
            "replayed": bool(plan.old),
            "truth_levels": list(self.levels),
            "orthologs": None if self.orthologs is None else str(self.orthologs.resolve()),
            "recipe": asdict(plan.recipe),
        }
        if path.is_file() and (resume or is_child()):
            before = read_json(path)
            known = [entry["fingerprint"] for entry in before.get("new_stores", [])]
            changed = [name for name, value in facts.items() if before.get(name) != value]
            changed += ["stores"] if known != [store.fingerprint for store in plan.new] else []
            if changed:
                raise InputError(
                    f"{self.out}: cannot resume: the extension that was begun there differs in {listing(changed, 10)}; "
                    "give the command that began it, or another --out"
                )
            return
        if resume:
            raise InputError(f"{self.out}: nothing to resume: {path} not found; start without --resume")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise InputError(
                f"{self.out}: already there, and not empty; choose another --out"
                + (", or --resume to go on with that extension" if path.is_file() else ", or remove what is there")
            )
        self.out.mkdir(parents=True, exist_ok=True)
        new = [dict(entry) for entry in plan.line.stores[-len(plan.new) :]]
        plan.line.save(path, {**facts, "new_stores": new, "notes": list(plan.notes)})

    def steps(self) -> dict[str, Any]:
        """Return the figures of the steps that are done."""
        path = self.out / STEPS
        return read_json(path) if path.is_file() else {}

    def model(self, name: str) -> Path:
        """Return where a step's model lies."""
        if name == ROWS:
            return self.out / START
        return self.out / name if (self.out / name / WEIGHTS).is_file() else self.out


@dataclass(frozen=True, eq=False)
class _Extension:
    """The steps, one after the other; each that is done is not done again."""

    plan: _Plan
    folder: _Folder
    yardstick: Yardstick
    console: Console
    progress: bool

    def run(self) -> ExtendResult:
        """Go through all steps, or up to where a signal stops."""
        for note in self.plan.notes:
            self.console.print(f"[yellow]note:[/] {note}", highlight=False)
        model = self._set_rows()
        self._measure(ROWS, model)
        fitted: FitResult | None = None
        for name, phase in self.plan.phases().items():
            if name not in self.folder.steps():
                what = "the new rows alone" if name == PHASES[0] else "everything, with old cells replayed"
                self.console.print(f"[bold]Training {what}")
                fitted = self._fit(name, phase, model)
                if not fitted.finished:
                    return self._result(finished=False)
            model = self.folder.model(name)
            self._measure(name, model)
        if not is_child():
            self._finish(name)
        return self._result(finished=True)

    def _set_rows(self) -> Path:
        plan, folder = self.plan, self.folder.out / START
        if (folder / CONFIG).is_file() or ROWS in self.folder.steps():  # the config is written last
            return folder
        self.console.print(f"[bold]Setting {len(plan.growth.lexicon) - plan.growth.n_genes:,} new gene rows")
        network, spec = load_model(plan.source)
        data, recipe = self.yardstick.data, plan.recipe
        old_rows = network.genes.weight.detach().numpy()
        if plan.old:
            cells = data.old_training, data.new_training
            rows = new_gene_rows(data.collection, *cells, old_rows, recipe.rows, seed=recipe.seed)
        else:
            usual = network.bag.usual.numpy()
            rows = rows_by_mean(data.collection, data.new_training, old_rows, usual, seed=recipe.seed)
        self._tell(rows)
        marginal = self.yardstick.new_skill.baseline.marginal()
        grown = plan.growth.apply(network, spec, rows.rows, rows.usual, marginal)
        write_array(self.folder.out / "match_confidence.npy", rows.confidence)
        save_model(folder, network, grown)
        return folder

    def _tell(self, rows: NewGeneRows) -> None:
        """Keep what setting the rows told, and the labels that it carried over."""
        for note in rows.notes:
            self.console.print(f"[yellow]note:[/] {note}", highlight=False)
        if is_child():
            return
        data = self.yardstick.data
        told: dict[str, Any] = {"notes": list(rows.notes)}
        table = coupled_labels(data, rows.coupled)
        if table is not None and data.label_tree is not None:
            write_labels(self.folder.out, table)
            told["coupled_labels"] = score_labels(table, data, data.label_tree, self.folder.levels)
        write_json(self.folder.out / JOINED, told)

    def _fit(self, name: str, phase: PhaseConfig, model: Path) -> FitResult:
        plan, folder = self.plan, self.folder.out / name
        labels = self.yardstick.data.collection.labels
        learned = [self.yardstick.data.new_training] + ([self.yardstick.data.old_training] if phase.replay else [])
        labelled = any(bool((labels[cells] >= 0).any()) for cells in learned)
        start = PhaseStart(
            model=model,
            name=name,
            generations=plan.generations,
            n_old=len(plan.generations) - 1,
            growth=plan.growth,
            frozen=name == PHASES[0],
            replay=phase.replay,
            labels=plan.recipe.labels,
        )
        resume = (folder / RECIPE).is_file()
        if folder.exists() and not resume and not is_child():
            shutil.rmtree(folder)  # stopped before it began
        recipe = plan.recipe.of_phase(plan.line.base, phase, labelled=labelled)
        stores = [*plan.old, *plan.new]
        return fit(recipe, stores, folder, start=start, resume=resume, progress=self.progress)

    def _measure(self, name: str, model: Path) -> None:
        steps = self.folder.steps()
        if name in steps or is_child():
            return
        self.console.print("[bold]Measuring what was gained and forgotten")
        before = steps[list(steps)[-1]] if steps else None
        steps[name] = self.yardstick.measure(CellModel.load(model), before)
        write_json(self.folder.out / STEPS, steps)

    def _finish(self, last: str) -> None:
        """Make the last phase's folder the run folder, and drop what was only needed on the way."""
        out, plan = self.folder.out, self.plan
        if (out / last).is_dir():
            _sum_exposure(plan, out, last)
            for item in sorted((out / last).iterdir(), key=lambda path: path.name == WEIGHTS):
                item.replace(out / item.name)
            (out / last).rmdir()
        facts = read_json(out / RUN)
        write_json(out / RUN, facts | {"stores": [dict(entry) for entry in plan.line.stores]})
        shutil.rmtree(out / START, ignore_errors=True)
        shutil.rmtree(out / PHASES[0] / CHECKPOINTS, ignore_errors=True)
        if not (out / "report.html").is_file():
            write_tables(out, self.yardstick, CellModel.load(out), self.folder.steps())
            report(out, progress=False)

    def _result(self, *, finished: bool) -> ExtendResult:
        return ExtendResult.read(self.folder.out, finished=finished)


def _sum_exposure(plan: _Plan, out: Path, last: str) -> None:
    """Add what the old model and the first phase showed of each gene to what the last phase showed."""
    if not (out / last / EXPOSURE).is_file():  # stopped right after it was done
        return
    total = np.load(out / last / EXPOSURE, allow_pickle=False)
    for folder in (plan.source, out / PHASES[0]):
        path = folder / EXPOSURE
        if folder != out / last and path.is_file():
            before = np.load(path, allow_pickle=False)
            total[: len(before)] += before
    write_array(out / EXPOSURE, total)
    (out / last / EXPOSURE).unlink()
