import errno
import inspect
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from lexicell.cli.options import build_parser, parameter_docs
from lexicell.cli.program import VERBS, main, plain
from lexicell.errors import InputError
from lexicell.reporting.text import Table


class Result:
    exit_code = 0

    def figures(self):
        return {"accuracy": np.float32(0.5), "path": Path("a"), "nothing": float("nan")}

    def tables(self):
        return [Table("Scores", ("method", "accuracy"), (("knn", 0.5),))]


@pytest.fixture
def workflow(monkeypatch):
    """Stand in for a workflow: ``calls = workflow("embed", result_or_error)`` collects what it is called with."""

    def install(name, outcome=None, function=None):
        calls = []

        def stand_in(*args, **kwargs):
            calls.append((args, kwargs))
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome or Result()

        module = types.ModuleType(f"lexicell.workflows.{name}")
        setattr(module, function or name, stand_in)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return calls

    return install


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_the_overview_names_every_verb(arguments, capsys):
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb.name} " in shown for verb in VERBS)
    assert max(map(len, shown.splitlines())) <= 110


def test_a_group_shows_its_verbs(capsys):
    assert main(["store", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "store verify" in shown
    assert "pretrain" not in shown


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("lexicell ")


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_has_a_function_whose_docstring_explains_every_parameter(verb, capsys):
    function = verb.load()
    docs = parameter_docs(inspect.getdoc(function))
    assert set(docs) == set(inspect.signature(function).parameters)
    assert all(docs.values())
    build_parser(function, "lexicell", omit=("overrides",))
    if verb.name != "pretrain":
        assert main([*verb.words, "--help"]) == 0
        assert f"usage: lexicell {verb.name}" in capsys.readouterr().out


def test_the_help_of_pretrain_lists_the_recipes_fields(capsys):
    pytest.importorskip("lexicell.training.recipe")
    assert main(["pretrain", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--store" in shown
    assert "--optim.lr LR" in shown
    assert "Path to a configuration file" not in shown


def test_a_verb_calls_its_workflow_prints_tables_and_writes_json(workflow, capsys, tmp_path):
    calls = workflow("annotate")
    line = "annotate RUN q.h5ad --reference r.h5ad --levels class,type --out o.h5ad --json"
    assert main([*line.split(), str(tmp_path / "f.json")]) == 0
    ((args, kwargs),) = calls
    assert args == (Path("RUN"), Path("q.h5ad"), Path("r.h5ad"), ("class", "type"))
    assert kwargs["method"] == "probe"
    assert kwargs["out"] == Path("o.h5ad")
    assert "Scores" in capsys.readouterr().out
    assert json.loads((tmp_path / "f.json").read_text()) == {"accuracy": 0.5, "path": "a", "nothing": None}
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_overrides_go_to_pretrain_wherever_they_stand(workflow):
    calls = workflow("pretrain")
    line = "pretrain --optim.lr 3e-4 tiny --store a --trunk.layers=2 --store b --out RUN --resume"
    assert main(line.split()) == 0
    (args, kwargs) = calls[0]
    assert args == ("tiny", [Path("a"), Path("b")], Path("RUN"))
    assert kwargs == {"resume": True, "overrides": {"optim.lr": 3e-4, "trunk.layers": 2}}


def test_annotate_takes_settings_of_fine_tuning(workflow):
    calls = workflow("annotate")
    line = "annotate RUN q.h5ad --reference r.h5ad --method finetune --finetune.label_balance 0 --out o.h5ad"
    assert main(line.split()) == 0
    assert calls[0][1]["overrides"] == {"finetune.label_balance": 0}


def test_the_help_of_annotate_lists_the_fields_of_fine_tuning(capsys):
    assert main(["annotate", "--help"]) == 0
    assert "--finetune.label_balance" in capsys.readouterr().out


def test_a_misspelt_option_is_told(capsys):
    assert main(["annotate", "RUN", "q.h5ad", "--refrence", "r.h5ad", "--out", "o.h5ad"]) == 2
    assert "refrence" in capsys.readouterr().err


def test_the_other_verbs_pass_their_options_on(workflow):
    for name, function, line in [
        ("prepare", None, "prepare c.yaml --out S --workers 2 --balance type:9 --dry-run --overwrite"),
        ("embed", None, "embed RUN q.h5ad --out o.h5ad --species mouse --samples 3"),
        ("genes", "genes_table", "genes table RUN --out t.csv"),
        ("report", None, "report RUN"),
        ("demo", None, "demo --out D"),
    ]:
        calls = workflow(name, function=function)
        assert main(line.split()) == 0
        assert len(calls) == 1


def test_the_users_fault_is_one_message_and_exit_code_2(workflow, capsys):
    workflow("report", InputError("RUN: no run folder"))
    assert main(["report", "RUN"]) == 2
    assert capsys.readouterr().err == "lexicell: error: RUN: no run folder\n"


@pytest.mark.parametrize(
    "line", ["nonsense", "store", "store nonsense", "annotate RUN", "embed RUN q --out o --species", "report RUN --x 1"]
)
def test_bad_command_lines_are_the_users_fault(line, capsys):
    code = main(line.split())
    error = capsys.readouterr().err
    if line == "store":
        assert code == 0
    else:
        assert code == 2
        assert error.startswith("lexicell: error:")
        assert "--help" in error
        assert "Traceback" not in error


def test_a_bug_is_exit_code_1_with_a_traceback(workflow, capsys):
    workflow("report", ZeroDivisionError("oh"))
    assert main(["report", "RUN"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "bug in lexicell" in error


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 2), (errno.EACCES, 2), (errno.EIO, 1)])
def test_a_full_disk_is_not_our_bug(workflow, capsys, number, code):
    workflow("report", OSError(number, "the system's words", "some/file"))
    assert main(["report", "RUN"]) == code
    assert "the system's words" in capsys.readouterr().err


def test_an_interruption_is_exit_code_130(workflow, capsys):
    workflow("report", KeyboardInterrupt())
    assert main(["report", "RUN"]) == 130
    assert capsys.readouterr().err == "lexicell: interrupted\n"


def test_a_damaged_store_is_exit_code_2(workflow, capsys):
    result = Result()
    result.exit_code = 2
    workflow("store_inspection", result, "store_verify")
    assert main(["store", "verify", "STORE"]) == 2
    assert "Scores" in capsys.readouterr().out


def test_json_into_a_folder_that_is_not_there_is_refused_before_the_work(workflow, tmp_path, capsys):
    calls = workflow("report")
    assert main(["report", "RUN", "--json", str(tmp_path / "none" / "f.json")]) == 2
    assert calls == []
    assert "there is no folder" in capsys.readouterr().err


def test_figures_become_plain_json():
    figures = {"a": np.int64(3), 2: [np.array([1.0, np.inf]), Path("x")], "c": (True, None, "text")}
    assert plain(figures) == {"a": 3, "2": [[1.0, None], "x"], "c": [True, None, "text"]}


def test_data_verbs_for_real(tmp_path, capsys):
    assert main(["data", "list", "--json", str(tmp_path / "list.json")]) == 0
    listed = json.loads((tmp_path / "list.json").read_text())["datasets"]
    assert {"baron-mouse", "baron-human", "simulated"} <= {entry["name"] for entry in listed}
    assert main(["data", "get", "baron-mouse", "--dry-run", "--to", str(tmp_path / "d")]) == 0
    assert str(tmp_path / "d" / "baron-mouse.h5ad") in capsys.readouterr().out
    assert not (tmp_path / "d").exists()


def test_the_program_runs_as_a_module_and_imports_nothing_heavy():
    code = (
        "import sys; from lexicell.cli import main; code = main(['--help']); "
        "heavy = {'torch', 'numpy', 'pandas', 'anndata', 'lightning', 'jsonargparse', 'rich'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    done = subprocess.run([sys.executable, "-m", "lexicell", "nonsense"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "lexicell: error: there is no verb 'nonsense'. See `lexicell --help`.\n"


def test_a_reader_that_leaves_early_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "lexicell", "data", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0
