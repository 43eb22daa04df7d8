"""YAML read strictly: no tags, no aliases, no key twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lexicell.errors import InputError

_MAX_YAML_BYTES = 10_000_000


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without aliases (an alias bomb is a few hundred bytes) and without repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(
                None,
                None,
                "anchors and aliases are not allowed; put what is shared under 'defaults'",
                event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value if isinstance(key.value, str) else None)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes on, off, yes and no for truth values; here they are words, and `on:` is a key.
_BOOL = "tag:yaml.org,2002:bool"
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL or first in "tTfF"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Read a YAML file that holds keys and values; raise InputError that says what is wrong with it."""
    try:
        if path.stat().st_size > _MAX_YAML_BYTES:
            raise InputError(f"{path}: is too large to be a YAML file; is it a data file?")
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 (it is a SafeLoader)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file.") from None
    except (OSError, RuntimeError) as error:
        if isinstance(error, RecursionError):
            raise InputError(f"{path}: is nested too deep.") from None
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a text file in UTF-8 ({error.reason}); expected YAML.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, Mapping):
        raise InputError(f"{path}: expected keys and values (YAML), found {shown(data)}.")
    return data


def shown(value: object) -> str:
    """Return a value as a message shows it, cut when it is long."""
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
