import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lexicell


def test_the_import_is_lazy():
    code = (
        "import sys, lexicell; "
        "heavy = {'torch', 'numpy', 'pandas', 'anndata', 'lightning'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_lists_of_names_agree():
    tree = ast.parse(Path(lexicell.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        for alias in node.names
    }
    assert typed == lexicell._HOMES
    assert sorted(lexicell._HOMES) == sorted(lexicell.__all__)
    assert set(lexicell.__all__) <= set(dir(lexicell))


@pytest.mark.parametrize("name", lexicell.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(lexicell, name)
    assert value.__doc__
    assert value.__name__ == name


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        lexicell.nonsense  # noqa: B018
