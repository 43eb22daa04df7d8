"""One self-contained HTML page from a run folder's tables: no script, no network, every picture inside."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources

import jinja2
import numpy as np
import pandas as pd

from lexicell.reporting import figures
from lexicell.reporting.run_tables import RunTables
from lexicell.reporting.section_registry import sections_of_tables
from lexicell.reporting.sections import Headline, Section, picture
from lexicell.reporting.text import Table, format_cell

COUNT_STRATA = ("0", "1", "2-4", "5-19", "20+")
_NEVER_SEEN_SHOWN = 30
_NUMBER = int | float | np.number


@dataclass(frozen=True)
class Page:
    """Everything the template shows."""

    title: str
    subtitle: str
    headlines: tuple[Headline, ...]
    sections: tuple[Section, ...]
    faults: tuple[str, ...] = field(default=())


def build_page(run: RunTables) -> Page:
    """Turn a run's tables into headlines and sections; a section is there when its tables are."""
    of_tables, faults = sections_of_tables(run)
    first = [of_tables.pop(name, None) for name in ("extension_steps", "annotation_reliability")]
    ordered = (
        _data_section(run),
        first[0],
        _annotation_section(run),
        first[1],
        _skill_section(run),
        _embedding_section(run),
        *of_tables.values(),
        _training_section(run),
        _exposure_section(run),
        _recipe_section(run),
    )
    sections = tuple(section for section in ordered if section is not None)
    return Page(f"lexicell run: {run.name}", _subtitle(run), _headlines(run), sections, (*run.faults, *faults))


def render(page: Page) -> str:
    """Return the page as HTML."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["cell"] = _shown
    environment.filters["is_number"] = lambda value: isinstance(value, _NUMBER)
    source = resources.files("lexicell.reporting").joinpath("template.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(page=page)


def _shown(value: object) -> str:
    """Return a table's value as text: scores with 3 decimals, so that a column of them lines up."""
    if isinstance(value, float | np.floating):
        number = float(value)
        if 0 < abs(number) < 10:
            return f"{number:.3f}"
    return format_cell(value)


def last_value(run: RunTables, name: str) -> float | None:
    """Return the last logged value of a metric, or None."""
    line = figures.curve(run.metrics, name) if run.metrics is not None else pd.Series(dtype=float)
    return float(line.iloc[-1]) if len(line) else None


def skill_strata(run: RunTables) -> dict[str, float]:
    """Return the last skill of every stratum: true counts in their order, then gene means."""
    names = [str(name) for name in run.metrics.columns] if run.metrics is not None else []
    found = [name.removeprefix("val/skill/") for name in names if name.startswith("val/skill/")]
    order = [name for name in COUNT_STRATA if name in found]
    order += [name for name in found if name not in order]
    values = {name: last_value(run, f"val/skill/{name}") for name in order}
    return {name: value for name, value in values.items() if value is not None}


def _subtitle(run: RunTables) -> str:
    stores = [store for store in run.facts.get("stores", []) if isinstance(store, dict)]
    parts = [str(store.get("name", "store")) for store in stores]
    versions = [f"{name} {run.facts[name]}" for name in ("lexicell", "torch") if name in run.facts]
    return " · ".join(filter(None, [f"trained on {', '.join(parts)}" if parts else "", *versions]))


def _headlines(run: RunTables) -> tuple[Headline, ...]:
    found = []
    skill, ce, base = (last_value(run, f"val/{name}") for name in ("skill", "ce", "baseline_ce"))
    if skill is not None:
        note = f"cross-entropy {ce:.3f}, baseline {base:.3f}" if ce is not None and base is not None else ""
        found.append(Headline(f"{skill:.3f}", "count skill, held-out cells", note))
    scores = run.table("annotation_scores", "method", "level", "accuracy", "macro_f1")
    if scores is not None:
        finest = scores[scores["level"] == scores["level"].iloc[-1]]
        mean = finest.groupby("method", sort=False)["macro_f1"].mean()
        own = mean[[name for name in mean.index if name in figures.OWN_METHODS]]
        other = mean.drop(own.index)
        best = own if len(own) else other
        if len(best):
            note = f"{figures.pretty_method(str(other.idxmax()))} {other.max():.3f}" if len(own) and len(other) else ""
            label = f"macro-F1 ({finest['level'].iloc[0]}), {figures.pretty_method(str(best.idxmax()))}"
            found.append(Headline(f"{best.max():.3f}", label, note and f"best baseline: {note}"))
    facts = run.facts
    if "training_cells" in facts:
        held = f"{facts['validation_cells']:,} held out" if "validation_cells" in facts else ""
        found.append(Headline(f"{facts['training_cells']:,}", "cells trained on", held))
    if "genes" in facts or run.lexicon is not None:
        genes = facts.get("genes", len(run.lexicon) if run.lexicon is not None else 0)
        kinds = sorted(set(run.lexicon["species"])) if run.lexicon is not None else []
        found.append(Headline(f"{genes:,}", "genes", ", ".join(map(str, kinds))))
    if "parameters" in facts:
        found.append(Headline(_short(_total(facts["parameters"])), "parameters", ""))
    if "cells_per_second" in facts:
        note = f"{float(facts['seconds']) / 60:.1f} minutes" if "seconds" in facts else ""
        found.append(Headline(f"{facts['cells_per_second']:,.0f}", "cells/s in training", note))
    return tuple(found)


