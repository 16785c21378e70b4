"""One page over several results."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from metahpo_jax.errors import ConfigError, StoreError
from metahpo_jax.evaluation import page
from metahpo_jax.evaluation.results import BenchmarkResult, MethodRun, save
from metahpo_jax.evaluation.table import Cell

EVIL = "<script>alert('x')</script>"
NAMES = ("random", "portfolio", "gp", "pretrained_gp")


def make_result(benchmark="lcbench", names=NAMES, tasks=6, trials=30, published=(), **fields):
    rng = np.random.default_rng(len(names))
    runs = []
    for i, name in enumerate(names):
        steps = rng.uniform(0.2, 1.0, (tasks, 2, trials)) / (1 + i)
        regret = np.minimum.accumulate(steps, axis=-1)
        source = "authors' files" if name in published else ""
        runs.append(MethodRun(name, regret, None if source else regret, published=source))
    return BenchmarkResult(
        benchmark,
        "Leave one data set out.",
        tuple(f"t{i}" for i in range(tasks)),
        tuple(f"g{i}" for i in range(tasks)),
        tuple(runs),
        versions={"jax": "0.10.2"},
        command="metahpo bench --benchmark lcbench",
        **fields,
    )


class Outline(HTMLParser):
    """Headings in order, and the ids of the page."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.ids, self.links, self._open = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.ids += [known["id"]] if "id" in known else []
        self.links += [known["href"]] if "href" in known else []
        if tag in ("h2", "h3"):
            self._open = tag
            self.headings.append((tag, ""))

    def handle_endtag(self, tag):
        self._open = None if tag == self._open else self._open

    def handle_data(self, data):
        if self._open:
            self.headings[-1] = (self._open, self.headings[-1][1] + data)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    save(make_result(), folder / "a.json")
    other = make_result(EVIL, (*NAMES[:2], EVIL, "FSBO2 (published)"), published=("FSBO2 (published)",), starts=5)
    save(other, folder / "b.json")
    page.page_from_files([folder / "a.json", folder / "b.json"], folder / "all.html", title="All", lead="Both.")
    return (folder / "all.html").read_text()


def test_every_benchmark_has_its_sections(text):
    outline = Outline(text)
    assert [name for tag, name in outline.headings if tag == "h2"] == ["Overview", "lcbench", EVIL]
    inner = [name for tag, name in outline.headings if tag == "h3"]
    expected = [
        "Results",
        "Regret",
        "Rank",
        "Critical difference at 5 trials",
        "Critical difference at 20 trials",
        "In words",
        "How it was made",
    ]
    assert inner == expected * 2
    assert text.count("<svg") == text.count("</svg>") == 8
    assert len(outline.ids) == len(set(outline.ids))
    assert {link[1:] for link in outline.links} <= set(outline.ids)


def test_the_page_says_what_matters(text):
    words = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    assert "pretrained_gp is below random at 1, 5, 10 and 20 trials;" in words
    assert "not corrected for the number of comparisons" in words
    assert "Friedman&#x27;s test that all rank alike: p " in words
    assert "metahpo bench --benchmark lcbench" in words and "jax 0.10.2" in words
    assert "Published, not run by us: FSBO2 (published) (from authors&#x27; files)." in words
    assert "counted after 5 given evaluations" in words


def test_the_page_is_safe(text):
    assert "<script" not in text.lower() and "&lt;script&gt;" in text
    assert "default-src 'none'" in text
    rest = text.replace("http-equiv", "")
    assert "http" not in rest and "src=" not in rest and "@import" not in rest


def test_overview_marks_the_best_of_each_column():
    few = make_result("few", ("random", "gp"), trials=3)
    table = page.overview([make_result(), few])
    assert table.columns == ["method", "lcbench @5", "lcbench @20", "few @1"]
    rows = [[cell for cell in row if isinstance(cell, Cell)] for row in table.rows]
    assert [row[0].text for row in rows] == list(NAMES)
    best = [[cell.text for cell in column if cell.best] for column in zip(*rows, strict=True)]
    assert [len(column) for column in best] == [0, 1, 1, 1]
    assert [row[3].text == "–" for row in rows] == [False, True, False, True]
    run = few.runs[1]
    assert rows[2][3].text == f"{run.regret[..., 0].mean():.3f}".removeprefix("0")


@pytest.mark.parametrize(
    ("budgets", "trials", "expected"),
    [
        ((1, 5, 10, 20, 50), 100, [5, 50]),
        ((5, 10, 25, 50, 100), 100, [5, 100]),
        ((2, 8), 30, [2, 8]),
        ((1, 5), 5, [5]),
        ((50,), 30, [30]),
    ],
)
def test_a_summary_shows_an_early_and_the_last_budget(budgets, trials, expected):
    assert page.early_and_last(make_result(trials=trials, budgets=budgets)) == expected


def test_one_method_alone_has_no_ranks():
    headings = [section.heading for section in page.benchmark_sections(make_result(names=("random",)))]
    assert headings == ["Results", "Regret", "How it was made"]


def test_a_page_of_eight_large_results_stays_small(tmp_path):
    names = tuple(f"portfolio_then_empirical_{i}" for i in range(14))
    path = tmp_path / "one.html"
    page.write_page(path, [make_result(names=names, trials=500, budgets=(5, 100))])
    assert path.stat().st_size < 3e6 / 8


@pytest.mark.parametrize(
    ("call", "error", "word"),
    [
        (lambda folder: page.write_page(folder / "p.html", []), ConfigError, "at least one result"),
        (lambda folder: page.write_page(folder / "p.pdf", [make_result()]), ConfigError, r"\.html"),
        (lambda folder: page.page_from_files([folder / "no.json"], folder / "p.html"), StoreError, "does not exist"),
    ],
)
def test_pages_that_cannot_be_written(tmp_path, call, error, word):
    with pytest.raises(error, match=word):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []
