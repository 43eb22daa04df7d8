from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from lexicell.datasets.simulate import SimulationConfig, simulate
from lexicell.errors import InputError

SMALL = SimulationConfig(
    n_cells=400,
    n_genes=300,
    n_programs=6,
    markers_per_type=4,
    n_convergent=15,
    n_rewired=10,
    tissues=("cortex", "liver"),
    divergence=0.6,
)


@pytest.fixture(scope="module")
def simulation():
    return simulate(SMALL)


def log_cpm(adata):
    counts = adata.X.toarray().astype(float)
    return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))


def shared_genes(simulation):
    """Orthogroup x species -> row of the gene in the AnnData, over the orthogroups that all species have."""
    genes = simulation.genes.assign(row=simulation.genes.groupby("species", sort=False).cumcount())
    wide = genes[genes["orthogroup"] != ""].pivot_table(index="orthogroup", columns="species", values="row")
    return wide.dropna().astype(int)


def test_the_cells_are_raw_counts_with_everything_a_user_expects(simulation):
    assert tuple(simulation.cells) == SMALL.species
    for species, adata in simulation.cells.items():
        assert adata.shape == (400, 300)
        assert sparse.isspmatrix_csr(adata.X)
        assert adata.X.dtype == np.int32
        assert adata.X.data.min() > 0
        assert set(adata.obs["organism"]) == {species}
        assert set(adata.obs["class"]) == {"T1", "T2", "T3"}
        assert set(adata.obs["tissue"]) == {"cortex", "liver"}
        assert adata.obs["donor"].nunique() == 4
        assert adata.obs["batch"].nunique() == 2
        assert (adata.obs["type"].astype(str).str[:2] == adata.obs["class"].astype(str)).all()
        assert adata.obs_names.is_unique


def test_gene_names_say_nothing_of_orthology(simulation):
    assert simulation.genes["gene_id"].is_unique
    assert simulation.genes["symbol"].is_unique
    rows = shared_genes(simulation).to_numpy()
    assert abs(np.corrcoef(rows[:, 0], rows[:, 1])[0, 1]) < 0.2


def test_orthologs_are_one_to_one_and_some_genes_have_none(simulation):
    genes = simulation.genes.set_index("gene_id")
    pairs = simulation.orthologs
    assert (genes.loc[pairs["gene_a"], "orthogroup"].values == genes.loc[pairs["gene_b"], "orthogroup"].values).all()
    assert (pairs["species_a"] != pairs["species_b"]).all()
    for _, table in pairs.groupby(["species_a", "species_b"]):
        assert table["gene_a"].is_unique
        assert table["gene_b"].is_unique
    private = genes["orthogroup"].eq("").groupby(genes["species"]).mean()
    np.testing.assert_allclose(private, 0.1)


def test_the_same_config_gives_the_same_cells_and_another_seed_gives_others(simulation):
    again, other = simulate(SMALL), simulate(replace(SMALL, seed=1))
    for species, adata in simulation.cells.items():
        assert (again.cells[species].X != adata.X).nnz == 0
        pd.testing.assert_frame_equal(again.cells[species].obs, adata.obs)
        assert (other.cells[species].X != adata.X).nnz > 0
    pd.testing.assert_frame_equal(again.genes, simulation.genes)


@pytest.mark.parametrize("dispersion", [0.0, 0.5])
def test_counts_have_the_variance_of_a_negative_binomial(dispersion):
    still = {f"{name}_spread": 0.0 for name in ("cell", "donor", "batch", "depth")}
    tree = {"phylogeny": "(one:0,two:0);", "branching": (1, 1), "n_convergent": 0, "markers_per_type": 0}
    config = SimulationConfig(n_cells=6000, n_genes=60, dispersion=dispersion, **tree, **still)
    simulation = simulate(config)
    counts = simulation.cells["one"].X.toarray()
    mean, variance = counts.mean(axis=0), counts.var(axis=0)
    often = mean > 0.5
    assert often.sum() > 20
    expected = config.depth * simulation.profiles["one"].to_numpy()[0]
    np.testing.assert_allclose(mean[often], expected[often], rtol=0.1)
    np.testing.assert_allclose(variance[often], (mean + dispersion * mean**2)[often], rtol=0.15)


