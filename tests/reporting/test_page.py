import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from lexicell.reporting.page import build_page, last_value, render, skill_strata
from lexicell.reporting.run_tables import RunTables, read_run

SECTIONS = ["data", "annotation", "skill", "embedding", "training", "exposure", "recipe"]
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Balanced(HTMLParser):
    """Checks that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Leave pictures out where a test is about something else: drawing them takes seconds."""
    monkeypatch.setattr("lexicell.reporting.figures.to_svg", lambda figure, name: f'<svg id="{name}"></svg>')


@pytest.fixture
def html(made_up_run) -> str:
    return render(build_page(read_run(made_up_run)))


def test_a_whole_run_has_every_section_in_order(made_up_run, undrawn):
    page = build_page(read_run(made_up_run))
    assert [section.key for section in page.sections] == SECTIONS
    assert page.headlines[0].value == f"{last_value(read_run(made_up_run), 'val/skill'):.3f}"
    assert [headline.value for headline in page.headlines[1:]] == ["0.890", "822", "200", "1.7M", "612"]
    assert page.headlines[1].note == "best baseline: logistic regression 0.883"


def test_the_page_stands_alone(html):
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert "<script" not in html
    outside = re.findall(r'(?:src|href|action)="([^"#][^"]*)"', html)
    assert all(link.startswith("data:") for link in outside)
    assert not re.search(r"url\((?!#)|@import|<link", html)
    assert len(set(ids := re.findall(r'\bid="([^"]*)"', html))) == len(ids)


def test_the_page_says_what_a_reader_asks(made_up_run, undrawn):
    html = render(build_page(read_run(made_up_run)))
    for text in ("baron", "donor mouse2", "ab12", "cd34", "lr: 0.002", "lexicell label head", "PCA-kNN", "0.310"):
        assert text in html
    assert "genes were never seen expressed: g0, Ins1, g2" in html


def test_strata_are_in_their_order(made_up_run):
    strata = skill_strata(read_run(made_up_run))
    assert list(strata) == ["0", "1", "2-4", "5-19", "20+", "mean<0.01", "mean>=1"]
    assert strata["1"] == pytest.approx(-0.08)


@pytest.mark.parametrize("name", ["run.json", "metrics.csv", "exposure.npy", "lexicon.parquet", "recipe.yaml"])
def test_any_file_may_be_missing(made_up_run, undrawn, name):
    (made_up_run / name).unlink()
    page = build_page(read_run(made_up_run))
    assert page.faults == ()
    gone = {"metrics.csv": {"skill", "training"}, "exposure.npy": {"exposure"}, "run.json": {"data"}}.get(name, set())
    assert [section.key for section in page.sections] == [key for key in SECTIONS if key not in gone]
    render(page)


def test_faults_and_names_are_shown_as_text_not_as_html():
    run = RunTables(name="<b>run</b>", facts={"lexicell": "<i>"}, faults=("metrics.csv: <script>",))
    html = render(build_page(run))
    assert "<b>run" not in html
    assert "<script" not in html
    assert "metrics.csv: &lt;script&gt;" in html


def test_parameters_may_be_a_total_beside_its_parts():
    page = build_page(RunTables(name="run", facts={"parameters": {"total": 57_200_000, "trunk": 1}}))
    assert page.headlines[0].value == "57.2M"
    assert "57,200,000" in render(page)
    assert [table.title for table in page.sections[0].tables] == ["Training", "Parameters"]


def test_only_baselines_make_the_headline_where_there_is_no_own_method():
    scores = pd.DataFrame({"method": ["pca_knn"], "level": ["type"], "accuracy": [0.9], "macro_f1": [0.8]})
    page = build_page(RunTables(name="run", tables={"annotation_scores": scores}))
    assert page.headlines[0].label == "macro-F1 (type), PCA-kNN"
    assert page.headlines[0].note == ""
