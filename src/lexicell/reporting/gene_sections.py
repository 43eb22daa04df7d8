"""The parts of a report that tell of the gene space: what the verbs `lexicell genes ...` left in report/."""

from __future__ import annotations

from lexicell.reporting.gene_contexts import contexts_figure
from lexicell.reporting.gene_figures import coherence_dots, volcano
from lexicell.reporting.gene_maps import gene_graph, gene_map
from lexicell.reporting.run_tables import RunTables
from lexicell.reporting.sections import Section, picture, table_of

_FOREMOST = 15
_MOST_PAIRS = 4
_COHERENCE_TABLES = (
    (
        "genes_coherence_differences",
        "lexicell less the others: AUROC, with 95% intervals over sets",
        ("collection", "baseline", "kind", "difference", "low", "high"),
    ),
    (
        "genes_probes",
        "Probes: classes of genes read by logistic regression, 5-fold, with 95% intervals over genes",
        ("task", "method", "auroc", "low", "high", "auroc_matched", "positives", "negatives"),
    ),
)


def map_section(run: RunTables) -> Section | None:
    """Return the map of the gene space."""
    table = run.table("genes_map", "x", "y", "species", "symbol", "method")
    if table is None:
        return None
    method = str(table["method"].iloc[0])
    caption = f"{len(table):,} genes by their rows in the gene table ({method}); far distances mean little in a plane."
    return Section("genes-map", "The gene space", (), (picture(gene_map(table), "genes_map", caption),))


def neighbours_section(run: RunTables) -> Section | None:
    """Return the graph around a gene."""
    nodes = run.table("genes_neighbours", "x", "y", "species", "symbol", "kind", "similarity")
    edges = run.table("genes_neighbours_edges", "source", "target", "similarity", "kind")
    if nodes is None or edges is None:
        return None
    caption = "The nearest genes in its own species, its best matches in the others, and the genes around those."
    drawn = picture(gene_graph(nodes, edges), "genes_neighbours", caption)
    return Section("genes-neighbours", f"Around {nodes['symbol'].iloc[0]}", (), (drawn,))


def coherence_section(run: RunTables) -> Section | None:
    """Return how well nearness recovers gene sets."""
    columns = ("collection", "method", "sets", "auroc", "auroc_matched", "null_auroc")
    table = run.table("genes_coherence", *columns)
    if table is None:
        return None
    caption = (
        "How far up a set's held-out genes come when all genes are ranked by nearness to the others: mean over sets. "
        "In bins, only genes of alike expression compete; the marks are random sets of alike expression."
    )
    tables = [table_of(table, "Gene sets", columns)]
    for name, title, others in _COHERENCE_TABLES:
        more = run.table(name, *others)
        if more is not None:
            tables.append(table_of(more, title, others))
    drawn = picture(coherence_dots(table), "genes_coherence", caption)
    return Section("genes-coherence", "Is the gene space biology?", (), (drawn,), tuple(tables))


def contextual_section(run: RunTables) -> Section | None:
    """Return how groups of cells differ in what the model makes of their genes."""
    groups = run.table("genes_contextual", "a", "b", "distance", "genes")
    genes = run.table("genes_contextual_genes", "species", "gene_id", "symbol", "group", "distance", "spread")
    if groups is None or genes is None:
        return None
    caption = (
        "Mean token states: distances between groups of cells, in units of a gene's standard deviation from cell to "
        "cell within a group, without what noise adds. A state holds the gene's own count: genes expressed otherwise "
        "differ too."
    )
    drawn = picture(contexts_figure(groups, genes), "genes_contextual", caption)
    foremost = genes.drop_duplicates(["species", "gene_id"]).head(_FOREMOST)
    shown = table_of(foremost, "Genes that differ most between groups", ("species", "symbol", "spread"))
    return Section("genes-contextual", "Genes in each group of cells", (), (drawn,), (shown,))


def tissue_section(run: RunTables) -> Section | None:
    """Return the genes that change company between groups of cells."""
    columns = ("symbol", "displacement_effect", "displacement_excess", "displacement_fdr", "rbo_effect", "rbo_fdr")
    table = run.table("genes_tissue", "a", "b", "displacement_p", *columns)
    if table is None:
        return None
    pictures, tables = [], []
    for number, ((a, b), part) in enumerate(table.groupby(["a", "b"], sort=False)):
        if number == _MOST_PAIRS:
            break
        figure = volcano(
            part["displacement_excess"].to_numpy(),
            part["displacement_p"].to_numpy(),
            part["displacement_fdr"].to_numpy(),
            part["symbol"].to_numpy(dtype=object),
            x_label="displacement beyond that of like genes (median absolute deviations)",
            title=f"{a} against {b}",
        )
        pictures.append(picture(figure, f"genes_tissue{number}", f"Genes that change company, {a} against {b}."))
        tables.append(table_of(part.head(_FOREMOST), f"{a} against {b}", columns))
    return Section("genes-tissue", "Genes that change company", (), tuple(pictures), tuple(tables))


def contrast_section(run: RunTables) -> Section | None:
    """Return the genes alike within a group of species."""
    columns = ("symbol", "contrast", "within", "between", "p_labels", "p", "fdr")
    table = run.table("genes_contrast", *columns)
    if table is None:
        return None
    figure = volcano(
        table["contrast"].to_numpy(),
        table["p"].to_numpy(),
        table["fdr"].to_numpy(),
        table["symbol"].to_numpy(dtype=object),
        x_label="neighbourhood similarity, within less between",
        title="Group of species against the others",
    )
    text = (
        f"{len(table):,} matched genes. p and FDR pool the null contrasts of all genes, which supposes that genes vary "
        f"alike; the smallest p that a gene can have by itself here is {table['p_labels'].min():.3g}."
    )
    shown = table_of(table.head(_FOREMOST), "Foremost genes", columns)
    caption = "Contrast of neighbourhoods between groups of species, given their tree."
    drawn = picture(figure, "genes_contrast", caption)
    return Section("genes-contrast", "Alike within a group of species", (text,), (drawn,), (shown,))
