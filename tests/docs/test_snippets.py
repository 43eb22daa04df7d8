"""What the docs tell users to type is typed here, so that the docs stay true.

A fenced block after the comment ``<!-- tested -->`` is run (bash and python), one after ``<!-- file: NAME -->`` is
written to that file. The blocks of a page are run in order, in a folder of their own. Pretraining is cut to a few
steps, and simulated data are made smaller; all else is as it stands.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import lexicell
from lexicell.cli import main
from lexicell.datasets import simulate as simulation
from lexicell.datasets.simulate import SimulationConfig

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^<!-- (tested|file: (?P<file>\S+)) -->\n+```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.S | re.M)
MARK = re.compile(r"^<!-- (tested|file:)", re.M)

SMALL_DATA = SimulationConfig(n_cells=160, n_genes=300, markers_per_type=4, n_convergent=4)
SMALL_RUN = {
    "model.encoder.width": 16,
    "sampling.tokens": 32,
    "sampling.queries": 16,
    "data.batch_size": 8,
    "trainer.max_steps": 6,
    "trainer.val_every": 3,
}
SMALL_EXTENSION = {
    "phase1.steps": 4,
    "phase1.val_every": 2,
    "phase2.steps": 2,
    "phase2.val_every": 2,
    "measure.cells": 40,
    "measure.reference": 40,
}
SMALL = {"pretrain": SMALL_RUN, "extend": SMALL_EXTENSION}


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    file: str | None


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = [Block(m["kind"], m["text"], m["file"]) for m in BLOCK.finditer(text)]
    assert len(blocks) == len(MARK.findall(text)), f"{page}: a mark without a fenced block after it"
    return blocks


def commands_of(text: str) -> list[list[str]]:
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def type_in(words: list[str]) -> None:
    if words[0] == "mkdir":
        for folder in words[1:]:
            Path(folder).mkdir()
        return
    assert words[0] == "lexicell", f"this test does not know how to run {words[0]!r}"
    arguments = words[1:]
    if arguments[0] in SMALL:
        given = {word.partition("=")[0] for word in arguments}
        for name, value in SMALL[arguments[0]].items():
            if f"--{name}" in given:  # what the page overrides is read, and then made small
                arguments[arguments.index(f"--{name}") + 1] = str(value)
            else:
                arguments += [f"--{name}", str(value)]
    assert main(arguments) == 0, shlex.join(words)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)])
def test_what_a_page_says_works(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEXICELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "umap", None)  # pictures by PCA: importing UMAP takes longer than all the rest
    simulate = lexicell.simulate  # the package keeps a name once it was used, so it must not be the small one
    monkeypatch.setattr(simulation, "simulate", lambda config=SMALL_DATA: simulate(config))
    pretrain = lexicell.pretrain

    def small_pretrain(*arguments, overrides=None, **options):
        return pretrain(*arguments, overrides={**(overrides or {}), **SMALL_RUN}, **options)

    monkeypatch.setattr(lexicell, "pretrain", small_pretrain)
    names: dict[str, object] = {}
    for block in blocks_of(page):
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.kind == "bash":
            for words in commands_of(block.text):
                type_in(words)
        else:
            exec(compile(block.text, page, "exec"), names)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_repository_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target
