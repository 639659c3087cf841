"""An external set: trained on one log, asked about the users of another, whom it has never seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ebbing.progress import Reporter
from trainer.data.load import load_log
from trainer.data.log import EventLog
from trainer.evaluation.of_run import measured
from trainer.evaluation.protocol import EvaluationError, external
from trainer.evaluation.ranking import EvaluationConfig, RankingEvaluation
from trainer.runs import Run
from trainer.train import TrainingRun, train_run
from trainer.trained import Trained


def evaluate_external(
    training: TrainingRun,
    other: Path,
    reporter: Reporter,
    repeats: bool | None = None,
    config: EvaluationConfig | None = None,
) -> RankingEvaluation:
    """Train a run and measure it on another log; what the logs share are items.

    Raises:
        LogError, EvaluationError, FittingError, TrainingError, ExportError, RunError: see there.
    """
    with reporter.stage("external log", 1, "logs") as stage:
        # Before the training: a log that does not read is told at once.
        theirs = load_log(other, training.reading)[0].engagements()
        stage.advance(1, events=len(theirs), users=len(theirs.user_ids))
    known = load_log(training.data, training.reading)[0].engagements()
    shared, of = Trained.on(known).among(theirs, np.arange(len(theirs)))
    if shared:
        raise EvaluationError(
            f"{shared:,} of {of:,} events are those of the log trained on, so that these users are "
            "not unseen: give two logs that share no events"
        )
    log = joined(known, theirs)
    tests = external(log, known, repeats)
    train_run(training, reporter)
    return measured(Run.read(training.out), log, tests, reporter, config)


def joined(known: EventLog, other: EventLog) -> EventLog:
    """Two logs as one, the users of the second after those of the first, items by their ids.

    What an item is about and looks like is what the first log says, where it knows it. Relations
    and profiles are left behind.

    Raises:
        EvaluationError: they have no item in common.
    """
    index = {item: number for number, item in enumerate(known.item_ids)}
    if index.keys().isdisjoint(other.item_ids):
        raise EvaluationError(
            f"none of its {len(other.item_ids):,} items is among the {len(index):,} of the log "
            "trained on: give two logs of one catalogue"
        )
    more = [number for number, item in enumerate(other.item_ids) if item not in index]
    for number in more:
        index[other.item_ids[number]] = len(index)
    place = np.array([index[item] for item in other.item_ids], np.int64)
    return EventLog.of(
        [*known.user_ids, *other.user_ids],
        [*known.item_ids, *(other.item_ids[number] for number in more)],
        [*known.interests, *(other.interests[number] for number in more)],
        np.concatenate([known.users, other.users + len(known.user_ids)]),
        np.concatenate([known.items, place[other.items]]),
        np.concatenate([known.types, other.types]),
        np.concatenate([known.times, other.times]),
        contents={
            name: np.concatenate([vectors, other.contents[name][more]])
            for name, vectors in known.contents.items()
            if name in other.contents and other.contents[name].shape[1] == vectors.shape[1]
        },
    )
