import zlib

import h5py
import numpy as np
import pytest

from lexicell.data.readers.gzip_array import GzipArray, quicker

VALUES = np.random.default_rng(0).integers(0, 30_000, 1000)


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "columns.h5", "w") as file:
        yield file


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("dtype", ["<i4", ">i4", "<f4", "<i8", "<u2", "<f8"])
@pytest.mark.parametrize("chunk", [1, 64, 1000])
def test_every_slice_is_what_h5py_reads(file, dtype, shuffle, chunk):
    kept = file.create_dataset("x", data=VALUES.astype(dtype), chunks=(chunk,), compression="gzip", shuffle=shuffle)
    found = quicker(kept)
    assert isinstance(found, GzipArray)
    assert (found.shape, found.dtype) == (kept.shape, kept.dtype)
    for start, stop in [(0, 1000), (0, 0), (5, 6), (63, 65), (64, 128), (990, 1500), (700, 30), (-10, None)]:
        np.testing.assert_array_equal(found[start:stop], kept[start:stop])
    assert found[:3].dtype == kept[:3].dtype


def test_chunks_that_skip_a_filter(file):
    kept = file.create_dataset("x", data=VALUES[:200], chunks=(50,), compression="gzip", shuffle=True)
    other = np.arange(50)
    shuffled = np.frombuffer(other.tobytes(), np.uint8).reshape(50, 8).T.tobytes()
    kept.id.write_direct_chunk((0,), other.tobytes(), filter_mask=0b11)
    kept.id.write_direct_chunk((50,), shuffled, filter_mask=0b10)
    kept.id.write_direct_chunk((100,), zlib.compress(other.tobytes()), filter_mask=0b01)
    np.testing.assert_array_equal(quicker(kept)[:], kept[:])
    np.testing.assert_array_equal(kept[:150], np.tile(other, 3))


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (50,)}, {"compression": "lzf"}, {"compression": "gzip", "fletcher32": True}],
    ids=["plain", "chunks", "lzf", "sums"],
)
def test_what_is_packed_otherwise_is_left_to_h5py(file, options):
    kept = file.create_dataset("x", data=VALUES, **options)
    assert quicker(kept) is kept


def test_tables_texts_arrays_and_holes_are_left_to_h5py(file):
    packed = {"compression": "gzip", "chunks": True}
    table = file.create_dataset("table", data=VALUES.reshape(10, 100), **packed)
    texts = file.create_dataset("texts", data=np.array([b"a", b"b"]), **packed)
    holes = file.create_dataset("holes", (1000,), "i4", chunks=(10,), compression="gzip")
    holes[100:200] = 1
    for array in (table, texts, holes, VALUES):
        assert quicker(array) is array


@pytest.mark.parametrize(
    ("chunk", "fault"),
    [
        (b"not packed at all", "chunk 1"),
        (zlib.compress(VALUES[:50].tobytes())[:-6], "chunk 1"),
        (zlib.compress(b"short"), "holds 5 bytes, expected 400"),
    ],
)
def test_a_damaged_chunk_is_refused_as_h5py_refuses_it(file, chunk, fault):
    kept = file.create_dataset("x", data=VALUES, chunks=(50,), compression="gzip")
    kept.id.write_direct_chunk((50,), chunk)
    found = quicker(kept)
    np.testing.assert_array_equal(found[:50], VALUES[:50])
    with pytest.raises(OSError, match=fault):
        found[:100]
    with pytest.raises(ValueError, match="step"):
        found[::2]
