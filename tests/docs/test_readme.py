from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from lexicell.cli.program import VERBS
from lexicell.data.corpus import Dataset
from lexicell.data.corpus_file import load_corpus
from lexicell.model.network import CellNetwork
from lexicell.training.recipe import load_recipe, shipped_recipes

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
MOUSE_GENES = 32_285


def test_the_table_of_recipes_is_true() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) M \| (\d+) x (\d+) \| ([\d,]+) \|", README, re.M)
    assert {row[0] for row in rows} == set(shipped_recipes())
    for name, millions, width, layers, tokens in rows:
        recipe = load_recipe(name)
        with torch.device("meta"):
            total = CellNetwork(recipe.model, MOUSE_GENES).n_parameters()["total"]
        digits = len(millions.partition(".")[2])
        assert round(total / 1e6, digits or None) == float(millions), (name, total)
        encoder = recipe.model.encoder
        shown = int(width), int(layers), int(tokens.replace(",", ""))
        assert shown == (encoder.width, encoder.layers, recipe.sampling.tokens)


def test_the_file_tree_is_there() -> None:
    tree = re.search(r"^```\n(src/lexicell/\n.*?)^```$", README, re.S | re.M)
    assert tree is not None
    for line in tree[1].splitlines()[1:]:
        folder = ROOT / "src/lexicell" if line.startswith("  ") else ROOT
        names = re.split(r" {2,}", line.strip())[0]
        for name in names.split(", "):
            assert (folder / name).exists(), name


def test_every_key_of_a_corpus_is_explained() -> None:
    keys = {"path" if field.name == "source" else field.name for field in fields(Dataset)} - {"adata"}
    explained = {
        key for row in re.findall(r"^\| (`.+?) \|", DOCS["data.md"], re.M) for key in re.findall(r"`(\w+)`", row)
    }
    assert keys <= explained


@pytest.mark.parametrize("page", ["README.md", *sorted(DOCS)])
def test_no_page_names_a_verb_that_is_not_there(page: str) -> None:
    text = README if page == "README.md" else DOCS[page]
    known = {verb.name for verb in VERBS} | {verb.words[0] for verb in VERBS} | {"VERB"}
    code = [*re.findall(r"^```bash\n(.*?)^```", text, re.S | re.M), *re.findall(r"`([^`\n]+)`", text)]
    for first, second in re.findall(r"^lexicell ([a-zA-Z]+)(?: ([a-z]+))?", "\n".join(code), re.M):
        assert first in known, first
        if any(verb.words[0] == first and len(verb.words) == 2 for verb in VERBS) and second:
            assert f"{first} {second}" in known, f"{first} {second}"


@pytest.mark.parametrize("page", ["README.md", *sorted(DOCS)])
def test_every_corpus_that_is_shown_can_be_read(page: str, tmp_path: Path) -> None:
    text = README if page == "README.md" else DOCS[page]
    for block in re.findall(r"^```yaml\n(.*?)^```", text, re.S | re.M):
        if "datasets:" not in block:  # a recipe, or groups of species
            continue
        path = tmp_path / "corpus.yaml"
        path.write_text(block, encoding="utf-8")
        assert load_corpus(path).datasets
