import numpy as np
import pytest
from anndata import AnnData

from lexicell.data.corpus import Field, LabelColumn
from lexicell.data.corpus_file import load_corpus
from lexicell.errors import InputError

FULL = """
defaults:
  species: mouse
  tissue: {value: cortex}
datasets:
  - path: sub/a.h5ad
    counts: layers/counts
    gene_ids: gene_id
    symbols: symbol
    donor: donor_id
    assay: {obs: chemistry}
    labels: [class, subclass]
    unlabelled: ["(none)"]
    genes: genes.tsv
    unmatched: keep
    min_matched: 0.2
    keep: [sex]
  - path: b.h5ad
    species: {obs: organism}
    tissue: region
    labels: {class: coarse, type: fine}
"""


def load(tmp_path, text):
    path = tmp_path / "corpus.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_corpus(path)


def test_every_key_arrives(tmp_path):
    corpus = load(tmp_path, FULL)
    first, second = corpus.datasets
    assert first.source == tmp_path / "sub" / "a.h5ad"
    assert (first.name, first.counts, first.gene_ids, first.symbols) == ("a", "layers/counts", "gene_id", "symbol")
    assert first.species == Field(value="mus_musculus")
    assert first.tissue == Field(value="cortex")
    assert (first.donor, first.assay) == (Field(column="donor_id"), Field(column="chemistry"))
    assert first.labels == (LabelColumn("class", "class"), LabelColumn("subclass", "subclass"))
    assert (first.unlabelled, first.unmatched, first.min_matched, first.keep) == (("(none)",), "keep", 0.2, ("sex",))
    assert first.genes == tmp_path / "genes.tsv"
    assert second.species == Field(column="organism")
    assert second.tissue == Field(column="region")
    assert second.labels == (LabelColumn("class", "coarse"), LabelColumn("type", "fine"))
    assert (second.counts, second.gene_ids, second.genes, second.donor) == (None, "auto", None, None)
    assert corpus.label_levels == ("class", "subclass", "type")


def test_a_mapping_may_hold_anndata():
    adata = AnnData(np.ones((2, 2)))
    corpus = load_corpus({"datasets": [{"adata": adata, "species": "mouse"}, {"adata": adata, "species": "human"}]})
    assert corpus.datasets[0].source is adata
    assert [dataset.name for dataset in corpus.datasets] == ["adata", "adata-2"]
    assert load_corpus(corpus) is corpus


BAD = {
    "anchors that grow": ("a: &a [x, x]\nb: &b [*a, *a]\ndatasets: [*b]", "aliases"),
    "a tag": ("datasets: !!python/object/apply:os.system ['true']", "not valid YAML"),
    "a key twice": ("datasets: []\ndatasets: []", "stands twice"),
    "broken": ("datasets: [", "not valid YAML"),
    "not UTF-8": (b"datasets: \xff\xfe", "not a text file"),
    "a control character": ("datasets: \x00", "not valid YAML"),
    "empty": ("", "expected keys and values"),
    "a list": ("- a", "expected keys and values"),
    "too deep": ("datasets: " + "[" * 3000, "not valid YAML|too deep"),
    "unknown key above": ("dataset: []", "did you mean 'datasets'"),
    "no data sets": ("datasets: []", "at least one input"),
    "data sets as text": ("datasets: a.h5ad", "expected a list"),
    "an entry as text": ("datasets: [a.h5ad]", "entry 1: expected keys"),
    "unknown key": ("datasets: [{path: a, species: mouse, donnor: x}]", "'donnor'; did you mean 'donor'"),
    "adata in YAML": ("datasets: [{adata: a, species: mouse}]", "expected an AnnData"),
    "no path": ("datasets: [{species: mouse}]", "path: is missing"),
    "no species": ("datasets: [{path: a}]", "species: is missing"),
    "species of no letter": ("datasets: [{path: a, species: '--'}]", "species: expected a name"),
    "species as truth": ("datasets: [{path: a, species: true}]", "species: expected"),
    "path as number": ("datasets: [{path: 3, species: mouse}]", "path: expected text, found 3"),
    "donor as number": ("datasets: [{path: a, species: mouse, donor: 3}]", "donor: expected an obs column"),
    "donor of two": ("datasets: [{path: a, species: mouse, donor: {obs: a, value: b}}]", "donor: expected"),
    "labels as number": ("datasets: [{path: a, species: mouse, labels: 3}]", "labels: expected"),
    "labels of numbers": ("datasets: [{path: a, species: mouse, labels: [1]}]", "labels: expected"),
    "labels twice": ("datasets: [{path: a, species: mouse, labels: [a, a]}]", "named twice"),
    "labels that are taken": ("datasets: [{path: a, species: mouse, labels: [tissue]}]", "columns of its own"),
    "kept that are taken": ("datasets: [{path: a, species: mouse, keep: [depth]}]", "columns of its own"),
    "counts elsewhere": ("datasets: [{path: a, species: mouse, counts: Y}]", "counts: expected X, raw or layers/NAME"),
    "share above one": ("datasets: [{path: a, species: mouse, min_matched: 2}]", "a number from 0 to 1"),
    "another choice": ("datasets: [{path: a, species: mouse, unmatched: burn}]", "one of drop, keep"),
    "the same file twice": (
        "datasets: [{path: a, species: mouse}, {path: ./a, species: mouse}]",
        "named more than once",
    ),
    "levels in two orders": (
        "datasets: [{path: a, species: mouse, labels: [x, y]}, {path: b, species: mouse, labels: [y, x]}]",
        "contradicting orders",
    ),
    "defaults as text": ("defaults: x\ndatasets: [{path: a, species: mouse}]", "defaults: expected keys"),
    "a path for all": ("defaults: {path: x}\ndatasets: [{species: mouse}]", "defaults: unknown key 'path'"),
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_bad_corpora_are_refused(tmp_path, kind):
    text, message = BAD[kind]
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path, text)
    assert "corpus.yaml" in str(caught.value)


def test_all_faults_are_told_at_once(tmp_path):
    with pytest.raises(InputError) as caught:
        load(tmp_path, "datasets: [{donnor: 3, labels: 4}, {path: 5}]")
    text = str(caught.value)
    for part in ("donnor", "labels", "entry 1: path: is missing", "entry 2: species: is missing", "path: expected"):
        assert part in text, part


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        load_corpus(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        load_corpus(tmp_path)
    big = tmp_path / "big.yaml"
    with big.open("wb") as handle:
        handle.truncate(20_000_000)
    with pytest.raises(InputError, match="too large"):
        load_corpus(big)
