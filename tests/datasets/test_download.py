import errno
import hashlib
import threading
import time

import h5py
import numpy as np
import pytest

from lexicell.datasets import download as module
from lexicell.datasets.download import RemoteFile, download, fetch_bytes, size_of
from lexicell.errors import InputError

CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "got"
    folder.mkdir()
    return folder


@pytest.fixture
def remote(server):
    (server.folder / "sub").mkdir()
    (server.folder / "sub" / "a.bin").write_bytes(CONTENT)
    return RemoteFile("sub/a.bin", f"{server.url}/sub/a.bin", len(CONTENT), hashlib.md5(CONTENT).hexdigest())


def fetch(files, folder, **options):
    facts = {}
    download(files, folder, facts.__setitem__, **options)
    return facts


def ranges(server):
    return [asked for method, _, asked in server.asked if method == "GET"]


def test_a_file_comes_whole_with_its_facts(remote, folder):
    facts = fetch([remote], folder)
    target = folder / "sub" / "a.bin"
    assert target.read_bytes() == CONTENT
    assert facts["sub/a.bin"] == {
        "size": len(CONTENT),
        "mtime_ns": target.stat().st_mtime_ns,
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "md5": remote.md5,
        "url": remote.url,
    }
    assert [path.name for path in target.parent.iterdir()] == ["a.bin"]


def test_a_connection_that_is_cut_off_goes_on_where_it_was(remote, folder, server):
    server.cuts["sub/a.bin"] = [100_000, 50_000, 1]
    fetch([remote], folder)
    assert (folder / "sub" / "a.bin").read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]


def test_what_came_is_kept_for_the_next_run(remote, folder, server):
    begun(remote, folder, server, 70_000)
    assert sorted(path.name for path in (folder / "sub").iterdir()) == ["a.bin.part", "a.bin.part.json"]
    fetch([remote], folder)
    assert (folder / "sub" / "a.bin").read_bytes() == CONTENT
    assert ranges(server) == ["bytes=70000-"]


def begun(remote, folder, server, n):
    """Begin a download that ends after `n` bytes."""
    server.cuts["sub/a.bin"] = [n]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TRIES", 1)
        with pytest.raises(InputError, match=rf"cut off after {n:,} of .* bytes; {n:,} bytes are kept in .*: run the"):
            fetch([remote], folder)
    server.asked.clear()


def test_a_file_that_changed_on_the_server_is_not_joined_to_the_old_one(remote, folder, server):
    free = RemoteFile(remote.name, remote.url)
    begun(free, folder, server, 70_000)
    (server.folder / "sub" / "a.bin").write_bytes(CONTENT[::-1])
    fetch([free], folder)
    assert (folder / "sub" / "a.bin").read_bytes() == CONTENT[::-1]
    assert ranges(server) == ["bytes=70000-"]  # the server answered with all of it


def test_a_part_of_another_version_is_dropped(remote, folder, server):
    begun(remote, folder, server, 70_000)
    (server.folder / "sub" / "a.bin").write_bytes(CONTENT[::-1])
    changed = RemoteFile(remote.name, remote.url, remote.size, hashlib.md5(CONTENT[::-1]).hexdigest())
    fetch([changed], folder)
    assert ranges(server) == [None]
    assert (folder / "sub" / "a.bin").read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_begins_anew(remote, folder, server):
    begun(remote, folder, server, 70_000)
    server.ranges = False
    fetch([remote], folder)
    assert (folder / "sub" / "a.bin").read_bytes() == CONTENT


def test_a_file_that_shrank_begins_anew(remote, folder, server):
    free = RemoteFile(remote.name, remote.url)
    begun(free, folder, server, 70_000)
    mark = folder / "sub" / "a.bin.part.json"
    mark.write_text(mark.read_text().replace('"etag": "', '"etag": null, "old": "'))
    (server.folder / "sub" / "a.bin").write_bytes(CONTENT[:60_000])
    fetch([free], folder)
    assert (folder / "sub" / "a.bin").read_bytes() == CONTENT[:60_000]


def test_a_whole_part_is_only_verified(remote, folder, server):
    begun(remote, folder, server, 70_000)
    (folder / "sub" / "a.bin.part").write_bytes(CONTENT)
    fetch([remote], folder)
    assert ranges(server) == []