def _total(parameters: object) -> float:
    """Return the number of parameters, which run.json holds as such or under ``total`` beside its parts."""
    found = parameters.get("total", 0) if isinstance(parameters, dict) else parameters
    return float(found) if isinstance(found, int | float) else 0.0


def _short(number: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:,.0f}"


def _data_section(run: RunTables) -> Section | None:
    stores = [store for store in run.facts.get("stores", []) if isinstance(store, dict)]
    tables = []
    if stores:
        columns = [name for name in ("name", "species", "cells", "genes") if any(name in s for s in stores)]
        rows = tuple(tuple(_flat(store.get(name)) for name in columns) for store in stores)
        tables.append(Table("Stores", tuple(columns), rows))
    known = {
        "training_cells": "cells to train on",
        "validation_cells": "cells held out",
        "held_out": "how cells were held out",
        "parameters": "parameters of the model",
        "tokens": "genes shown a view",
        "queries": "genes asked a cell",
        "count_classes": "count classes",
        "counts_clamped": "counts above the last class",
        "steps": "steps",
        "seconds": "seconds of training",
        "cells_per_second": "cells a second",
    }
    facts = dict(run.facts)
    parts = facts.get("parameters")
    if isinstance(parts, dict):
        facts["parameters"] = int(_total(parts))
    rows = tuple((text, _flat(facts[name])) for name, text in known.items() if name in facts)
    if rows:
        tables.append(Table("Training", ("", "value"), rows))
    if isinstance(parts, dict):
        tables.append(Table("Parameters", ("part", "number"), tuple(parts.items())))
    return Section("data", "What was trained on what", tables=tuple(tables)) if tables else None


def _flat(value: object) -> object:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {format_cell(_flat(item))}" for key, item in value.items())
    return value


def _annotation_section(run: RunTables) -> Section | None:
    pictures, tables = [], []
    scores = run.table("annotation_scores", "method", "level", "accuracy", "macro_f1")
    if scores is not None:
        caption = (
            "Label transfer to held-out cells. Macro-F1 is the mean F1 over the labels present in the truth, so "
            "that rare types count as much as common ones."
        )
        pictures.append(picture(figures.method_bars(scores), "methods", caption))
        columns = [name for name in scores.columns if name in _SCORE_COLUMNS]
        rows = tuple(
            tuple(figures.pretty_method(str(v)) if n == "method" else v for n, v in zip(columns, row, strict=True))
            for row in scores[columns].itertuples(index=False)
        )
        tables.append(Table("Scores", tuple({"macro_f1": "macro-F1"}.get(name, name) for name in columns), rows))
    confusion = run.table("confusion", "method", "truth", "predicted", "n")
    if confusion is not None:
        levels = list(dict.fromkeys(confusion["level"])) if "level" in confusion.columns else [None]
        for place, level in enumerate(levels):
            part = confusion if level is None else confusion[confusion["level"] == level]
            of = f" on the level {level}" if level is not None else ""
            caption = f"Confusion{of}, in percent of each true label's cells (rows); common labels on top."
            pictures.append(picture(figures.confusion_matrices(part), f"confusion{place}", caption))
    if not pictures:
        return None
    tables += _cells_table(run)
    return Section("annotation", "Annotation beside the baselines", (), tuple(pictures), tuple(tables))


_SCORE_COLUMNS = ("method", "level", "seed", "accuracy", "macro_f1", "coverage", "seconds")


