"""Species: one key for each, its names, and the pattern that its gene ids follow."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from lexicell.errors import InputError


@dataclass(frozen=True)
class Species:
    """A species.

    Attributes
    ----------
    name
        Latin name in lower case with underscores, such as ``"mus_musculus"``: the key used everywhere.
    taxon
        NCBI taxonomy id, or None where it is not known here.
    common
        English name, or None.
    gene_id_pattern
        Regular expression of a whole gene id without its version, or None.
    """

    name: str
    taxon: int | None
    common: str | None
    gene_id_pattern: str | None


def _ensembl(prefix: str) -> str:
    return rf"{prefix}G\d{{11}}"


_KNOWN = (
    Species("mus_musculus", 10090, "mouse", _ensembl("ENSMUS")),
    Species("homo_sapiens", 9606, "human", _ensembl("ENS")),
    Species("rattus_norvegicus", 10116, "rat", _ensembl("ENSRNO")),
    Species("mesocricetus_auratus", 10036, "golden hamster", _ensembl("ENSMAU")),
    Species("cavia_porcellus", 10141, "guinea pig", _ensembl("ENSCPO")),
    Species("heterocephalus_glaber", 10181, "naked mole-rat", None),
    Species("oryctolagus_cuniculus", 9986, "rabbit", _ensembl("ENSOCU")),
    Species("macaca_mulatta", 9544, "rhesus macaque", _ensembl("ENSMMU")),
    Species("macaca_fascicularis", 9541, "crab-eating macaque", _ensembl("ENSMFA")),
    Species("callithrix_jacchus", 9483, "marmoset", _ensembl("ENSCJA")),
    Species("microcebus_murinus", 30608, "mouse lemur", _ensembl("ENSMIC")),
    Species("pan_troglodytes", 9598, "chimpanzee", _ensembl("ENSPTR")),
    Species("gorilla_gorilla", 9593, "gorilla", _ensembl("ENSGGO")),
    Species("sus_scrofa", 9823, "pig", _ensembl("ENSSSC")),
    Species("bos_taurus", 9913, "cow", _ensembl("ENSBTA")),
    Species("ovis_aries", 9940, "sheep", _ensembl("ENSOAR")),
    Species("canis_lupus_familiaris", 9615, "dog", _ensembl("ENSCAF")),
    Species("felis_catus", 9685, "cat", _ensembl("ENSFCA")),
    Species("mustela_putorius_furo", 9669, "ferret", _ensembl("ENSMPU")),
    Species("monodelphis_domestica", 13616, "opossum", _ensembl("ENSMOD")),
    Species("rhinolophus_ferrumequinum", 59479, "greater horseshoe bat", _ensembl("ENSRFE")),
    Species("rhinolophus_sinicus", 89399, "Chinese rufous horseshoe bat", None),
    Species("hipposideros_armiger", 186990, "great roundleaf bat", None),
    Species("myotis_lucifugus", 59463, "little brown bat", _ensembl("ENSMLU")),
    Species("myotis_myotis", 51298, "greater mouse-eared bat", None),
    Species("eptesicus_fuscus", 29078, "big brown bat", None),
    Species("pipistrellus_kuhlii", 59472, "Kuhl's pipistrelle", None),
    Species("phyllostomus_discolor", 89673, "pale spear-nosed bat", None),
    Species("carollia_perspicillata", 40233, "Seba's short-tailed bat", None),
    Species("pteropus_vampyrus", 132908, "large flying fox", _ensembl("ENSPVA")),
    Species("rousettus_aegyptiacus", 9407, "Egyptian fruit bat", None),
    Species("cynopterus_sphinx", 9400, "greater short-nosed fruit bat", None),
    Species("gallus_gallus", 9031, "chicken", _ensembl("ENSGAL")),
    Species("taeniopygia_guttata", 59729, "zebra finch", _ensembl("ENSTGU")),
    Species("xenopus_tropicalis", 8364, "western clawed frog", _ensembl("ENSXET")),
    Species("danio_rerio", 7955, "zebrafish", _ensembl("ENSDAR")),
    Species("drosophila_melanogaster", 7227, "fruit fly", r"FBgn\d{7}"),
    Species("caenorhabditis_elegans", 6239, "roundworm", r"WBGene\d{8}"),
)

_PREFIX = re.compile(r"([A-Za-z]+)\d")
_VERSION = re.compile(r"^((?:ENS[A-Z]*G\d{11}|WBGene\d{8}))\.\d+")


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "_", text.strip().lower()).strip("_")


@cache
def _by_any_name() -> dict[str, Species]:
    names: dict[str, Species] = {}
    for species in _KNOWN:
        names[species.name] = species
        names[str(species.taxon)] = species
        names[_slug(species.common or "")] = species
    return names


@cache
def find_species(text: str) -> Species:
    """Return the species that a latin name, a common name or a taxon id stands for.

    Parameters
    ----------
    text
        For instance ``"Mus musculus"``, ``"mus_musculus"``, ``"mouse"``, ``"10090"``, ``"NCBITaxon:10090"``.

    Returns
    -------
    Species
        A species that is not known here comes back under its own name without taxon, common name and pattern:
        any species can be used.

    Raises
    ------
    InputError
        When `text` holds no letter and no digit.
    """
    slug = _slug(text)
    if not slug:
        raise InputError(f"species: expected a name such as 'mus_musculus' or 'mouse', got {text!r}.")
    slug = re.sub(r"^(?:ncbitaxon|ncbi_taxon|taxon|taxid)_(?=\d+$)", "", slug)
    known = _by_any_name().get(slug)
    if known is not None:
        return known
    if slug.isdigit():
        return Species(f"taxon_{slug}", int(slug), None, None)
    return Species(slug, None, None, None)


def strip_versions(ids: Sequence[str]) -> list[str]:
    """Return the ids with the version of Ensembl and WormBase ids cut off (``ENSMUSG00000000001.4``)."""
    return [_VERSION.sub(r"\1", name) if "." in name else name for name in ids]


def follows_pattern(ids: Sequence[str], species: Species) -> list[bool]:
    """Say of each id, its version aside, whether it looks like a gene id of `species`."""
    if species.gene_id_pattern is None:
        return [False] * len(ids)
    whole = re.compile(rf"(?:{species.gene_id_pattern})(?:\.\d+)?(?:_PAR_Y)?")
    return [whole.fullmatch(name) is not None for name in ids]


def species_of_ids(ids: Sequence[str], share: float = 0.5) -> Species | None:
    """Return the species whose gene-id pattern more than `share` of the ids follow, if there is one."""
    prefixes = Counter(found[1] for found in map(_PREFIX.match, ids) if found)
    prefix, n_ids = prefixes.most_common(1)[0] if prefixes else ("", 0)
    if n_ids <= share * len(ids):
        return None
    for species in _KNOWN:
        likely = species.gene_id_pattern is not None and species.gene_id_pattern.startswith(prefix)
        if likely and sum(follows_pattern(ids, species)) > share * len(ids):
            return species
    return None
