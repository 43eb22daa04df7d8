"""lexicell: transformers pretrained on single-cell RNA counts.

Every verb of the command line is a function here, and takes paths or AnnData::

    import lexicell as lx

    lx.prepare("corpus.yaml", "store")
    lx.pretrain("tiny", "store", "run")
    lx.annotate("run", query, reference, ["class", "subclass"])

Names are imported when they are first used, so that ``import lexicell`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lexicell.data.store import Store
    from lexicell.datasets.simulate import Simulation, SimulationConfig, simulate
    from lexicell.errors import InputError
    from lexicell.genes.lexicon import Lexicon
    from lexicell.inference.cell_model import CellModel
    from lexicell.labels import LabelTree
    from lexicell.workflows.annotate import annotate
    from lexicell.workflows.benchmark_annotate import benchmark_annotate
    from lexicell.workflows.demo import demo
    from lexicell.workflows.embed import embed
    from lexicell.workflows.extend import extend
    from lexicell.workflows.genes import genes_table
    from lexicell.workflows.genes_coherence import genes_coherence
    from lexicell.workflows.genes_contextual import genes_contextual
    from lexicell.workflows.genes_contrast import genes_contrast
    from lexicell.workflows.genes_map import genes_map
    from lexicell.workflows.genes_match import genes_match
    from lexicell.workflows.genes_neighbours import genes_neighbours
    from lexicell.workflows.genes_tissue import genes_tissue
    from lexicell.workflows.interpret_attention import interpret_attention
    from lexicell.workflows.interpret_attribution import interpret_attribution
    from lexicell.workflows.interpret_counts import interpret_counts
    from lexicell.workflows.interpret_knockout import interpret_knockout
    from lexicell.workflows.interpret_options import AttributionOptions, KnockoutOptions
    from lexicell.workflows.prepare import prepare
    from lexicell.workflows.pretrain import pretrain
    from lexicell.workflows.public_data import get_data, list_data
    from lexicell.workflows.report import report
    from lexicell.workflows.store_inspection import store_export, store_info, store_verify

_HOMES = {
    "AttributionOptions": "lexicell.workflows.interpret_options",
    "CellModel": "lexicell.inference.cell_model",
    "InputError": "lexicell.errors",
    "KnockoutOptions": "lexicell.workflows.interpret_options",
    "LabelTree": "lexicell.labels",
    "Lexicon": "lexicell.genes.lexicon",
    "Simulation": "lexicell.datasets.simulate",
    "SimulationConfig": "lexicell.datasets.simulate",
    "Store": "lexicell.data.store",
    "annotate": "lexicell.workflows.annotate",
    "benchmark_annotate": "lexicell.workflows.benchmark_annotate",
    "demo": "lexicell.workflows.demo",
    "embed": "lexicell.workflows.embed",
    "extend": "lexicell.workflows.extend",
    "genes_map": "lexicell.workflows.genes_map",
    "genes_match": "lexicell.workflows.genes_match",
    "genes_neighbours": "lexicell.workflows.genes_neighbours",
    "genes_coherence": "lexicell.workflows.genes_coherence",
    "genes_contextual": "lexicell.workflows.genes_contextual",
    "genes_contrast": "lexicell.workflows.genes_contrast",
    "genes_tissue": "lexicell.workflows.genes_tissue",
    "genes_table": "lexicell.workflows.genes",
    "get_data": "lexicell.workflows.public_data",
    "interpret_attention": "lexicell.workflows.interpret_attention",
    "interpret_attribution": "lexicell.workflows.interpret_attribution",
    "interpret_counts": "lexicell.workflows.interpret_counts",
    "interpret_knockout": "lexicell.workflows.interpret_knockout",
    "list_data": "lexicell.workflows.public_data",
    "prepare": "lexicell.workflows.prepare",
    "pretrain": "lexicell.workflows.pretrain",
    "report": "lexicell.workflows.report",
    "simulate": "lexicell.datasets.simulate",
    "store_export": "lexicell.workflows.store_inspection",
    "store_info": "lexicell.workflows.store_inspection",
    "store_verify": "lexicell.workflows.store_inspection",
}

__all__ = [
    "AttributionOptions",
    "CellModel",
    "InputError",
    "KnockoutOptions",
    "LabelTree",
    "Lexicon",
    "Simulation",
    "SimulationConfig",
    "Store",
    "annotate",
    "benchmark_annotate",
    "demo",
    "embed",
    "extend",
    "genes_coherence",
    "genes_contextual",
    "genes_contrast",
    "genes_map",
    "genes_match",
    "genes_neighbours",
    "genes_table",
    "genes_tissue",
    "get_data",
    "interpret_attention",
    "interpret_attribution",
    "interpret_counts",
    "interpret_knockout",
    "list_data",
    "prepare",
    "pretrain",
    "report",
    "simulate",
    "store_export",
    "store_info",
    "store_verify",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'lexicell' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
