"""What the gateway serves is what evaluation measures: the same places for what users took next."""

from __future__ import annotations

import numpy as np

from ebbing.v1 import recommendation_service_pb2 as pb
from server.recommend.slates import RecommenderConfig
from tests.harness.gateway import StartGateway, catalogue, events
from tests.harness.release import TinyRelease
from trainer.evaluation.protocol import leave_one_out
from trainer.evaluation.reranking import rerank
from trainer.latency import CANDIDATES
from trainer.models.sequence import TOP_K
from trainer.retriever import Retriever
from trainer.runs import Run

SLATE = 100


def test_all_that_retrieval_offers_is_ranked() -> None:
    # Evaluation ranks it all, and latency is measured of as many.
    assert RecommenderConfig().candidates == CANDIDATES == TOP_K


def test_slates_before_last_events_are_those_of_the_evaluation(
    release: TinyRelease, start_gateway: StartGateway
) -> None:
    log, run = release.simulation.log, Run.read(release.run)
    tests = leave_one_out(log.engagements())
    # The generated log has nothing but engagements, so that event numbers are the same.
    assert len(tests.known) + len(log.last_events()) == len(log)
    offline = rerank(
        log,
        tests.events,
        Retriever(run.model("retrieval"), log),
        run.model("ranking"),
        run.forgetting(),
        tests.repeats,
        np.random.default_rng(7),
    ).ranks["retrieval_plus_ranking"]
    sent = events(release.simulation)
    held = set(log.last_events().tolist())
    gateway = start_gateway(forgetting_share=0.0)
    with gateway.client() as client:
        client.write_items(catalogue(release.simulation))
        client.write_events(event for row, event in enumerate(sent) if row not in held)
        asked = (
            pb.RecommendItemsRequest(
                user_id=sent[row].user_id,
                at=sent[row].event_time,
                page_size=SLATE,
                include_seen=tests.repeats,
            )
            for row in tests.events.tolist()
        )
        slates = [result.slate for result in client.stream_recommendations(asked)]
    places = []
    for row, slate in zip(tests.events.tolist(), slates, strict=True):
        ids = [item.item_id for item in slate.items]
        places.append(ids.index(sent[row].item_id) + 1 if sent[row].item_id in ids else SLATE + 1)
    assert places == np.minimum(offline, SLATE + 1).tolist()
    assert min(places) <= 10