@pytest.mark.parametrize("kind", ["checksum", "size"])
def test_a_wrong_file_is_refused_and_not_kept(remote, folder, kind):
    wrong = {"checksum": (remote.size, "0" * 32), "size": (remote.size - 1, remote.md5)}[kind]
    message = {"checksum": f"MD5 {remote.md5}; expected 0000", "size": "300,000 bytes on the server; expected 299,999"}
    with pytest.raises(InputError, match=message[kind]):
        fetch([RemoteFile(remote.name, remote.url, *wrong)], folder)
    assert list((folder / "sub").iterdir()) == []


def test_hdf5_without_a_checksum_must_open(folder, server):
    with h5py.File(server.folder / "whole.hdf5", "w") as file:
        file["x"] = np.zeros(1000)
    whole = (server.folder / "whole.hdf5").read_bytes()
    (server.folder / "cut.hdf5").write_bytes(whole[:-100])
    fetch([RemoteFile("whole.hdf5", f"{server.url}/whole.hdf5")], folder)
    with pytest.raises(InputError, match="does not open as HDF5"):
        fetch([RemoteFile("cut.hdf5", f"{server.url}/cut.hdf5")], folder)
    assert [path.name for path in folder.iterdir()] == ["whole.hdf5"]


def test_passing_faults_of_the_server_are_waited_out(remote, folder, server):
    server.answers["sub/a.bin"] = [503, 429, 500]
    fetch([remote], folder)
    assert (folder / "sub" / "a.bin").read_bytes() == CONTENT
    server.answers["sub/a.bin"] = [503] * 5
    with pytest.raises(InputError, match=r"the server says 503 .*; 0 bytes are kept"):
        fetch([remote], folder)


def test_several_at_once_and_all_faults_together(remote, folder, server):
    names = [f"f{i}.bin" for i in range(8)]
    for i, name in enumerate(names):
        (server.folder / name).write_bytes(CONTENT[: 1000 * (i + 1)])
    files = [RemoteFile(name, f"{server.url}/{name}") for name in [*names, "gone1.bin", "gone2.bin"]]
    facts = {}
    with pytest.raises(InputError, match=r"(?s)gone\d\.bin: the server says 404.*gone\d\.bin: the server says 404"):
        download(files, folder, facts.__setitem__, threads=3)
    assert sorted(facts) == names
    assert [(folder / name).stat().st_size for name in names] == [1000 * (i + 1) for i in range(8)]


def test_a_full_disk_ends_it_with_what_came(remote, folder, monkeypatch):
    def full(self, response, part):
        part.write(response.read(1000))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module._Fetch, "_copy", full)
    with pytest.raises(InputError, match="the disk is full; what came is kept"):
        fetch([remote], folder)
    assert (folder / "sub" / "a.bin.part").stat().st_size == 1000
    monkeypatch.undo()
    fetch([remote], folder)
    assert (folder / "sub" / "a.bin").read_bytes() == CONTENT


def test_an_interrupt_stops_the_threads(remote, folder, server):
    def interrupt(name, facts):
        raise KeyboardInterrupt

    (server.folder / "first.bin").write_bytes(b"x")
    files = [RemoteFile("first.bin", f"{server.url}/first.bin"), remote]
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        download(files, folder, interrupt, threads=1)
    for _ in range(100):  # the test's own server may still be ending its threads
        if threading.active_count() <= before + 1:
            return
        time.sleep(0.1)
    raise AssertionError(f"{threading.active_count()} threads are left, {before} were there")


def test_no_server_at_all(folder, server):
    url = server.url
    dead = f"{url.rpartition(':')[0]}:1/a.bin"
    with pytest.raises(InputError, match="cannot be reached"):
        fetch([RemoteFile("a.bin", dead)], folder)
    with pytest.raises(InputError, match=r"cannot be reached.*check the network"):
        fetch_bytes(dead)
    assert size_of(dead) is None


def test_small_files(server, remote):
    assert fetch_bytes(remote.url) == CONTENT
    with pytest.raises(InputError, match="larger than 1,000 bytes"):
        fetch_bytes(remote.url, limit=1000)
    with pytest.raises(InputError, match="404"):
        fetch_bytes(f"{server.url}/none")
    assert size_of(remote.url) == len(CONTENT)
    server.answers["sub/a.bin"] = [405]
    assert size_of(remote.url) is None
    with pytest.raises(InputError, match="404"):
        size_of(f"{server.url}/none")