def _skill_section(run: RunTables) -> Section | None:
    skill, strata = last_value(run, "val/skill"), skill_strata(run)
    if skill is None and not strata:
        return None
    counts = {name: value for name, value in strata.items() if name in COUNT_STRATA}
    means = {name.removeprefix("mean").strip(): value for name, value in strata.items() if name not in COUNT_STRATA}
    own = run.table("gene_means", "stratum", "skill")
    if own is not None:
        means = dict(zip(own["stratum"].astype(str), own["skill"].astype(float), strict=True))
    rows = [("all queries", "overall", skill)] if skill is not None else []
    rows += [("true count", name, value) for name, value in counts.items()]
    rows += [("gene's mean count", name, value) for name, value in means.items()]
    table = pd.DataFrame(rows, columns=["group", "stratum", "skill"])
    text = (
        "Skill is 1 - CE / CE of the baseline, where the baseline knows each gene's distribution of counts given "
        "the cell's depth: 0 is no better than that, 1 is perfect. The overall skill is the headline. Strata by "
        "the true count are diagnostics: a stratum chosen by the outcome can be won by overpredicting, so read "
        "them together with the stratum of zeros."
    )
    caption = "Skill on held-out cells at the last validation."
    drawn = picture(figures.stratum_bars(table), "strata", caption)
    cells = tuple((group, stratum, float(value)) for group, stratum, value in rows)
    tables = (Table("Skill", ("by", "stratum", "skill"), cells),)
    return Section("skill", "Predicting held-out counts", (text,), (drawn,), tables)


def _embedding_section(run: RunTables) -> Section | None:
    table = run.table("embedding", "x", "y", "label")
    if table is None:
        return None
    method = str(table["method"].iloc[0]) if "method" in table.columns else ""
    caption = f"{len(table):,} cells by their embedding{f' ({method})' if method else ''}, coloured by label."
    drawn = picture(figures.embedding_scatter(table, method), "embedding", caption)
    return Section("embedding", "Cell embedding", (), (drawn,), tuple(_cells_table(run)))


def _cells_table(run: RunTables) -> list[Table]:
    """Return which cells the tables on held-out cells are of, if that is known."""
    cells = run.table("held_out", "what", "value")
    if cells is None:
        return []
    rows = tuple((str(what), str(value)) for what, value in cells[["what", "value"]].itertuples(index=False))
    return [Table("Which cells", ("", ""), rows)]


def _training_section(run: RunTables) -> Section | None:
    figure = figures.training_curves(run.metrics) if run.metrics is not None else None
    if figure is None:
        return None
    caption = "The weighted loss, its terms and the count skill (validation: held-out cells)."
    return Section("training", "Training curves", (), (picture(figure, "training", caption),))


def _exposure_section(run: RunTables) -> Section | None:
    if run.exposure is None or not len(run.exposure):
        return None
    exposure = run.exposure
    names = ("as expressed", "as zero", "as query")
    total = exposure.sum(axis=1)
    rows = tuple(
        (name, int(column.min()), float(np.median(column)), int(column.max()), int((column == 0).sum()))
        for name, column in zip((*names, "in all"), (*exposure.T, total), strict=True)
    )
    tables = [Table("Times a gene was seen", ("", "minimum", "median", "maximum", "genes never"), rows)]
    text = []
    never = np.flatnonzero(exposure[:, 0] == 0)
    if len(never) and run.lexicon is not None and len(run.lexicon) == len(exposure):
        genes = run.lexicon.iloc[never]
        symbols = genes["symbol"].where(genes["symbol"].astype(str) != "", genes["gene_id"]).astype(str)
        shown = ", ".join(symbols[:_NEVER_SEEN_SHOWN])
        more = len(never) - _NEVER_SEEN_SHOWN
        rest = f" and {more:,} more" if more > 0 else ""
        text.append(f"{len(never):,} of {len(exposure):,} genes were never seen expressed: {shown}{rest}.")
    drawn = picture(
        figures.exposure_histogram(exposure),
        "exposure",
        "How often each gene entered a batch. No gene should stay unseen: a dealt deck of genes sees to it.",
    )
    return Section("exposure", "Which genes were seen", tuple(text), (drawn,), tuple(tables))


def _recipe_section(run: RunTables) -> Section | None:
    facts = run.facts
    versions = [
        (name, facts[name]) for name in ("lexicell", "torch", "lightning", "python", "machine") if name in facts
    ]
    prints = [
        (f"store {store.get('name', '')}", store["fingerprint"])
        for store in facts.get("stores", [])
        if isinstance(store, dict) and "fingerprint" in store
    ]
    if "lexicon_fingerprint" in facts:
        prints.append(("lexicon", facts["lexicon_fingerprint"]))
    tables = []
    if versions:
        tables.append(Table("Versions", ("", "version"), tuple(versions)))
    if prints:
        tables.append(Table("Fingerprints (SHA-256)", ("of", "fingerprint"), tuple(prints)))
    if not tables and not run.recipe:
        return None
    return Section("recipe", "Recipe, versions, fingerprints", (), (), tuple(tables), (run.recipe or "").strip())
