import numpy as np
import pytest

from lexicell.errors import InputError
from lexicell.genes.phylogeny import Phylogeny


def test_distances_match_a_hand_worked_tree():
    tree = Phylogeny.from_newick("((mouse:1,rat:2)rodents:3,human:10);")
    assert tree.leaves == ("mouse", "rat", "human")
    np.testing.assert_allclose(tree.distances(), [[0, 3, 14], [3, 0, 15], [14, 15, 0]])


def test_parents_come_before_children_and_the_root_is_first():
    tree = Phylogeny.from_newick("(((a,b),c),(d,e));")
    assert tree.parents[0] == -1
    assert all(parent < node for node, parent in enumerate(tree.parents))


def test_quotes_comments_and_missing_lengths():
    tree = Phylogeny.from_newick("('Mus musculus'[a comment],'O''Hara bat':0.5);")
    assert tree.leaves == ("Mus musculus", "O'Hara bat")
    np.testing.assert_allclose(tree.distances(), [[0, 1.5], [1.5, 0]])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("((a,b);", "bracket is missing"),
        ("(a,b));", "bracket too many"),
        ("a,b;", "comma outside"),
        ("(a:x,b);", "branch length 'x'"),
        ("(a:-1,b);", "branch length '-1'"),
        ("(a,a);", "appear twice: a"),
        ("(a,);", "leaf without a name"),
        ("", "leaf without a name"),
        ("(a b,c);", "two names in a row"),
        ("(a,b); (c,d);", "after the semicolon"),
        ("(a,b)(c,d);", "'(' after ')'"),
    ],
)
def test_broken_trees_are_refused_with_the_reason(text, part):
    with pytest.raises(InputError, match="not a Newick tree") as caught:
        Phylogeny.from_newick(text)
    assert part in str(caught.value)
