"""How many events the sequence model is trained on in a second, beside a public SASRec.

    git clone https://github.com/pmixer/SASRec.pytorch peer
    python -m benchmarks.training data/shop --peer peer/python --out training.json

The peer's own model and sampler are run as its main.py runs them: batches of 128 users padded to
the full length, one random negative an event, binary cross-entropy, Adam, three sampling
processes. What is counted is events that are predicted, not padding; both have the same log,
width, history length, number of blocks where it is one, threads and machine, and take turns.
It is told by the clock on the wall, which wants a machine that does nothing else, and by the CPU
time of the process that trains, which others on the machine disturb less, and which leaves out what
the peer's samplers spend in processes of their own.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.record import circumstances, keep
from ebbing.history import HISTORY_LENGTH
from ebbing.progress import Reporter
from trainer.data.log import EventLog, read_log
from trainer.place import peak_memory_bytes
from trainer.recipes import RECIPES
from trainer.retrieval import RetrievalConfig, Surroundings, train_retrieval

BATCH_USERS = 128
SAMPLERS = 3
WARM_UP = 3
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.monotonic, "cpu": time.process_time}


class Peer:
    """The training loop of SASRec.pytorch, with its own parts."""

    def __init__(self, folder: Path, log: EventLog, dim: int, blocks: int) -> None:
        sys.path.insert(0, str(folder))
        self.parts = importlib.import_module("model"), importlib.import_module("utils")
        self.log, self.dim, self.blocks = log, dim, blocks

    def rate(self, seconds: float, clock: Clock) -> float:
        """Events predicted a second over so many seconds, the first few steps aside."""
        model_of, utils = self.parts
        offsets, items = self.log.offsets, self.log.items + 1
        users = {
            user + 1: items[offsets[user] : offsets[user + 1]].tolist()
            for user in range(len(self.log.user_ids))
        }
        n_users, n_items = len(users), len(self.log.item_ids)
        arguments = SimpleNamespace(
            device="cpu", norm_first=False, hidden_units=self.dim, num_blocks=self.blocks,
            num_heads=1, dropout_rate=0.2, maxlen=HISTORY_LENGTH,
        )  # fmt: skip
        model = model_of.SASRec(n_users, n_items, arguments)
        for weights in model.parameters():
            if weights.dim() > 1:
                torch.nn.init.xavier_normal_(weights.data)
        model.train()
        adam = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
        bce = torch.nn.BCEWithLogitsLoss()
        sampler = utils.WarpSampler(
            users, n_users, n_items, BATCH_USERS, HISTORY_LENGTH, n_workers=SAMPLERS
        )
        step, predicted, started = 0, 0, clock()
        try:
            while step <= WARM_UP or clock() - started < seconds:
                if step == WARM_UP:
                    predicted, started = 0, clock()
                step += 1
                batch = [np.array(part) for part in sampler.next_batch()]
                positive, negative = model(*batch)
                there = np.where(batch[2] != 0)
                ones, zeros = torch.ones_like(positive), torch.zeros_like(negative)
                adam.zero_grad()
                loss = bce(positive[there], ones[there]) + bce(negative[there], zeros[there])
                loss.backward()
                adam.step()
                predicted += len(there[0])
            return predicted / (clock() - started)
        finally:
            sampler.close()


def ours(log: EventLog, config: RetrievalConfig, seconds: float, clock: Clock) -> float:
    """Events predicted a second over so many seconds of the recipe, all that is done counted."""
    silent = Reporter(Console(file=StringIO()))
    brief = replace(config, validation_users=16)
    around = Surroundings(clock=clock)
    return train_retrieval(log, brief, 1, silent, seconds, around).events_per_second


def main() -> None:
    """Train both in turns."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of a log")
    parser.add_argument("--peer", type=Path, required=True, help="where its model.py lies")
    parser.add_argument("--rounds", type=int, default=3, help="how often each has its turn")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long a turn is")
    parser.add_argument("--out", type=Path, help="write the result as JSON into this file")
    arguments = parser.parse_args()
    log = read_log(arguments.data)
    log = log.without(log.last_events())
    config = RECIPES["sequence"]().retrieval
    assert isinstance(config, RetrievalConfig)
    peers = {n: Peer(arguments.peer, log, config.model.dim, n) for n in (1, 2)}
    told = {}
    for by, clock in CLOCKS.items():
        rates: dict[str, list[float]] = {}
        for _ in range(arguments.rounds):
            rates.setdefault("ours", []).append(ours(log, config, arguments.seconds, clock))
            for n, peer in peers.items():
                rate = peer.rate(arguments.seconds, clock)
                rates.setdefault(f"peer, {n} block(s)", []).append(rate)
        middle = {name: float(np.median(all_of)) for name, all_of in rates.items()}
        told[by] = {
            "events_per_second": {
                name: [round(r) for r in all_of] for name, all_of in rates.items()
            },
            "ratio": {
                name: round(middle["ours"] / rate, 2)
                for name, rate in middle.items()
                if name != "ours"
            },
        }
    result: dict[str, Any] = {
        "benchmark": "training",
        "data": arguments.data.resolve().name,
        **circumstances(),
        "threads": torch.get_num_threads(),
        "dim": config.model.dim,
        "history": HISTORY_LENGTH,
        "negatives": config.negatives,
        **told,
        "peak_memory_mib": round(peak_memory_bytes() / 2**20),
    }
    print(result)
    keep(result, arguments.out)


if __name__ == "__main__":
    main()
