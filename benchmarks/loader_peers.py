"""Ways of reading shuffled batches of cells, one class each: what `loader.py` compares, each in a process of its own.

Every one yields batches as (indptr, genes, counts) in arrays or tensors, in random or block-shuffled order, in the
way that its own documentation recommends for speed.

Usage: python benchmarks/loader_peers.py convert|read NAME H5AD FOLDER [--seconds 4] [--batch 256] [--seed 0]
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np

from lexicell.allocator import keep_freed_memory

BLOCK = 16  # cells that the block-shuffling ones read together, as lexicell does


class Lexicell:
    """lexicell, rows only: the rows of each batch copied out of the store's memory maps."""

    name = "lexicell, rows only"

    def convert(self, h5ad: Path, folder: Path) -> None:
        import lexicell

        dataset = {"path": str(h5ad), "species": "mouse", "donor": "donor", "labels": ["type"]}
        lexicell.prepare({"datasets": [dataset]}, folder / "store", progress=False)

    def batches(self, h5ad: Path, folder: Path, batch: int, seed: int) -> Iterator[int]:
        from lexicell.data.cells import CellCollection
        from lexicell.data.order import CellOrder, OrderConfig
        from lexicell.data.store import Store

        store = Store.open(folder / "store")
        collection = CellCollection([store], store.lexicon)
        order = CellOrder(collection.panel, OrderConfig(), seed)
        for start in itertools.count(0, batch):
            rows = collection.rows(order.take(start, start + batch).cells)
            yield len(rows.begin)


