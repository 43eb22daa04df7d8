"""The one place for randomness: generators made from a seed and a key, never a global state."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

Key = int | str


def _words(seed: int, key: tuple[Key, ...]) -> list[int]:
    return [seed, *(zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key)]


def generator(seed: int, *key: Key) -> np.random.Generator:
    """Return the numpy generator that belongs to ``(seed, *key)``: same key, same numbers, on any machine."""
    return np.random.default_rng(np.random.SeedSequence(_words(seed, key)))


def permutation(seed: int, *key: Key, n: int) -> npt.NDArray[np.int64]:
    """Return the permutation of ``range(n)`` that belongs to ``(seed, *key)``."""
    return generator(seed, *key).permutation(n)


def integer_seed(seed: int, *key: Key) -> int:
    """Return a 63-bit integer that belongs to ``(seed, *key)``, for kernels and for torch generators."""
    return int(np.random.SeedSequence(_words(seed, key)).generate_state(1, np.uint64)[0] >> 1)


def uniforms(seed: int, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return one uniform number in [0, 1) for each integer key (SplitMix64; Steele, Lea & Flood 2014).

    A whole batch of cells is keyed at once, each by its own place in the global order, so that a number
    does not depend on which batch, worker or rank asks for it.
    """
    with np.errstate(over="ignore"):
        state = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
