"""Trains in processes of its own, as torchrun would start them, and kills them if asked to.

A process that has imported everything and run nothing forks the others, so that one costs no more than its training.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self


class Forked:
    """The forking process; jobs are sent to it one by one."""

    def __enter__(self) -> Self:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def run(self, *, processes: int = 1, kill_after: float | None = None, **job: Any) -> tuple[list[int], str]:
        """Return exit codes (negative for a signal) and what was written to standard error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job | {"processes": processes, "kill_after": kill_after}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["codes"], answer["stderr"]

    def fit(
        self,
        out: Path,
        stores: list[str],
        recipe: dict[str, object],
        *,
        processes: int = 1,
        resume: bool = False,
        kill_after: float | None = None,
        once_begun: bool = False,
    ) -> str:
        """Fit a recipe; return what was written to standard error. Seconds to a kill may count from the first step."""
        job = {"kind": "fit", "out": str(out), "stores": stores, "recipe": recipe, "resume": resume}
        job["once_begun"] = once_begun
        codes, stderr = self.run(processes=processes, kill_after=kill_after, **job)
        if kill_after is None:
            assert codes == [0] * processes, stderr[-3000:]
        else:
            assert set(codes) <= {0, -signal.SIGKILL}, stderr[-3000:]
        return stderr


def _do(job: dict[str, Any], rank: int) -> None:
    from lexicell.data.store import Store
    from lexicell.training.fit import fit
    from lexicell.training.recipe import Recipe, override_recipe

    stores = [Store.open(path) for path in job["stores"]]
    recipe = override_recipe(Recipe(), job["recipe"])
    if "largest_file" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"], job["largest_file"]))
    if job["kind"] == "fit":
        fit(recipe, stores, Path(job["out"]), resume=job["resume"], progress=False)
    else:
        _gradients(recipe, stores, Path(job["out"]), rank, job["processes"])


def _gradients(recipe: Any, stores: list[Any], out: Path, rank: int, processes: int) -> None:
    """Write the gradients of one global batch, averaged over processes as DDP does, and the losses."""
    import torch
    import torch.distributed as dist

    from lexicell.batch import CellBatch
    from lexicell.data.gene_sampler import GeneSampler
    from lexicell.data.loader import CellStream, Shard
    from lexicell.training.objectives import Forward, build_objectives, total_loss
    from lexicell.training.start import FromScratch, baseline_of

    if processes > 1:
        dist.init_process_group("gloo")
    start = FromScratch()
    data = start.open(recipe, stores)
    network, _ = start.build(recipe, data, baseline_of(recipe, data), fresh=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # off the zeros, so that gradients reach everything
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    sampler = GeneSampler(data.shape, data.collection.panels, len(data.lexicon), recipe.seed)
    size = recipe.data.batch_size
    stream = CellStream(
        data.collection, data.training_cells, sampler, data._order(), batch_size=size, seed=0,
        shard=Shard(rank, processes),
    )  # fmt: skip
    batch = stream.make_batch(0)
    labels = torch.where((batch.position < 3)[:, None], -1, batch.labels)  # the first process knows fewer labels
    batch = CellBatch(**{**batch.__dict__, "labels": labels})
    objectives = build_objectives(recipe.objectives, network, data.shape.views)
    forward = Forward(network, batch, spread=True)
    terms = {objective.name: objective.loss(forward) for _, objective in objectives}
    total_loss(terms, objectives).backward()
    found = {f"grad.{name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    found |= {f"loss.{name}": value.detach() for name, value in terms.items()}
    for value in found.values():
        if processes > 1:
            dist.all_reduce(value)
            value /= processes
    if rank == 0:
        torch.save(found, out)
    if processes > 1:
        dist.destroy_process_group()


def _fork(job: dict[str, Any], rank: int, port: int, log: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with open(log, "a") as file:  # noqa: PTH123
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if job["processes"] > 1:
            n = str(job["processes"])
            os.environ |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n,
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0",
            }  # fmt: skip
        _do(job, rank)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _wait_for(path: Path, since: float) -> None:
    """Wait until a file is written anew; runs write their recipe when training is about to begin."""
    while not path.is_file() or path.stat().st_mtime < since:
        time.sleep(0.002)


def _serve() -> None:
    import tempfile

    import lightning.pytorch  # noqa: F401
    import torch.distributed.fsdp  # noqa: F401
    from torch.utils import tensorboard  # noqa: F401

    from lexicell.training import fit  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with tempfile.NamedTemporaryFile("r") as log:
            started = time.time()
            pids = [_fork(job, rank, port, log.name) for rank in range(job["processes"])]
            if job["kill_after"] is not None:
                if job.get("once_begun"):
                    _wait_for(Path(job["out"]) / "recipe.yaml", started)
                time.sleep(job["kill_after"])
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
            codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
            answer = {"codes": codes, "stderr": log.read()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
