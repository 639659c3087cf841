"""Better than the newest release, on the same tests; or a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebbing.history import LAYOUT_DIGEST
from ebbing.manifest import MANIFEST, Manifest
from ebbing.progress import Reporter
from trainer.comparison import METRIC, Comparison, NotBetterError, decide, digest_of_tests
from trainer.data.load import DataConfig, load_log
from trainer.evaluation.protocol import leave_one_out
from trainer.runs import Run

OTHER = "full_catalogue.retrieval.mrr"


def figures(value: Any, other: float = 0.0) -> dict[str, Any]:
    return {"full_catalogue": {"retrieval": {"ndcg_at_10": value, "mrr": other}}}


def run(metrics: dict[str, Any], digest: str | None = "a") -> Run:
    return Run(Path("runs/new"), {"metrics": metrics, "tests_digest": digest})


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A repository with the manifest of a release whose NDCG was .05."""
    folder = Manifest.folder(tmp_path, 3)
    folder.mkdir(parents=True)
    manifest = Manifest(
        3, "2025-06-01T00:00:00+00:00", LAYOUT_DIGEST, {}, "", {}, figures(0.05, 0.02), {}
    )
    (folder / MANIFEST).write_text(replace(manifest, training={"tests_digest": "a"}).to_json())
    return tmp_path


def test_the_first_release_is_always_better(tmp_path: Path, reporter: Reporter) -> None:
    decided = decide(run(figures(0.01)), tmp_path, Comparison(force="unneeded"), reporter)
    assert decided == {"metric": METRIC, "value": 0.01}
    assert decide(run({}), tmp_path, Comparison(), reporter)["value"] is None


def test_a_better_one_says_than_what(released: Path, reporter: Reporter) -> None:
    decided = decide(run(figures(0.06)), released, Comparison(), reporter)
    assert decided == {
        "metric": METRIC,
        "value": 0.06,
        "release": 3,
        "its_value": 0.05,
        "on": "the tests of training",
    }


@pytest.mark.parametrize("value", [0.05, 0.049, 0, -1, float("nan")])
def test_what_is_not_better_is_refused(released: Path, reporter: Reporter, value: float) -> None:
    with pytest.raises(NotBetterError, match=r"runs/new is not better than release 3: .*--force"):
        decide(run(figures(value)), released, Comparison(), reporter)
    decided = decide(run(figures(value)), released, Comparison(force="a demo"), reporter)
    assert decided["forced"] == "a demo"
    assert "is not better than release 3" in decided["refused_because"]


def test_the_metric_can_be_another(released: Path, reporter: Reporter) -> None:
    with pytest.raises(NotBetterError, match=f"{OTHER} is 0.01, and was 0.02"):
        decide(run(figures(0.9, 0.01)), released, Comparison(OTHER), reporter)
    decided = decide(run(figures(0.01, 0.03)), released, Comparison(OTHER), reporter)
    assert decided["its_value"] == 0.02


@pytest.mark.parametrize("metric", ["no.such", "full_catalogue", "full_catalogue.retrieval.x", ""])
def test_a_metric_that_is_not_there(released: Path, reporter: Reporter, metric: str) -> None:
    with pytest.raises(NotBetterError, match=rf"has no metric {metric}: .*--metric, such as"):
        decide(run(figures(0.9)), released, Comparison(metric), reporter)


@pytest.mark.parametrize("digest", ["b", None])
def test_figures_of_other_tests_say_nothing(
    released: Path, reporter: Reporter, digest: str | None
) -> None:
    with pytest.raises(NotBetterError, match=r"measured on different tests.*--data DIR.*--force"):
        decide(run(figures(0.9), digest), released, Comparison(), reporter)


def test_a_newest_release_that_does_not_read(released: Path, reporter: Reporter) -> None:
    (Manifest.folder(released, 3) / MANIFEST).write_text("{")
    with pytest.raises(NotBetterError, match=r"manifest\.json does not read.*--force REASON"):
        decide(run(figures(0.9)), released, Comparison(), reporter)
    decided = decide(run(figures(0.9)), released, Comparison(force="it is damaged"), reporter)
    assert decided["forced"] == "it is damaged"


def test_the_digest_is_of_who_is_asked_when_for_what(data: Path) -> None:
    log, _ = load_log(data, DataConfig())
    tests = leave_one_out(log)
    digest = digest_of_tests(log, tests)
    assert digest == digest_of_tests(log, leave_one_out(log))
    others = [
        replace(tests, events=tests.events[1:]),
        replace(tests, events=np.append(tests.events[1:], tests.events[0] - 1)),
        replace(tests, repeats=not tests.repeats),
        replace(tests, protocol="temporal"),
    ]
    assert len({digest, *(digest_of_tests(log, other) for other in others)}) == 5
    # More to train on changes nothing of what is asked.
    assert digest == digest_of_tests(log, replace(tests, repeat_share=0.5, alone=7))
