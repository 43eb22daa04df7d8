"""The sweep that docs/sweeps.md shows with Optuna, made small, where Optuna is installed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import lexicell
from lexicell.data.store import Store

PAGE = Path(__file__).parents[2] / "docs" / "sweeps.md"
SMALL = {
    "model.encoder.width": 16,
    "model.encoder.layers": 1,
    "sampling.tokens": 32,
    "sampling.queries": 16,
    "data.batch_size": 8,
    "trainer.val_every": 1,
}


def test_optuna_drives_recipes(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna = pytest.importorskip("optuna")
    (block,) = re.findall(r"<!-- optuna -->\n```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    small = block.replace("(100, 200, 400)", "(1, 2)").replace("n_trials=20", "n_trials=2")
    assert small.count("(1, 2)") == small.count("n_trials=2") == 1
    pretrain = lexicell.pretrain
    monkeypatch.setattr(
        lexicell,
        "pretrain",
        lambda recipe, path, out, *, overrides, **rest: pretrain(
            recipe, store, out, overrides=SMALL | overrides, **rest
        ),
    )
    monkeypatch.chdir(tmp_path)
    optuna.logging.disable_default_handler()
    names: dict[str, object] = {}
    exec(compile(small, "sweeps.md", "exec"), names)
    study = names["study"]
    assert len(study.trials) == 2  # type: ignore[attr-defined]
    assert {path.name for path in (tmp_path / "optuna").iterdir()} == {"0", "1"}
    assert "optuna" in sys.modules
