from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ebbing.history import item_keys
from ebbing.progress import Reporter
from tests.unit.trainer.conftest import TINY
from trainer.data.log import EventLog, read_log
from trainer.models.sequence import SequenceConfig, SequenceModel
from trainer.models.vocabulary import FIRST_ITEM_ROW, Vocabulary
from trainer.place import TrainingError
from trainer.recipes import RECIPES
from trainer.retrieval import RetrievalConfig, Surroundings, train_retrieval
from trainer.runs import RunError
from trainer.train import TrainingRun, train_run
from trainer.trained import Trained
from trainer.warm_start import WEIGHTS, Earlier, Weights, carry_over

CONFIG = SequenceConfig(dim=16)
TOPICS, EACH = 4, 12


def vocabulary_of(items: range) -> tuple[Vocabulary, list[list[tuple[str, float]]]]:
    """A catalogue of numbered items, and the topic of each in the order of its rows."""
    numbered = zip(item_keys([f"i{n}" for n in items]).tolist(), items, strict=True)
    keys, order = zip(*sorted(numbered), strict=True)
    return Vocabulary(keys), [[(f"topic-{n % TOPICS}", 1.0)] for n in order]


@pytest.fixture
def earlier(trained: Path) -> Earlier:
    """A run whose items lie around their topics."""
    vocabulary, interests = vocabulary_of(range(TOPICS * EACH))
    torch.manual_seed(1)
    model = SequenceModel(interests, CONFIG)
    with torch.no_grad():
        model.items.interest.weight.normal_()
        model.items.own.weight.normal_(std=0.1)
        model.popularity.normal_()
    return replace(Earlier.read(trained), weights=Weights.of(model, vocabulary, CONFIG))


def test_what_both_know_is_as_it_was(earlier: Earlier) -> None:
    vocabulary, interests = vocabulary_of(range(TOPICS, TOPICS * EACH + 8))
    model = SequenceModel(interests, CONFIG)
    assert carry_over(earlier, model, vocabulary, CONFIG) == TOPICS * (EACH - 1)
    weights, now = earlier.weights, model.state_dict()
    rows = vocabulary(weights.keys)
    both = rows >= FIRST_ITEM_ROW
    where = torch.cat([torch.zeros(FIRST_ITEM_ROW, dtype=torch.bool), both])
    for name in ("items.own.weight", "popularity"):
        torch.testing.assert_close(now[name][rows[both]], weights.model[name][where])
        special = slice(FIRST_ITEM_ROW)
        torch.testing.assert_close(now[name][special], weights.model[name][special])
    for n, name in enumerate(weights.interests):
        there = model.items.names.index(name)
        was = weights.model["items.interest.weight"][n]
        torch.testing.assert_close(model.items.interest.weight[there], was)
    for name in now:
        if name.startswith("reader."):
            torch.testing.assert_close(now[name], weights.model[name])


def test_a_new_item_begins_among_its_siblings(earlier: Earlier) -> None:
    vocabulary, interests = vocabulary_of(range(TOPICS * EACH + TOPICS))
    model = SequenceModel(interests, CONFIG)
    carry_over(earlier, model, vocabulary, CONFIG)
    vectors = nn.functional.normalize(model.items()[FIRST_ITEM_ROW:], dim=1)
    topic = torch.tensor([int(pairs[0][0].removeprefix("topic-")) for pairs in interests])
    new = ~torch.isin(vocabulary.keys, earlier.weights.keys)
    assert new.sum() == TOPICS
    middles = torch.stack([vectors[~new & (topic == n)].mean(dim=0) for n in range(TOPICS)])
    assert (vectors[new] @ middles.T).argmax(dim=1).tolist() == topic[new].tolist()


def test_items_nobody_shares_begin_anew(earlier: Earlier) -> None:
    vocabulary, interests = vocabulary_of(range(1000, 1010))
    model = SequenceModel(interests, CONFIG)
    assert carry_over(earlier, model, vocabulary, CONFIG) == 0
    assert model.items().isfinite().all()


@pytest.mark.parametrize(
    "other", [{"dim": 32}, {"heads": 1}, {"told_now": False}, {"short_term": False}]
)
def test_another_shape_is_refused(other: dict[str, int], earlier: Earlier) -> None:
    vocabulary, interests = vocabulary_of(range(10))
    config = replace(CONFIG, **other)
    model = SequenceModel(interests, config)
    with pytest.raises(TrainingError, match="another shape"):
        carry_over(earlier, model, vocabulary, config)


