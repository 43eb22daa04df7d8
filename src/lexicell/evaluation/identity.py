"""What a kept result was made of, as a short text: where anything of it changes, the result is made anew."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

DIGITS = 12


def identity(*parts: str | npt.NDArray[np.generic]) -> str:
    """Return twelve hexadecimal digits of a SHA-256 that any change of a part, or of their order, changes.

    Parameters
    ----------
    *parts
        Texts, and arrays of numbers or of texts; an array's shape and type count, too.
    """
    whole = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            about, content = "text", part.encode()
        elif part.dtype == object:
            about, content = f"texts {part.shape}", "\0".join(map(str, part.ravel())).encode()
        else:
            about, content = f"{part.dtype} {part.shape}", np.ascontiguousarray(part).tobytes()
        whole.update(f"{about} {len(content)}\n".encode())
        whole.update(content)
    return whole.hexdigest()[:DIGITS]
