"""The parts of a report that tell why the model says so: what `lexicell interpret ...` left in report/."""

from __future__ import annotations

from lexicell.reporting.confidence_figure import confidence_curves
from lexicell.reporting.interpret_figures import (
    attention_map,
    count_classes_figure,
    knockout_volcano,
    main_checks,
    pair_check_dots,
    paired_scores,
    read_map,
    response_map,
    top_gene_bars,
)
from lexicell.reporting.run_tables import RunTables
from lexicell.reporting.sections import Section, picture, table_of

_BARS = 12
_FOREMOST = 15


def confidence_section(run: RunTables) -> Section | None:
    """Return how sure the model was of held-out cells, and how rightly."""
    bins = run.table("annotation_reliability", "method", "level", "n_cells", "confidence", "accuracy")
    curve = run.table("annotation_coverage", "method", "level", "coverage", "error")
    if bins is None or curve is None:
        return None
    caption = (
        "Left: share of right calls against the probability given (not calibrated; `lexicell annotate` calibrates on "
        "held-out reference cells). Right: error among the cells that are left when the least sure ones are not called."
    )
    drawn = picture(confidence_curves(bins, curve), "confidence", caption)
    return Section("confidence", "How sure, and how rightly", (), (drawn,))


def counts_section(run: RunTables) -> Section | None:
    """Return the order of count classes."""
    classes = run.table("interpret_counts", "class", "count", "from_count", "seen", "first", "step_share")
    distances = run.table("interpret_counts_distances", "class", "other", "distance")
    caps = run.table("interpret_counts_caps", "max_count", "share_above", "moved")
    if classes is None or distances is None or caps is None:
        return None
    caption = (
        "Above: the first principal coordinate of the count classes, and their distances. Below: how far a cell's "
        "embedding moves when one token's class is raised by one, and when all counts are capped."
    )
    drawn = picture(count_classes_figure(classes, distances, caps), "interpret_counts", caption)
    return Section("interpret-counts", "Count classes", (), (drawn,))


def attention_section(run: RunTables) -> Section | None:
    """Return who attends to whom, and the check against known pairs."""
    between = run.table("interpret_attention_map", "gene", "partner", "attention")
    read = run.table("interpret_attention_read", "group", "symbol", "rollout")
    if between is None or read is None:
        return None
    caption = "Attention of the row's gene to the column's; grey where the two met in too few cells."
    pictures = [
        picture(attention_map(between), "attention_map", caption),
        picture(read_map(read), "attention_read", "What CLS reads: attention rollout (Abnar & Zuidema 2020)."),
    ]
    tables, text = [], "Attention says what the model looked at, not what regulates what."
    checks = run.table("interpret_attention_checks", "known", "score", "kind", "auroc", "low", "high", "auroc_matched")
    if checks is not None:
        main = main_checks(checks)
        caption = "How far up a gene's known partners come by each score; lines are 95% intervals over genes."
        pictures.insert(0, picture(pair_check_dots(main), "attention_checks", caption))
        columns = ("known", "score", "genes", "auroc", "low", "high", "auroc_matched")
        tables.append(table_of(main, "Known partners found", tuple(c for c in columns if c in main)))
    else:
        text += " It was not checked against known pairs here (--pairs, --sets)."
    return Section("interpret-attention", "Attention between genes", (text,), tuple(pictures), tuple(tables))


def attribution_section(run: RunTables) -> Section | None:
    """Return which genes made the labels."""
    genes = run.table("interpret_attribution", "group", "symbol", "attribution")
    if genes is None:
        return None
    first = genes.groupby("group", sort=False).head(_BARS)
    known = "marker" if "marker" in first else ""
    bars = top_gene_bars(first, value="attribution", x_label="contribution to the label's score", known=known)
    pictures = [picture(bars, "attribution", "The genes that contribute most to each label (at most 12 labels).")]
    tables = []
    columns = ("group", "markers", "recall", "de_recall", "fold_recall", "auroc", "de_auroc", "fold_auroc")
    markers = run.table("interpret_attribution_markers", *columns)
    if markers is not None:
        names = ("attribution", "differential expression")
        label = "known markers among the first 20 genes"
        dots = paired_scores(markers, left="recall", right="fold_recall", names=names, label=label)
        caption = "Known markers found, beside a ranking by the difference of mean log CPM."
        pictures.append(picture(dots, "attribution_markers", caption))
        tables.append(table_of(markers, "Known markers found", columns))
    return Section("interpret-attribution", "Which genes made a label", (), tuple(pictures), tuple(tables))


def knockout_section(run: RunTables) -> Section | None:
    """Return what knock-outs did."""
    columns = ("group", "symbol", "level", "level_controls", "shift", "shift_controls", "shift_p", "shift_fdr")
    genes = run.table("interpret_knockout", *columns)
    responses = run.table("interpret_knockout_responses", "group", "symbol", "responding", "change", "z")
    if genes is None or responses is None:
        return None
    text = (
        "Genes are silenced in cells that express them, one at a time; p-values compare with genes expressed alike. "
        "This is what the model expects, not an experiment. Where the controls' level is far below the gene's, no gene "
        "is expressed alike, and the p-value says little."
    )
    drawn = (
        picture(knockout_volcano(genes), "knockout", "How far knock-outs move cells."),
        picture(response_map(responses), "knockout_responses", "What they do to the expected counts of other genes."),
    )
    shown = table_of(genes.head(_FOREMOST), "Knock-outs", columns)
    return Section("interpret-knockout", "In-silico knock-outs", (text,), drawn, (shown,))
