import numpy as np
import pytest
from scipy import sparse

from lexicell.datasets.simulate import SimulationConfig, simulate
from lexicell.genes.lexicon import Lexicon
from lexicell.workflows.benchmark_panels import COLUMNS, compare_panel_losses

LEVELS = ["class", "type"]


class Blind:
    """A model that sees nothing: the probe judges by counts alone."""

    label_tree = None

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon

    def embed(self, query, *, samples=None, progress=False):
        return np.ones((query.n_cells, 2), dtype=np.float32)


@pytest.fixture(scope="module")
def halves():
    """150 cells with labels and 150 to be labelled, of hard types, over 200 genes."""
    config = SimulationConfig(
        phylogeny="(simulus_albus:0.2,simulus_niger:0.2);",
        n_cells=300,
        n_genes=200,
        branching=(2, 3),
        type_spread=0.6,
        markers_per_type=4,
        marker_effect=1.5,
        depth=300.0,
        convergent_species=(),
    )
    cells = simulate(config).cells["simulus_albus"]
    return cells[::2].copy(), cells[1::2].copy()


def test_the_loss_foretold_is_near_the_loss_suffered(halves):
    reference, query = halves
    names = list(query.var_names)
    model = Blind(Lexicon.from_genes("simulus_albus", names, query.var["symbol"]))
    panels = {"nearly all": names[:190], "few": names[:40], "too few": names[:10]}
    table = compare_panel_losses(model, query, reference, LEVELS, panels)
    assert list(table) == list(COLUMNS)
    table = table.set_index(["panel", "level"])
    for level in LEVELS:
        few = table.loc[("few", level)]
        assert few["genes"] == 40
        assert abs(few["said_loss"] - few["actual_loss"]) < 0.15
        assert few["actual_loss"] > 0.02
        assert abs(few["said"] - few["actual"]) < 0.2
        assert np.isnan(table.loc[("nearly all", level), "said_loss"])  # nothing is said where little is lost
        assert abs(table.loc[("nearly all", level), "actual_loss"]) < 0.05
        assert table.loc[("too few", level), "refused"]
        assert np.isnan(table.loc[("too few", level), "actual"])


def test_noise_in_place_of_a_panel_is_refused(halves):
    reference, query = (half.copy() for half in halves)
    rng = np.random.default_rng(0)
    for half in (reference, query):
        dense = half.X.toarray()
        dense[:, :60] = rng.poisson(1.0, size=(half.n_obs, 60))
        half.X = sparse.csr_matrix(dense)
    names = list(query.var_names)
    model = Blind(Lexicon.from_genes("simulus_albus", names, query.var["symbol"]))
    assert compare_panel_losses(model, query, reference, LEVELS, {"noise": names[:60]})["refused"].all()
