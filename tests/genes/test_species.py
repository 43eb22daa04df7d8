import pytest

from lexicell.errors import InputError
from lexicell.genes.species import find_species, follows_pattern, species_of_ids, strip_versions


@pytest.mark.parametrize(
    "text",
    ["mouse", "Mouse", "Mus musculus", "mus_musculus", " MUS-MUSCULUS ", "10090", "NCBITaxon:10090", "taxid:10090"],
)
def test_every_name_of_the_mouse(text):
    species = find_species(text)
    assert (species.name, species.taxon, species.common) == ("mus_musculus", 10090, "mouse")


def test_an_unknown_species_is_taken_as_it_is():
    assert find_species("Craseonycteris thonglongyai").name == "craseonycteris_thonglongyai"
    assert find_species("Craseonycteris thonglongyai").gene_id_pattern is None
    assert find_species("99999").name == "taxon_99999"


@pytest.mark.parametrize("text", ["", "  ", "--"])
def test_nothing_is_no_species(text):
    with pytest.raises(InputError, match="expected a name"):
        find_species(text)


def test_versions_are_cut_off_ensembl_ids_only():
    names = ["ENSMUSG00000000001.4", "ENSG00000002586.20_PAR_Y", "AC140403.3", "RP11-34P13.7", "WBGene00000001.1"]
    expected = ["ENSMUSG00000000001", "ENSG00000002586_PAR_Y", "AC140403.3", "RP11-34P13.7", "WBGene00000001"]
    assert strip_versions(names) == expected


def test_ids_tell_their_species():
    mouse = [f"ENSMUSG{i:011d}" for i in range(20)]
    human = [f"ENSG{i:011d}.3" for i in range(20)]
    assert species_of_ids(mouse).name == "mus_musculus"
    assert species_of_ids([*human, "TP53"]).name == "homo_sapiens"
    assert species_of_ids(["Gad1", "Sst", "E130"]) is None
    assert species_of_ids([]) is None
    assert follows_pattern(["ENSG00000000001", "ENSMUSG00000000001"], find_species("human")) == [True, False]
