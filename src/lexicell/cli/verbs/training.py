"""Verbs that train a model and report on it: demo, pretrain, report."""

from __future__ import annotations

from pathlib import Path

from lexicell.cli.verbs.result import Result


def demo(*, out: Path = Path("demo")) -> Result:
    """Go the whole way on real data: fetch, prepare, pretrain, embed, annotate, report. Minutes on a laptop.

    Mouse pancreas cells (baron-mouse): one donor is the reference, the other one is held out and annotated.

    Parameters
    ----------
    out
        Folder for the store, the run, metrics.json and report.html.
    """
    from lexicell.workflows.demo import demo

    return demo(out)


def pretrain(
    recipe: str, *, store: list[Path], out: Path, resume: bool = False, overrides: dict[str, object] | None = None
) -> Result:
    """Pretrain a model on one or more stores. Interrupted with Ctrl-C, it stops at a step from which it can resume.

    Parameters
    ----------
    recipe
        Name of a recipe that comes with lexicell (tiny, small, base, large), or path of a YAML file.
    store
        Folder of a store; give it once for every store.
    out
        Folder of the run: model, logs, checkpoints.
    resume
        Go on from the run's last checkpoint.
    overrides
        Fields of the recipe, by dotted name.
    """
    from lexicell.workflows.pretrain import pretrain

    return pretrain(recipe, store, out, resume=resume, overrides=overrides)


def report(run: Path, *, out: Path | None = None) -> Result:
    """Write a run's report: what was trained on what, curves, skill, exposure, annotation beside baselines.

    Parameters
    ----------
    run
        Folder of a trained run.
    out
        HTML file to write. Default: report.html in the run's folder.
    """
    from lexicell.workflows.report import report

    return report(run, out)
