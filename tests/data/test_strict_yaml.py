from __future__ import annotations

from pathlib import Path

from lexicell.data.strict_yaml import read_yaml


def test_on_and_no_are_words(tmp_path: Path) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_text("on: barcode\nspecies: no\nyes: [off, y]\ntruth: [true, False]\n")
    assert read_yaml(path) == {"on": "barcode", "species": "no", "yes": ["off", "y"], "truth": [True, False]}