@pytest.mark.parametrize("recipe", ["popular", "sequence_xl"])
def test_what_cannot_go_on_says_so(
    recipe: str, earlier: Earlier, data: Path, reporter: Reporter
) -> None:
    config = RECIPES[recipe]().retrieval
    if isinstance(config, RetrievalConfig):
        config = replace(config, model=CONFIG, epochs=1)
    with pytest.raises(TrainingError, match="leave out --from"):
        train_retrieval(read_log(data), config, 1, reporter, earlier=earlier)


@pytest.fixture(scope="module")
def first(train_tiny: Callable[..., dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    train_tiny(folder, until="70%")
    return folder


def test_a_run_goes_on_from_another(
    first: Path, data: Path, tmp_path: Path, reporter: Reporter
) -> None:
    one_more = replace(TINY, retrieval=replace(TINY.retrieval, epochs=1))
    asked = TrainingRun(data, tmp_path / "second", one_more, until="85%", start=first)
    second = train_run(asked, reporter)
    told = second["started_from"]
    assert told["run"] == first.name
    assert told["window"]["last"] < second["window"]["last"]
    assert told["weights"] == json.loads((first / "run.json").read_text())["files"][WEIGHTS]
    assert "went on from the run" in (asked.out / "report.md").read_text()
    # What either was trained on is no test of it.
    kept, before = Trained.read(asked.out / "trained.npy"), Trained.read(first / "trained.npy")
    assert set(before.marks.tolist()) < set(kept.marks.tolist())


def test_one_epoch_more_is_better_than_one_from_nothing(
    first: Path, data: Path, reporter: Reporter
) -> None:
    log, config = read_log(data), replace(TINY.retrieval, epochs=1)
    anew = train_retrieval(log, config, 1, reporter)
    further = train_retrieval(log, config, 1, reporter, earlier=Earlier.read(first))
    assert further.curves[0].train_loss < anew.curves[0].train_loss


def test_training_that_only_worsens_is_left(first: Path, data: Path, reporter: Reporter) -> None:
    """The model as it began is the best, if no epoch validates better."""
    earlier, log = Earlier.read(first), read_log(data)
    config = replace(TINY.retrieval, epochs=1, learning_rate=0.3, warmup_steps=1)
    further = train_retrieval(log, config, 1, reporter, earlier=earlier)
    assert further.best["epoch"] == 0
    vocabulary = further.vocabulary
    weights = earlier.weights.model["popularity"][FIRST_ITEM_ROW:]
    torch.testing.assert_close(further.model.popularity[vocabulary(earlier.weights.keys)], weights)


def test_what_it_was_trained_on_validates_nothing(
    first: Path, data: Path, reporter: Reporter
) -> None:
    log, earlier = read_log(data), Earlier.read(first)
    known = earlier.trained.knows(log)
    assert 0 < known.sum() < len(log)
    further = train_retrieval(log, TINY.retrieval, 1, reporter, earlier=earlier)
    assert len(further.untrained)
    assert not known[further.untrained].any()


def test_tests_that_it_was_trained_on_are_refused(
    first: Path, data: Path, tmp_path: Path, reporter: Reporter
) -> None:
    out = tmp_path / "out"
    with pytest.raises(TrainingError, match=r"was trained on \d+ of \d+ tests of .*--until"):
        train_run(TrainingRun(data, out, TINY, until="50%", start=first), reporter)
    assert not out.exists()


def test_a_run_is_not_written_over_what_it_goes_on_from(
    run: Path, data: Path, reporter: Reporter
) -> None:
    with pytest.raises(TrainingError, match="one folder"):
        train_run(TrainingRun(data, run, TINY, start=run / "."), reporter)
    assert Earlier.read(run)


def test_a_folder_that_is_no_run_is_named(data: Path, tmp_path: Path, reporter: Reporter) -> None:
    with pytest.raises(RunError, match=r"run\.json is missing"):
        train_run(TrainingRun(data, tmp_path / "out", TINY, start=tmp_path), reporter)


def test_another_start_is_another_training(
    first: Path, log: EventLog, tmp_path: Path, reporter: Reporter
) -> None:
    config = replace(TINY.retrieval, epochs=1)
    kept = tmp_path / "checkpoint.pt"
    train_retrieval(log, config, 1, reporter, around=Surroundings(checkpoint=kept))
    again = Surroundings(checkpoint=kept, resume=True)
    with pytest.raises(TrainingError, match=r"another start.*--from"):
        train_retrieval(log, config, 1, reporter, around=again, earlier=Earlier.read(first))


@pytest.fixture(scope="module")
def log(data: Path) -> EventLog:
    return read_log(data)