def test_markers_mark_their_type_in_every_species(simulation):
    without = simulate(replace(SMALL, marker_effect=0.0, n_cells=5))
    for species, adata in simulation.cells.items():
        genes = simulation.genes[simulation.genes["species"] == species].reset_index(drop=True)
        marked = genes[genes["marker_of"] != ""]
        assert marked["marker_of"].value_counts().to_dict() == dict.fromkeys(simulation.types["type"], 4)
        change = np.log(simulation.profiles[species] / without.profiles[species])
        change = change.sub(change.min(axis=1), axis=0).to_numpy()  # the softmax lowers all genes of a type alike
        planted = genes["marker_of"].to_numpy()[None, :] == simulation.types["type"].to_numpy()[:, None]
        np.testing.assert_allclose(change, np.where(planted, SMALL.marker_effect, 0.0), atol=1e-9)

        expression = pd.DataFrame(log_cpm(adata)).groupby(adata.obs["type"].to_numpy()).mean()
        own = np.array([expression.loc[row.marker_of, place] for place, row in marked.iterrows()])
        others = (expression[marked.index].sum() - own) / (len(expression) - 1)
        assert (own - others).mean() > 1


def test_orthologs_agree_less_the_farther_the_species(simulation):
    distances = simulation.phylogeny.distances()
    rows = shared_genes(simulation)
    plain = simulation.genes.drop_duplicates("orthogroup").set_index("orthogroup")
    rows = rows[~plain.loc[rows.index, "convergent"]]
    profiles = [np.log(simulation.profiles[s].to_numpy()[:, rows[s]]).ravel() for s in simulation.phylogeny.leaves]
    agreement = np.corrcoef(profiles)
    near, far = distances < 0.5, distances > 0.5
    off_diagonal = ~np.eye(4, dtype=bool)
    assert agreement[near & off_diagonal].min() > agreement[far].max()


def test_divergence_stretches_one_and_the_same_drift():
    none, some, more = (simulate(replace(SMALL, divergence=d, n_cells=5)) for d in (0.0, 0.4, 1.2))
    plain = dict.fromkeys(SMALL.species)
    for species in plain:
        start, a, b = (s.loadings[species] for s in (none, some, more))
        np.testing.assert_allclose(3 * (a - start), b - start, atol=1e-12)


def test_convergent_genes_share_a_new_program_in_the_group_only(simulation):
    genes = simulation.genes[simulation.genes["convergent"]]
    programs = genes.pivot_table(index="orthogroup", columns="species", values="program", aggfunc="first")
    inside = list(SMALL.convergent_species)
    outside = [s for s in SMALL.species if s not in inside]
    assert len(programs) == 15
    assert (programs[inside[0]] == programs[inside[1]]).all()
    assert (programs[outside[0]] == programs[outside[1]]).all()
    assert (programs[inside[0]] != programs[outside[0]]).all()

    def likeness(a, b, flagged):
        rows = shared_genes(simulation)
        flags = simulation.genes.drop_duplicates("orthogroup").set_index("orthogroup").loc[rows.index, "convergent"]
        rows = rows[flags.to_numpy() == flagged]
        left, right = simulation.loadings[a][rows[a]], simulation.loadings[b][rows[b]]
        norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        return ((left * right).sum(axis=1) / norms).mean()

    # albus and echo sit in different clades: their convergent genes agree more than with their own sisters'
    assert likeness("simulus_albus", "simulus_echo", True) > likeness("simulus_albus", "simulus_niger", True) + 0.3
    assert likeness("simulus_albus", "simulus_niger", False) > likeness("simulus_albus", "simulus_echo", False)


def test_convergence_can_be_seen_in_the_counts(simulation):
    def coexpression(species, gene_flags):
        """Correlation of the flagged genes with the mean of each program's plain members."""
        genes = simulation.genes[simulation.genes["species"] == species].reset_index(drop=True)
        expression = log_cpm(simulation.cells[species])
        plain = ~genes["convergent"] & ~genes["rewired"]
        means = [expression[:, plain & (genes["program"] == f"program_{p}")].mean(axis=1) for p in range(1, 7)]
        flagged = genes[gene_flags(genes)]
        table = np.corrcoef(expression[:, flagged.index].T, np.stack(means))[: len(flagged), len(flagged) :]
        return (table.argmax(axis=1) + 1 == flagged["program"].str[8:].astype(int)).mean()

    for species in SMALL.species:
        assert coexpression(species, lambda genes: genes["convergent"]) > 0.5


