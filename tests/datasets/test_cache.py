import multiprocessing
import time

import pytest

from lexicell.datasets.cache import Shelf, cache_folder, sha256_of, verify
from lexicell.errors import InputError


def test_the_cache_folder_can_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("LEXICELL_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("LEXICELL_CACHE")
    assert cache_folder().name == "lexicell"


def test_verify_names_what_it_found_and_what_it_expected(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    verify(path, 3, sha256_of(path), "file")
    with pytest.raises(InputError, match="3 bytes with SHA-256 not computed; expected 4"):
        verify(path, 4, sha256_of(path), "file")
    with pytest.raises(InputError, match=sha256_of(path)):
        verify(path, 3, "0" * 64, "file")


def test_a_note_that_is_no_note_counts_as_none(tmp_path):
    shelf = Shelf(tmp_path, "cells")
    for text in ("", "[]", "{}", '{"files": 3}', '{"files": {"a": {}}}'):
        (tmp_path / "cells.source.json").write_text(text)
        assert shelf.noted() == {}
        assert not shelf.intact("a")


def _hold(folder, held, release):
    with Shelf(folder, "cells").locked(print):
        held.set()
        release.wait(20)


def test_a_second_process_waits_and_says_so(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, held, release))
    process.start()
    assert held.wait(20)
    said = []

    def announce(line):
        said.append(line)
        release.set()

    started = time.monotonic()
    with Shelf(tmp_path, "cells").locked(announce):
        assert time.monotonic() - started >= 0.9
    process.join(20)
    assert process.exitcode == 0
    assert "another process is fetching cells" in said[0]
