"""A verb imports its workflow only when it runs: these tests see that its call fits before a user does."""

import ast
import importlib
import inspect

import pytest

from lexicell.cli.program import VERBS


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_the_call_of_a_verb_fits_its_workflow(verb):
    function = ast.parse(inspect.getsource(verb.load())).body[0]
    imported = next(node for node in ast.walk(function) if isinstance(node, ast.ImportFrom))
    call = next(node.value for node in ast.walk(function) if isinstance(node, ast.Return))
    workflow = getattr(importlib.import_module(imported.module), imported.names[0].name)
    assert call.func.id == workflow.__name__
    inspect.signature(workflow).bind(*call.args, **{keyword.arg: keyword.value for keyword in call.keywords})
    offered = {argument.arg for argument in [*function.args.args, *function.args.kwonlyargs]}
    used = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}
    assert offered <= used
