"""Every recipe trains on the article's three files; a log that none can train on is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ebbing.progress import Reporter
from trainer.data.examples import WRITERS
from trainer.data.log import LogError
from trainer.data.simulate import SimulationConfig, simulate
from trainer.evaluation.protocol import EvaluationError
from trainer.models.mlp import MlpConfig
from trainer.models.ncf import NcfConfig
from trainer.models.ranker import RankerConfig
from trainer.recipes import RECIPES, Recipe
from trainer.retrieval import RetrievalConfig
from trainer.train import TrainingRun, train_run


@pytest.fixture(scope="module")
def three_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`user_data.csv`, `item_data.csv` and `labels.csv`."""
    folder = tmp_path_factory.mktemp("article")
    WRITERS["article"](simulate(SimulationConfig(users=40, items=240, days=150)), folder)
    return folder


def quick(name: str) -> Recipe:
    """A recipe as it is, but for how long it takes."""
    recipe = RECIPES[name]()
    ranking = replace(
        recipe.ranking, epochs=2, examples=replace(recipe.ranking.examples, events=100)
    )
    retrieval = RetrievalConfig(epochs=1, warmup_steps=5)
    return replace(recipe, retrieval=retrieval, ranking=ranking)


@pytest.mark.parametrize(
    ("name", "model"),
    [("article_mlp", MlpConfig), ("article_ncf", NcfConfig), ("sequence", RankerConfig)],
)
def test_the_articles_files_train_it(
    name: str, model: type, three_files: Path, tmp_path: Path, reporter: Reporter
) -> None:
    recipe = quick(name)
    assert isinstance(recipe.ranking.model, model)
    result = train_run(TrainingRun(three_files, tmp_path / "run", recipe), reporter)
    assert result["recipe"] == name
    assert ("item_encoder" in result["metrics"]) == (name == "sequence")
    assert ("item_encoder/model.pt" in result["files"]) == (name == "sequence")
    assert result["parity"]["ranking"] <= result["parity"]["tolerance"]
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    for measure in ("HR@10", "NDCG@10", "MRR", "AUC", "precision", "recall", "F1", "coverage"):
        assert measure in report, measure
    assert ("item encoder" in report) == (name == "sequence")


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_are_named_as_they_are_called(name: str) -> None:
    assert RECIPES[name]().name == name


@pytest.mark.parametrize("name", ["article_mlp", "article_ncf", "sequence"])
def test_a_log_of_one_user_is_refused(name: str, tmp_path: Path, reporter: Reporter) -> None:
    rows = "".join(f"u,i{n},click,{1_700_000_000 + n * 86_400}\n" for n in range(30))
    (tmp_path / "events.csv").write_text("user_id,item_id,event_type,event_time\n" + rows)
    items = "".join(f"i{n},a/b\n" for n in range(30))
    (tmp_path / "items.csv").write_text("item_id,interests\n" + items)
    with pytest.raises((LogError, EvaluationError), match="users"):
        train_run(TrainingRun(tmp_path, tmp_path / "run", quick(name)), reporter)
    assert not (tmp_path / "run").exists()
