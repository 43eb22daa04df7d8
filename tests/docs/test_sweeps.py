"""The sweeps that docs/sweeps.md shows in the shell and with Optuna, made small; Optuna is in the dev extra."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lexicell
from lexicell.cli import main
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


def block_after(mark: str, kind: str) -> str:
    (block,) = re.findall(rf"<!-- {mark} -->\n```{kind}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    return str(block)


@pytest.mark.skipif(shutil.which("bash") is None, reason="a loop in bash")
def test_the_loop_in_the_shell(store: Store, tmp_path: Path) -> None:
    """The shell runs the loop with a command that only notes what it is asked for; one of the runs is then made."""
    noted = tmp_path / "bin" / "lexicell"
    noted.parent.mkdir()
    noted.write_text('#!/bin/sh\necho "$@" >> calls; mkdir -p "$6"; touch "$6/recipe.yaml"\n')
    noted.chmod(0o755)
    environment = os.environ | {"PATH": f"{noted.parent}{os.pathsep}{os.environ['PATH']}"}
    passes = []
    for _ in range(2):
        subprocess.run(["bash", "-e", "-c", block_after("loop", "bash")], cwd=tmp_path, env=environment, check=True)
        passes.append((tmp_path / "calls").read_text().splitlines())
        (tmp_path / "calls").unlink()
    first, second = passes
    assert len(set(first)) == len(first) == 9
    assert not any("--resume" in call for call in first)
    assert [call.replace(" --resume", "") for call in second] == first
    assert all("--resume" in call for call in second)

    words = first[0].replace("--store store", f"--store {store.path}").replace("--out ", f"--out {tmp_path}/").split()
    words[words.index("--trainer.max_steps") + 1] = "1"
    shutil.rmtree(tmp_path / "runs")
    small = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    assert main(words + small) == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["lr3e-4-seed0"]


def test_optuna_drives_recipes(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna = pytest.importorskip("optuna")
    block = block_after("optuna", "python")
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
