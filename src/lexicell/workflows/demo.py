"""The whole way on real data: fetch, prepare, pretrain, embed, annotate, compare, report.

Mouse pancreas cells of two donors (Baron et al. 2016): the first donor is the reference that the model is trained
on, the second one is held out and annotated. Every step is the one a user would type, and leaves its files.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from anndata import read_h5ad
from rich.console import Console

from lexicell.data.query import read_query
from lexicell.data.store import Store
from lexicell.datasets.registry import get
from lexicell.files import write_text
from lexicell.labels import LabelTree
from lexicell.reporting.text import Table
from lexicell.training.run_folder import RECIPE, write_json
from lexicell.workflows.annotate import annotate
from lexicell.workflows.embed import embed
from lexicell.workflows.held_out import Cells, compare
from lexicell.workflows.prepare import prepare
from lexicell.workflows.pretrain import PretrainResult, pretrain
from lexicell.workflows.report import report

DATASET, SPECIES, LEVEL = "baron-mouse", "mus_musculus", "cell_type1"
REFERENCE_DONOR, QUERY_DONOR = "mouse1", "mouse2"
METHODS = ("probe", "knn", "label_head", "logistic_regression", "pca_knn")


@dataclass(frozen=True)
class DemoResult:
    """What the demo came to."""

    out: Path
    """Its folder."""
    pretrained: PretrainResult
    """The run."""
    annotation: dict[str, dict[str, float]]
    """Accuracy and macro-F1 of each method on the held-out donor."""
    seconds: dict[str, float]
    """Time of each step."""

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "skill": self.pretrained.figures()["skill"],
            "annotation": self.annotation,
            "pretraining": self.pretrained.figures(),
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        skill = self.pretrained.figures()["skill"]
        rows = [(name, s["accuracy"], s["macro_f1"]) for name, s in self.annotation.items()]
        return [
            Table("Count skill, held-out cells", ("stratum", "skill"), tuple(skill.items())),
            Table(
                f"Annotation of donor {QUERY_DONOR} from donor {REFERENCE_DONOR}",
                ("method", "accuracy", "macro-F1"),
                tuple(rows),
            ),
            Table(
                "Demo",
                ("", ""),
                (
                    ("minutes", sum(self.seconds.values()) / 60),
                    ("report", str(self.out / "report.html")),
                    ("figures", str(self.out / "metrics.json")),
                ),
            ),
        ]


def demo(
    out: str | Path = "demo",
    *,
    seed: int = 0,
    overrides: Mapping[str, object] | None = None,
    progress: bool = True,
) -> DemoResult:
    """Go the whole way on real data, in minutes on a laptop.

    Run again, it goes on from where it was stopped.

    Parameters
    ----------
    out
        Folder for everything: ``store``, ``run``, ``query_*.h5ad``, ``metrics.json``, ``report.html``.
    seed
        Seed of the run.
    overrides
        Dotted fields of the recipe to change, such as ``{"trainer.max_steps": 200}``.
    progress
        Say what is being done, and show progress.
    """
    out = Path(out)
    seconds: dict[str, float] = {}
    step = _Steps(seconds, shown=progress)
    with step("fetch", f"Fetching {DATASET}"):
        reference, query = _split_donors(out)
    with step("prepare", f"Preparing donor {REFERENCE_DONOR} as the reference"):
        store = _prepare(out, reference, progress=progress)
    run = out / "run"
    with step("pretrain", "Pretraining the recipe `tiny`"):
        resume = (run / RECIPE).is_file()
        if run.exists() and not resume:
            shutil.rmtree(run)  # stopped before it began
        changes = {"seed": seed, **(overrides or {})}
        pretrained = pretrain("tiny", store, run, resume=resume, overrides=changes, progress=progress).unless_stopped()
    model = pretrained.model()
    with step("embed", f"Embedding and annotating donor {QUERY_DONOR}"):
        embed(model, query, out=out / "query_embedded.h5ad", progress=False)
        annotate(model, query, store, out=out / "query_annotated.h5ad", progress=False)
        annotate(model, query, method="head", out=out / "query_head.h5ad", progress=False)
    with step("compare", "Comparing with logistic regression and PCA-kNN"):
        known, asked = (Cells.of(read_query(path, model.lexicon, SPECIES), [LEVEL]) for path in (reference, query))
        tables = compare(model, known, asked, LabelTree.from_frame(known.obs, [LEVEL], str(reference)))
        tables.write(run)
    with step("report", "Writing the report"):
        report(run, out / "report.html", progress=False)
    scores = tables.by_method(LEVEL)
    result = DemoResult(out, pretrained, {name: scores[name] for name in METHODS}, seconds)
    write_json(out / "metrics.json", result.figures())
    return result


class _Steps:
    """Says what is being done, and keeps how long it took."""

    def __init__(self, seconds: dict[str, float], *, shown: bool) -> None:
        self._seconds, self._console = seconds, Console(quiet=not shown, stderr=True)

    @contextmanager
    def __call__(self, name: str, words: str) -> Iterator[None]:
        self._console.print(f"[bold]{words}")
        started = time.perf_counter()
        yield
        self._seconds[name] = time.perf_counter() - started


def _split_donors(out: Path) -> tuple[Path, Path]:
    """Write one h5ad a donor, as a lab would have them."""
    paths = out / "reference.h5ad", out / "query.h5ad"
    if not all(path.is_file() for path in paths):
        (source,) = get(DATASET)
        cells = read_h5ad(source)
        out.mkdir(parents=True, exist_ok=True)
        for path, donor in zip(paths, (REFERENCE_DONOR, QUERY_DONOR), strict=True):
            part = path.with_name(f".{path.name}.part")
            cells[cells.obs["donor"] == donor].copy().write_h5ad(part)
            part.replace(path)
    return paths


def _prepare(out: Path, reference: Path, *, progress: bool) -> Store:
    corpus = {
        "datasets": [{"path": reference.name, "species": SPECIES, "donor": "donor", "labels": [LEVEL]}],
    }
    path, store = out / "corpus.yaml", out / "store"
    write_text(path, yaml.safe_dump(corpus, sort_keys=False))
    if not store.exists():
        prepare(path, store, progress=progress)
    return Store.open(store)
