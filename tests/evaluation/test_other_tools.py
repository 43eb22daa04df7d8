import importlib.util

import numpy as np
import pytest
from scipy import sparse

from lexicell.errors import InputError
from lexicell.evaluation import other_tools
from lexicell.evaluation.other_tools import celltypist, scanvi


@pytest.fixture
def planted() -> tuple[sparse.csr_matrix, np.ndarray]:
    rng = np.random.default_rng(0)
    kind = rng.integers(2, size=200)
    rates = np.full((2, 40), 1.0)
    rates[0, :6], rates[1, 6:12] = 8, 8
    return sparse.csr_matrix(rng.poisson(rates[kind])), np.array(["x", "y"], dtype=object)[kind]


@pytest.mark.parametrize(("tool", "package"), [(celltypist, "celltypist"), (scanvi, "scvi-tools")])
def test_an_absent_tool_says_what_to_install(planted, monkeypatch, tool, package):
    counts, labels = planted

    def absent(name: str):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(other_tools, "import_module", absent)
    with pytest.raises(InputError, match=rf"{package} is not installed .*pip install 'lexicell\[benchmark\]'"):
        tool(counts[:100], labels[:100], counts[100:])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("tool", "module"), [(celltypist, "celltypist"), (scanvi, "scvi")])
def test_a_tool_tells_planted_types_apart(planted, tool, module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    counts, labels = planted
    found = tool(counts[:120], labels[:120], counts[120:])
    assert (found.labels == labels[120:]).mean() > 0.9
    assert found.probs.shape == (80, 2)