def test_rewired_genes_change_company_between_tissues(simulation):
    species = SMALL.species[1]
    adata = simulation.cells[species]
    genes = simulation.genes[simulation.genes["species"] == species].reset_index(drop=True)
    expression = log_cpm(adata)
    by_tissue = []
    for tissue in SMALL.tissues:
        cells = expression[(adata.obs["tissue"] == tissue).to_numpy()]
        means = [cells[:, genes["program"] == f"program_{p}"].mean(axis=1) for p in range(1, 7)]
        by_tissue.append(np.corrcoef(cells.T, np.stack(means))[: len(genes), len(genes) :])
    moved = np.abs(by_tissue[0] - by_tissue[1]).sum(axis=1)
    expressed = expression.mean(axis=0) > np.median(expression.mean(axis=0))
    rewired = genes["rewired"].to_numpy()
    assert rewired.sum() == 10
    assert moved[rewired & expressed].mean() > 1.5 * moved[~rewired & expressed].mean()


def test_composition_shift_and_missing_types():
    config = replace(SMALL, composition_shift=1.0, missing_types=(("simulus_echo", "T2.1"),), n_cells=3000)
    simulation = simulate(config)
    assert simulation.proportions.loc["simulus_echo", "T2.1"] == 0
    np.testing.assert_allclose(simulation.proportions.sum(axis=1), 1)
    for species, adata in simulation.cells.items():
        seen = adata.obs["type"].value_counts(normalize=True).reindex(simulation.proportions.columns, fill_value=0)
        np.testing.assert_allclose(seen, simulation.proportions.loc[species], atol=0.04)
    assert "T2.1" not in set(simulation.cells["simulus_echo"].obs["type"])
    plain = simulate(replace(SMALL, n_cells=5)).proportions
    assert plain.nunique().eq(1).all()


def test_batches_and_donors_leave_their_mark():
    config = replace(SMALL, batch_spread=0.8, donor_spread=0.0, n_cells=1000)
    adata = simulate(config).cells["simulus_albus"]
    expression = log_cpm(adata)
    apart = [
        np.abs(
            np.diff([expression[adata.obs[c] == v].mean(axis=0) for v in adata.obs[c].cat.categories[:2]], axis=0)
        ).mean()
        for c in ("batch", "donor")
    ]
    assert apart[0] > 3 * apart[1]


def test_writing_gives_the_cells_back(simulation, tmp_path):
    paths = simulation.write(tmp_path / "out")
    assert sorted(p.name for p in paths) == sorted(
        [f"{s}.h5ad" for s in SMALL.species]
        + ["genes.tsv", "orthologs.tsv", "types.tsv", "activities.tsv", "proportions.tsv", "phylogeny.nwk"]
    )
    back = ad.read_h5ad(tmp_path / "out" / "simulus_niger.h5ad")
    original = simulation.cells["simulus_niger"]
    assert (back.X != original.X).nnz == 0
    pd.testing.assert_frame_equal(back.obs, original.obs)
    genes = pd.read_csv(tmp_path / "out" / "genes.tsv", sep="\t", keep_default_na=False)
    pd.testing.assert_frame_equal(genes, simulation.genes)


def test_every_fault_of_a_config_is_reported_at_once():
    with pytest.raises(InputError) as caught:
        SimulationConfig(
            n_cells=0, private_share=2, depth=-1, divergence=-1, missing_types=(("nobody", "T1.1"),),
            convergent_species=("nobody",), n_rewired=5,
        )  # fmt: skip
    for name in (
        "n_cells",
        "private_share",
        "depth",
        "divergence",
        "missing_types",
        "convergent_species",
        "tissues",
    ):
        assert f"- {name}" in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": ("type",)},
        {"branching": (), "levels": ()},
        {"branching": (3, 0)},
        {"n_convergent": 5000},
        {"phylogeny": "((a,b);"},
    ],
)
def test_impossible_configs_are_refused(wrong):
    with pytest.raises(InputError):
        SimulationConfig(**wrong)
