"""Reading corpus.yaml, or a mapping of the same shape.

Reading is strict: an unknown key, a wrong type or a key that stands twice is a fault, and all faults are
reported together.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from anndata import AnnData

from lexicell.data.corpus import CorpusConfig, Dataset, Field, JoinedTable, LabelColumn, ObsTable, joined_levels
from lexicell.data.store_format import STANDARD_COLUMNS
from lexicell.data.strict_yaml import read_yaml, shown
from lexicell.errors import InputError, listing, raise_all
from lexicell.genes.species import find_species

_KEYS = tuple({"source": "path"}.get(field.name, field.name) for field in fields(Dataset) if field.name != "adata")


def load_corpus(corpus: str | Path | Mapping[str, Any] | CorpusConfig) -> CorpusConfig:
    """Read a corpus from a YAML file, or from a mapping of the same shape.

    Parameters
    ----------
    corpus
        Path of a YAML file, whose paths are relative to it; or a mapping, where a data set may have ``adata``
        (an AnnData) in place of ``path``, and paths are relative to the working directory.

    Raises
    ------
    InputError
        With every fault of the corpus.
    """
    if isinstance(corpus, CorpusConfig):
        return corpus
    if isinstance(corpus, Mapping):
        return _parse(corpus, Path(), "corpus")
    path = Path(corpus)
    return _parse(read_yaml(path), path.parent, str(path))


def _parse(data: Mapping[str, Any], base: Path, where: str) -> CorpusConfig:
    faults = _unknown(data, ("datasets", "defaults"), "")
    defaults = data.get("defaults", {})
    if not isinstance(defaults, Mapping):
        faults.append(f"defaults: expected keys of a data set, found {shown(defaults)}.")
        defaults = {}
    faults += _unknown(defaults, tuple(key for key in _KEYS if key not in ("path", "name")), "defaults: ")
    entries = data.get("datasets")
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        faults.append(f"datasets: expected a list of at least one input, found {shown(entries)}.")
        entries = []
    datasets = []
    for place, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping):
            faults.append(f"datasets, entry {place}: expected keys such as path and species, found {shown(entry)}.")
            continue
        parser = _EntryParser({**defaults, **entry}, base, f"datasets, entry {place}")
        dataset = parser.dataset(_unknown(entry, (*_KEYS, "adata"), f"datasets, entry {place}: "))
        faults += parser.faults
        if dataset is not None:
            datasets.append(dataset)
    faults += _repeated(datasets)
    try:
        joined_levels([[label.level for label in dataset.labels] for dataset in datasets])
    except InputError as error:
        faults.append(str(error))
    raise_all(faults, f"{where}: this corpus cannot be used:")
    return CorpusConfig(_named_apart(datasets), where)


class _EntryParser:
    """Reads one data set of a corpus and collects its faults."""

    def __init__(self, entry: Mapping[str, Any], base: Path, where: str) -> None:
        self.entry = entry
        self.base = base
        self.where = where
        self.faults: list[str] = []

    def dataset(self, faults: list[str]) -> Dataset | None:
        """Return the data set, or None where there are faults."""
        self.faults += faults
        source = self._source()
        default_name = "adata" if source is None or isinstance(source, AnnData) else _stem(source)
        dataset: dict[str, Any] = dict(  # noqa: C408 (keyword arguments of Dataset)
            source=source,
            name=self._text("name") or default_name,
            species=self._species(),
            counts=self._counts(),
            gene_ids=self._text("gene_ids") or "auto",
            symbols=self._text("symbols"),
            donor=self._field("donor"),
            tissue=self._field("tissue"),
            assay=self._field("assay"),
            labels=self._labels(),
            unlabelled=self._texts("unlabelled"),
            genes=self._path("genes"),
            unmatched=self._choice("unmatched", ("drop", "keep")),
            min_matched=self._share("min_matched", 0.5),
            keep=self._kept(),
            obs=self._obs(),
        )
        return None if self.faults else Dataset(**dataset)

    def _fault(self, key: str, expected: str, found: object) -> None:
        self.faults.append(f"{self.where}: {key}: expected {expected}, found {shown(found)}.")

    def _text(self, key: str) -> str | None:
        value = self.entry.get(key)
        if value is None or (isinstance(value, str) and value.strip()):
            return value
        self._fault(key, "text", value)
        return None

    def _texts(self, key: str) -> tuple[str, ...]:
        value = self.entry.get(key)
        values = () if value is None else ([value] if isinstance(value, str) else value)
        if isinstance(values, Sequence) and all(isinstance(v, str) and v.strip() for v in values):
            return tuple(values)
        self._fault(key, "a list of texts", value)
        return ()

    def _choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.entry.get(key, choices[0])
        if value not in choices:
            self._fault(key, f"one of {listing(choices)}", value)
        return str(value)

    def _share(self, key: str, default: float) -> float:
        value = self.entry.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            self._fault(key, "a number from 0 to 1", value)
            return default
        return float(value)

    def _path(self, key: str) -> Path | None:
        text = self._text(key)
        if text is None:
            return None
        if "\0" in text:
            self._fault(key, "a path", text)
            return None
        return self.base / Path(text).expanduser()

    def _source(self) -> Path | AnnData | None:
        adata = self.entry.get("adata")
        if adata is not None:
            if not isinstance(adata, AnnData):
                self._fault("adata", "an AnnData (in Python only)", adata)
            if "path" in self.entry:
                self.faults.append(f"{self.where}: give path or adata, not both.")
            return adata if isinstance(adata, AnnData) else None
        value = self.entry.get("path")
        if isinstance(value, Path):
            return self.base / value
        if value is None:
            self.faults.append(f"{self.where}: path: is missing; name the file that holds the counts.")
            return None
        return self._path("path")

    def _species(self) -> Field:
        value = self.entry.get("species")
        if value is None:
            self.faults.append(
                f"{self.where}: species: is missing; give a name such as mus_musculus, or {{obs: column}}."
            )
            return Field()
        if isinstance(value, str):
            try:
                return Field(value=find_species(value).name)
            except InputError:
                self._fault("species", "a name such as mus_musculus", value)
                return Field()
        field = self._field("species", "a name such as mus_musculus, or {obs: column}") or Field()
        return Field(value=find_species(field.value).name) if field.value else field

    def _field(self, key: str, expected: str = "an obs column, or {value: ...}, or {obs: column}") -> Field | None:
        value = self.entry.get(key)
        if value is None:
            return None
        if isinstance(value, str) and value.strip():
            return Field(column=value)
        if isinstance(value, Mapping) and len(value) == 1:
            kind, inner = next(iter(value.items()))
            if kind in ("obs", "value") and isinstance(inner, str | int | float) and str(inner).strip():
                return Field(column=str(inner)) if kind == "obs" else Field(value=str(inner))
        self._fault(key, expected, value)
        return None

    def _counts(self) -> str | None:
        value = self._text("counts")
        if value in (None, "auto"):
            return None
        if value not in ("X", "raw") and not str(value).startswith("layers/"):
            self._fault("counts", "X, raw or layers/NAME", value)
        return value

    def _kept(self) -> tuple[str, ...]:
        kept = self._texts("keep")
        taken = [name for name in kept if name in (*STANDARD_COLUMNS, "cell")]
        if taken:
            self.faults.append(f"{self.where}: keep: the store has columns of its own called {listing(taken)}.")
        return kept

    def _obs(self) -> ObsTable | None:
        value = self.entry.get("obs")
        if value is None:
            return None
        keys = ("path", "key", "on", "joins", "missing")
        inner = self._inner({"path": value} if isinstance(value, str) else value, keys, "obs")
        joins = inner.entry.get("joins", [])
        if not isinstance(joins, Sequence) or isinstance(joins, str):
            inner._fault("joins", "a list of tables", joins)
            joins = []
        tables = [inner._join(join, f"joins, entry {place}") for place, join in enumerate(joins, start=1)]
        path, missing = inner._path("path"), inner._choice("missing", ("drop", "keep"))
        key, on = inner._text("key"), inner._text("on")
        if path is None and not inner.faults:
            inner.faults.append(f"{inner.where}: path: is missing; name the table (CSV or TSV).")
        self.faults += inner.faults
        if path is None or inner.faults:
            return None
        return ObsTable(path, key, on, tuple(table for table in tables if table is not None), missing)

    def _join(self, value: object, what: str) -> JoinedTable | None:
        inner = self._inner(
            {"path": value} if isinstance(value, str) else value, ("path", "key", "on", "names", "values"), what
        )
        path = inner._path("path")
        key, on, names, values = (inner._text(name) for name in ("key", "on", "names", "values"))
        if path is None and not inner.faults:
            inner.faults.append(f"{inner.where}: path: is missing; name the table (CSV or TSV).")
        if (names is None) != (values is None):
            inner.faults.append(f"{inner.where}: names, values: give both (a long table), or neither (a wide one).")
        self.faults += inner.faults
        return None if path is None or inner.faults else JoinedTable(path, key, on, names, values)

    def _inner(self, value: object, keys: tuple[str, ...], what: str) -> _EntryParser:
        """Return the parser of keys within a key."""
        mapping = value if isinstance(value, Mapping) else {}
        inner = _EntryParser(mapping, self.base, f"{self.where}: {what}")
        if not isinstance(value, Mapping):
            self._fault(what, f"the path of a table, or keys such as {listing(keys)}", value)
        inner.faults += _unknown(mapping, keys, f"{inner.where}: ")
        return inner

    def _labels(self) -> tuple[LabelColumn, ...]:
        value = self.entry.get("labels")
        if isinstance(value, Mapping):
            pairs = list(value.items())
        elif isinstance(value, str):
            pairs = [(value, value)]
        else:
            pairs = [(item, item) for item in value] if isinstance(value, Sequence) else []
        sound = all(isinstance(part, str) and part.strip() for pair in pairs for part in pair)
        if (value is not None and not isinstance(value, str | Mapping | Sequence)) or not sound:
            self._fault("labels", "obs columns from coarse to fine, or {level: column}", value)
            return ()
        levels = [level for level, _ in pairs]
        twice = sorted({level for level in levels if levels.count(level) > 1})
        if twice:
            self.faults.append(f"{self.where}: labels: {listing(twice)} is named twice.")
        taken = [level for level in levels if level in (*STANDARD_COLUMNS, "cell")]
        if taken:
            self.faults.append(
                f"{self.where}: labels: the store has columns of its own called {listing(taken)}; "
                f"name the level otherwise: {{my_level: {taken[0]}}}."
            )
        return tuple(LabelColumn(level, column) for level, column in pairs)


def _unknown(entry: Mapping[str, Any], known: tuple[str, ...], where: str) -> list[str]:
    faults = []
    for key in entry:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known are {listing(known, 20)}."
            faults.append(f"{where}unknown key {key!r}; {hint}")
    return faults


def _repeated(datasets: Sequence[Dataset]) -> list[str]:
    # realpath, unlike Path.resolve, does not stumble over a circle of links; opening the file will tell of it.
    paths = [os.path.realpath(dataset.source) for dataset in datasets if isinstance(dataset.source, Path)]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    return [f"datasets: {path} is named more than once." for path in twice]


def _stem(path: Path) -> str:
    name = path.name or path.resolve().name
    for suffix in (".h5ad", ".h5mu", ".zarr", ".loom", ".hdf5", ".h5"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)] or name
    return name


def _named_apart(datasets: Sequence[Dataset]) -> tuple[Dataset, ...]:
    """Give data sets of one name a number."""
    seen: set[str] = set()
    apart = []
    for dataset in datasets:
        name, number = dataset.name, 2
        while name in seen:
            name, number = f"{dataset.name}-{number}", number + 1
        seen.add(name)
        apart.append(replace(dataset, name=name))
    return tuple(apart)