class Copying(Lexicell):
    """No reader but a limit: as many of the store's bytes copied, from one random place a batch into used memory."""

    name = "copying alone (limit)"

    def batches(self, h5ad: Path, folder: Path, batch: int, seed: int) -> Iterator[int]:
        from lexicell.data.store import Store

        store, rng = Store.open(folder / "store"), np.random.default_rng(seed)
        arrays = (store.genes, np.load(folder / "store" / "counts.npy", mmap_mode="r").view(np.ndarray))
        out = [np.empty(2 * batch * store.nnz // store.n_cells, array.dtype) for array in arrays]
        while True:
            cell = int(rng.integers(store.n_cells - batch))
            begin, end = store.indptr[[cell, cell + batch]].tolist()
            for array, target in zip(arrays, out, strict=True):
                target[: end - begin] = array[begin:end]
            yield batch


class LexicellSampled(Lexicell):
    """lexicell as training reads it: one view of 1,024 genes and 128 queries a cell."""

    name = "lexicell, 1,024 genes sampled"

    def batches(self, h5ad: Path, folder: Path, batch: int, seed: int) -> Iterator[int]:
        from lexicell.data.cells import CellCollection
        from lexicell.data.gene_sampler import GeneSampler, SamplingConfig, fit_shape
        from lexicell.data.loader import CellStream
        from lexicell.data.order import CellOrder, OrderConfig
        from lexicell.data.store import Store

        store = Store.open(folder / "store")
        collection = CellCollection([store], store.lexicon)
        shape = fit_shape(SamplingConfig(tokens=1024, views=1, queries=128), store.n_genes)
        sampler = GeneSampler(shape, collection.panels, store.n_genes, seed)
        order = CellOrder(collection.panel, OrderConfig(), seed)
        for made in CellStream(collection, np.arange(store.n_cells), sampler, order, batch_size=batch, seed=seed):
            yield made.n_cells


class BackedAnnData:
    """anndata, backed: the rows of each batch by their sorted numbers, drawn at random."""

    name = "anndata, backed"

    def batches(self, h5ad: Path, folder: Path, batch: int, seed: int) -> Iterator[int]:
        import anndata

        adata = anndata.read_h5ad(h5ad, backed="r")
        rng = np.random.default_rng(seed)
        while True:
            order = rng.permutation(adata.n_obs)
            for start in range(0, adata.n_obs - batch, batch):
                yield adata.X[np.sort(order[start : start + batch])].shape[0]


class ScDataset:
    """scDataset over a backed h5ad: blocks of 16 cells, 16 batches fetched at once, as is its default."""

    name = "scDataset"
    ahead = 16

    def batches(self, h5ad: Path, folder: Path, batch: int, seed: int) -> Iterator[int]:
        import anndata
        from scdataset import BlockShuffling, scDataset

        counts = anndata.read_h5ad(h5ad, backed="r").X
        strategy = BlockShuffling(block_size=BLOCK)
        dataset = scDataset(
            _Rows(counts), strategy, batch_size=batch, fetch_factor=self.ahead, fetch_callback=_fetch, seed=seed
        )
        while True:
            for rows in dataset:
                yield rows.shape[0]


class _Rows:
    """A backed matrix with the length that scDataset asks for."""

    def __init__(self, matrix) -> None:
        self.matrix = matrix

    def __len__(self) -> int:
        return self.matrix.shape[0]


def _fetch(rows: _Rows, indices):
    return rows.matrix[np.asarray(indices)]


class Scdl:
    """bionemo-scdl: torch's DataLoader, shuffled, with scdl's own collating of sparse rows."""

    name = "bionemo-scdl"

    def convert(self, h5ad: Path, folder: Path) -> None:
        from bionemo.scdl.io.single_cell_memmap_dataset import SingleCellMemMapDataset

        # Cells are taken in pieces, which is what its converter does with files too large for memory.
        SingleCellMemMapDataset(
            str(folder / "scdl"), str(h5ad), paginated_load_cutoff=500, load_block_row_size=20_000, use_X_not_raw=True
        )

    def batches(self, h5ad: Path, folder: Path, batch: int, seed: int) -> Iterator[int]:
        import torch
        from bionemo.scdl.io.single_cell_memmap_dataset import SingleCellMemMapDataset
        from bionemo.scdl.util.torch_dataloader_utils import collate_sparse_matrix_batch

        dataset = SingleCellMemMapDataset(str(folder / "scdl"))
        generator = torch.Generator().manual_seed(seed)
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=batch, shuffle=True, collate_fn=collate_sparse_matrix_batch, generator=generator
        )
        while True:
            for rows in loader:
                yield rows.shape[0]


class ShardedZarr:
    """Sharded zarr as annbatch reads it: runs of 512 cells drawn at random, 32 of them shuffled in a pool."""

    name = "sharded zarr, annbatch's way"
    run, pool = 512, 32
    ahead = 64  # batches in a pool

    def convert(self, h5ad: Path, folder: Path) -> None:
        import zarr

        chunk = 32_768
        group = zarr.open_group(str(folder / "sharded.zarr"), mode="w")
        with h5py.File(h5ad) as file:
            options = {"chunks": (chunk,), "compressors": zarr.codecs.BloscCodec(cname="lz4", clevel=3)}
            for name in ("data", "indices"):
                source = file["X"][name]
                shard = min(1 << 24, -(-len(source) // chunk) * chunk)
                array = group.create_array(name, shape=source.shape, dtype=source.dtype, shards=(shard,), **options)
                for start in range(0, len(source), shard):
                    array[start : start + shard] = source[start : start + shard]
            group.create_array("indptr", data=file["X"]["indptr"][:])

    def batches(self, h5ad: Path, folder: Path, batch: int, seed: int) -> Iterator[int]:
        import scipy.sparse as sp
        import zarr

        group = zarr.open_group(str(folder / "sharded.zarr"), mode="r")
        indptr, arrays = group["indptr"][:], (group["data"], group["indices"])
        n_cells, rng = len(indptr) - 1, np.random.default_rng(seed)
        n_genes = h5py.File(h5ad)["X"].attrs["shape"][1]

        def read(run: int) -> sp.csr_matrix:
            edges = indptr[run * self.run : (run + 1) * self.run + 1]
            data, indices = (array[edges[0] : edges[-1]] for array in arrays)
            return sp.csr_matrix((data, indices, edges - edges[0]), shape=(len(edges) - 1, n_genes))

        with ThreadPoolExecutor(4) as threads:
            while True:
                runs = rng.permutation(n_cells // self.run)[: self.pool]
                pool = sp.vstack(list(threads.map(read, runs)), format="csr")
                order = rng.permutation(pool.shape[0])
                for first in range(0, len(order) - batch + 1, batch):
                    yield pool[order[first : first + batch]].shape[0]


class Annbatch:
    """annbatch with the settings of its README: runs of 32 cells, 256 of them fetched at once; pre-shuffled by it."""

    name = "annbatch"
    run, pool = 32, 256
    ahead = 32  # batches of 256 in a pool

    def _collection(self, folder: Path):
        import zarr
        from annbatch import DatasetCollection

        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
        return DatasetCollection(str(folder / "annbatch.zarr"))

    def convert(self, h5ad: Path, folder: Path) -> None:
        self._collection(folder).add_adatas([str(h5ad)])

    def batches(self, h5ad: Path, folder: Path, batch: int, seed: int) -> Iterator[int]:
        import anndata
        from annbatch import Loader

        loader = Loader(
            batch_size=batch, chunk_size=self.run, preload_nchunks=self.pool, shuffle=True,
            rng=np.random.default_rng(seed),
        ).use_collection(
            self._collection(folder),
            load_adata=lambda group: anndata.AnnData(X=anndata.io.sparse_dataset(group["X"])),
        )  # fmt: skip
        while True:
            for rows in loader:
                yield rows["X"].shape[0]


class HuggingFace:
    """HF datasets: one row of lists a cell, taken as arrow tables in lexicell's own block-shuffled order.

    That is faster than its usual ways of shuffling, which hand over one cell at a time.
    """

    name = "HF datasets"
    place, types = "hf", ("int32", "float32")  # as the file has them

    def convert(self, h5ad: Path, folder: Path) -> None:
        import pyarrow as pa

        import datasets

        writer_folder = folder / self.place
        schema = pa.schema(
            [(name, pa.large_list(pa.type_for_alias(kind)))
             for name, kind in zip(("genes", "counts"), self.types, strict=True)]
        )  # fmt: skip
        writer_folder.mkdir(parents=True)
        path = writer_folder / "data.arrow"
        with h5py.File(h5ad) as file, pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            indptr = file["X"]["indptr"][:]
            for start in range(0, len(indptr) - 1, 1000):  # record batches of 1,000 rows, as its own writer makes
                edges = indptr[start : start + 1001]
                offsets = pa.array(edges - edges[0])
                columns = [
                    pa.LargeListArray.from_arrays(offsets, pa.array(file["X"][name][edges[0] : edges[-1]].astype(kind)))
                    for name, kind in zip(("indices", "data"), self.types, strict=True)
                ]
                writer.write_batch(pa.record_batch(columns, schema=schema))
        datasets.Dataset.from_file(str(path))

    def batches(self, h5ad: Path, folder: Path, batch: int, seed: int) -> Iterator[int]:
        import datasets
        from lexicell.data.order import CellOrder, OrderConfig

        dataset = datasets.Dataset.from_file(str(folder / self.place / "data.arrow")).with_format("arrow")
        order = CellOrder(np.zeros(len(dataset), np.int64), OrderConfig(), seed)
        for start in itertools.count(0, batch):
            table = dataset[order.take(start, start + batch).cells.tolist()]
            for name in ("genes", "counts"):
                table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            yield table.num_rows


class HuggingFaceNarrow(HuggingFace):
    """The same with the types of lexicell's store: half of the bytes."""

    name = "HF datasets, 16-bit"
    place, types = "hf16", ("uint16", "uint16")


PEERS = {peer.name: peer for peer in (Copying(), Lexicell(), LexicellSampled(), HuggingFace(), HuggingFaceNarrow(),
                                      Scdl(), ScDataset(), Annbatch(), ShardedZarr(), BackedAnnData())}  # fmt: skip


class PrivateMemory:
    """Watches the peak of this process's own memory (RssAnon of Linux: without the page cache)."""

    def __init__(self) -> None:
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PrivateMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.peak = max(self.peak, int(line.split()[1]) * 1024)


def read(peer, h5ad: Path, folder: Path, batch: int, seed: int, seconds: float) -> dict[str, float]:
    """Read for some seconds and return the rates.

    Freed memory is kept, as lexicell has it in training, for every reader alike: handing it back to the system batch
    after batch costs more than the reading. The first batches are not timed: things are imported, compiled and opened
    for them. Readers that fetch many batches ahead are timed over whole fetches.
    """
    keep_freed_memory()
    ahead = getattr(peer, "ahead", 1)
    with PrivateMemory() as memory:
        batches = peer.batches(h5ad, folder, batch, seed)
        for _ in range(ahead):
            next(batches)
        n_cells, n_batches, began, used = 0, 0, time.perf_counter(), time.process_time()
        while n_batches % ahead or time.perf_counter() - began < seconds:
            n_cells += next(batches)
            n_batches += 1
        wall, cpu = time.perf_counter() - began, time.process_time() - used
    return {"cells_per_s": n_cells / wall, "cells_per_cpu_s": n_cells / cpu, "peak_bytes": memory.peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("convert", "read"))
    parser.add_argument("name", choices=tuple(PEERS))
    parser.add_argument("h5ad", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    peer = PEERS[options.name]
    if options.action == "convert":
        began = time.perf_counter()
        peer.convert(options.h5ad, options.folder)
        print(json.dumps({"seconds": time.perf_counter() - began}))
    else:
        print(json.dumps(read(peer, options.h5ad, options.folder, options.batch, options.seed, options.seconds)))


if __name__ == "__main__":
    main()
