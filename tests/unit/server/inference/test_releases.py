"""Releases in service, with a Triton that only plays one."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ebbing.features import CANDIDATE_FEATURES
from ebbing.history import HISTORY_LENGTH, EncodedHistory, encode_history, item_key
from ebbing.interest.forgetting import ForgettingParameters
from ebbing.items import encode_items
from ebbing.manifest import Manifest, ManifestError, ModelFiles, sha256_of
from ebbing.signing import SigningKey, new_signing_key
from server.errors import ReleaseNotFound
from server.inference import releases as module
from server.inference.batcher import SilentObserver
from server.inference.errors import (
    InferenceFailed,
    ModelLoadError,
    TritonUnavailable,
)
from server.inference.loaded import CANDIDATE_BUCKETS, LoadedRelease
from server.inference.releases import Releases
from tests.harness.archive import write_archive
from tests.unit.server.inference.fake_triton import COMMITTED, FakeTriton, declare, publish

ROWS = (1, 2, 4, 8, 16, 32, 64)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.001)


def history(*item_ids: str) -> EncodedHistory:
    return encode_history(
        [item_key(i) for i in item_ids], range(len(item_ids)), [1] * len(item_ids), 10.0
    )


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


# Taking a release into service.


async def test_the_newest_release_is_served(
    served: Releases, repository: Path, triton: FakeTriton
) -> None:
    publish(repository, 1)
    newest = publish(repository, 10)
    loaded = await served.serve(0)
    assert loaded.release == 10
    assert loaded.manifest == newest
    assert loaded.forgetting.to_json() == ForgettingParameters.builtin().to_json()
    assert sorted(triton.loads) == [("ranking", (10,)), ("retrieval", (10,))]
    assert served.get(0) is served.get(10) is loaded


async def test_a_release_can_be_named(served: Releases, repository: Path) -> None:
    publish(repository, 1)
    publish(repository, 2)
    assert (await served.serve(1)).release == 1
    assert served.get(0).release == 1


async def test_what_is_not_in_service(served: Releases, repository: Path) -> None:
    publish(repository, 1)
    publish(repository, 2)
    with pytest.raises(ReleaseNotFound):
        served.get(0)
    await served.serve(2)
    with pytest.raises(ReleaseNotFound) as error:
        served.get(1)
    assert error.value.metadata == {"release": "1"}
    assert "in service: 2" in error.value.message


async def test_an_empty_repository(served: Releases) -> None:
    with pytest.raises(ManifestError, match="publish"):
        await served.serve(0)


async def test_a_release_that_is_not_published(served: Releases, repository: Path) -> None:
    publish(repository, 1)
    with pytest.raises(ManifestError, match="published: 1"):
        await served.serve(5)


async def test_debris_of_a_publish_is_not_served(served: Releases, repository: Path) -> None:
    publish(repository, 1)
    publish(repository, 2)
    (Manifest.folder(repository, 2) / "manifest.json").unlink()
    assert (await served.serve(0)).release == 1


@pytest.mark.parametrize("damage", ["truncated", "missing"])
@pytest.mark.parametrize("file", ["retrieval/1/model.pt", "releases/1/forgetting.json"])
async def test_a_damaged_file_is_refused_before_triton_sees_it(
    served: Releases, repository: Path, triton: FakeTriton, file: str, damage: str
) -> None:
    publish(repository, 1)
    if damage == "missing":
        (repository / file).unlink()
    else:
        (repository / file).write_bytes((repository / file).read_bytes()[:-1])
    with pytest.raises(ManifestError, match=Path(file).name):
        await served.serve(1)
    assert triton.loads == []


async def test_another_layout_is_refused(
    served: Releases, repository: Path, triton: FakeTriton
) -> None:
    publish(repository, 1, layout_digest="0" * 64)
    with pytest.raises(ManifestError, match="input layout"):
        await served.serve(1)
    assert triton.loads == []


async def test_an_encoder_is_loaded_where_a_release_has_one(
    served: Releases, repository: Path, triton: FakeTriton
) -> None:
    manifest = publish(repository, 1)
    path = repository / "item_encoder" / "1" / "model.pt"
    path.parent.mkdir(parents=True)
    shutil.copy(COMMITTED / "item_encoder" / "config.pbtxt", repository / "item_encoder")
    write_archive(path)
    encoder = ModelFiles(1, {"item_encoder/1/model.pt": sha256_of(path)})
    declare(repository, replace(manifest, models={**manifest.models, "item_encoder": encoder}))
    loaded = await served.serve(1)
    assert loaded.encodes_items
    assert sorted(triton.loads) == [
        ("item_encoder", (1,)),
        ("ranking", (1,)),
        ("retrieval", (1,)),
    ]
    placed = await loaded.place(encode_items([(("a", 1.0),)]), 5.0)
    assert placed.vectors.tolist() == [[1.0] * 4]


async def test_a_damaged_encoder_is_refused_as_any_model(
    served: Releases, repository: Path
) -> None:
    manifest = publish(repository, 1)
    encoder = ModelFiles(1, {"item_encoder/1/model.pt": "0" * 64})
    declare(repository, replace(manifest, models={**manifest.models, "item_encoder": encoder}))
    with pytest.raises(ManifestError, match="item_encoder"):
        await served.serve(1)


@pytest.mark.parametrize("models", [("retrieval",), ("retrieval", "ranking", "oracle")])
async def test_other_models_are_refused(
    models: tuple[str, ...], served: Releases, repository: Path, triton: FakeTriton
) -> None:
    manifest = publish(repository, 1)
    files = manifest.models["retrieval"]
    declare(repository, replace(manifest, models=dict.fromkeys(models, files)))
    with pytest.raises(ManifestError, match=r"release 1 has .*train and publish"):
        await served.serve(1)
    assert triton.loads == []


# Whose releases are served.


@pytest.fixture
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[SigningKey]:
    folder = tmp_path_factory.mktemp("keys")
    for number in (1, 2):
        new_signing_key(folder / f"{number}.key", bytes([number] * 32))
    return [SigningKey.read(folder / f"{number}.key") for number in (1, 2)]


async def test_only_what_a_trusted_key_signed_is_served(
    repository: Path, triton: Any, keys: list[SigningKey]
) -> None:
    ours, theirs = keys
    trusting = Releases(repository, triton, SilentObserver(), time.monotonic, 2.0, ours.trusted())
    manifest = publish(repository, 1)
    with pytest.raises(ManifestError, match=r"manifest\.json is not signed.*--key FILE"):
        await trusting.serve(1)
    declare(repository, manifest, theirs)
    with pytest.raises(ManifestError, match=f"manifest.sig is by the key {theirs.name}"):
        await trusting.serve(1)
    declare(repository, manifest, ours)
    path = Manifest.folder(repository, 1) / "manifest.json"
    path.write_text(path.read_text().replace("2026-01-02", "2026-01-03"))
    with pytest.raises(ManifestError, match=r"manifest\.json is not what manifest\.sig beside it"):
        await trusting.serve(1)
    assert triton.loads == []
    declare(repository, manifest, ours)
    assert (await trusting.serve(0)).release == 1
    await trusting.drain()


async def test_a_model_that_does_more_than_compute_is_not_served(
    served: Releases, repository: Path, triton: FakeTriton
) -> None:
    manifest = publish(repository, 1)
    path = write_archive(
        repository / "ranking" / "1" / "model.pt",
        'def f() -> Tensor:\n  return torch.from_file("/etc/passwd", False, 4)\n',
    )
    files = {"ranking/1/model.pt": sha256_of(path)}
    models = {**manifest.models, "ranking": ModelFiles(1, files)}
    declare(repository, replace(manifest, models=models))
    with pytest.raises(ManifestError, match=r"ranking/1/model\.pt: .*aten::from_file"):
        await served.serve(1)
    assert triton.loads == []


async def test_a_contract_that_disagrees_is_refused_before_anything_is_loaded(
    served: Releases, repository: Path, triton: FakeTriton
) -> None:
    publish(repository, 1)
    config = repository / "ranking" / "config.pbtxt"
    config.write_text(config.read_text().replace("HISTORY_AGES__1", "AGES__1"))
    with pytest.raises(ModelLoadError, match="HISTORY_AGES__1"):
        await served.serve(1)
    assert triton.loads == []


async def test_a_model_that_does_not_load_is_not_served(
    served: Releases, repository: Path, triton: FakeTriton
) -> None:
    publish(repository, 1)
    await served.serve(1)
    publish(repository, 2)
    triton.load_failure = ModelLoadError("damaged")
    with pytest.raises(ModelLoadError):
        await served.serve(2)
    # The one before goes on.
    assert served.get(0).release == 1


async def test_a_model_that_loads_but_does_not_answer_is_not_served(
    served: Releases, repository: Path, triton: FakeTriton
) -> None:
    publish(repository, 1)
    triton.dead = {"ranking"}
    with pytest.raises(ModelLoadError, match="ranking version 1") as error:
        await served.serve(1)
    assert error.value.detail == "the stub died"
    with pytest.raises(ReleaseNotFound):
        served.get(0)


async def test_every_shape_of_the_traffic_is_warmed_up_on_every_instance(
    served: Releases, repository: Path, triton: FakeTriton
) -> None:
    publish(repository, 4)
    await served.serve(4)
    shapes = {("retrieval", 4, ((rows, HISTORY_LENGTH),) * 3) for rows in ROWS} | {
        (
            "ranking",
            4,
            (
                *((rows, HISTORY_LENGTH),) * 3,
                (rows, count),
                (rows, count, len(CANDIDATE_FEATURES)),
            ),
        )
        for rows in ROWS
        for count in CANDIDATE_BUCKETS
    }
    assert set(triton.asked) == shapes
    # Once on each of two instances.
    assert set(triton.asked.values()) == {2}


async def test_what_triton_held_already_only_has_to_answer(
    served: Releases, repository: Path, triton: FakeTriton
) -> None:
    """A gateway that comes back to a Triton that went on running serves at once."""
    publish(repository, 4)
    await served.serve(4)
    triton.asked.clear()
    again = Releases(repository, triton, SilentObserver(), time.monotonic, 5.0)
    await again.serve(4)
    assert {(name, shapes[0][0]) for name, _, shapes in triton.asked} == {
        ("retrieval", 1),
        ("ranking", 1),
    }
    assert set(triton.asked.values()) == {2}
    await again.drain()
    triton.dead = {"ranking"}
    with pytest.raises(ModelLoadError, match="ranking version 4"):
        await Releases(repository, triton, SilentObserver(), time.monotonic, 5.0).serve(4)


# Models that get lost.


async def test_models_a_restarted_triton_does_not_hold_are_loaded_again(
    live: LoadedRelease, triton: FakeTriton
) -> None:
    triton.loads.clear()
    triton.held.clear()
    with pytest.raises(TritonUnavailable):
        await live.retrieve(history("a"), 5.0)
    await until(lambda: len(triton.held) == 2)
    assert sorted(triton.loads) == [("ranking", (3,)), ("retrieval", (3,))]
    assert (await live.retrieve(history("a"), 5.0)).keys[0] == item_key("a")


async def test_a_model_whose_process_died_is_unloaded_and_loaded(
    live: LoadedRelease, triton: FakeTriton
) -> None:
    triton.loads.clear()
    triton.dead = {"retrieval"}
    with pytest.raises(InferenceFailed):
        await live.retrieve(history("a"), 5.0)
    await until(lambda: triton.loads == [("retrieval", (3,))])
    assert triton.unloads == ["retrieval"]
    assert (await live.retrieve(history("a"), 5.0)).keys[0] == item_key("a")


async def test_a_triton_that_is_down_is_waited_for(live: LoadedRelease, triton: FakeTriton) -> None:
    triton.loads.clear()
    triton.ready = False
    triton.held.clear()
    for _ in range(3):
        with pytest.raises(TritonUnavailable):
            await live.retrieve(history("a"), 5.0)
        await asyncio.sleep(0.01)
    assert triton.loads == []
    triton.ready = True
    await until(lambda: len(triton.held) == 2)
    assert (await live.retrieve(history("a"), 5.0)).oov_count == 2


async def test_a_failure_that_was_none_of_the_models_changes_nothing(
    live: LoadedRelease, served: Releases, triton: FakeTriton
) -> None:
    triton.loads.clear()
    served._doubt()
    task = served._restoring
    assert task is not None
    served._doubt()
    assert served._restoring is task
    await task
    assert triton.loads == triton.unloads == []


async def test_files_damaged_meanwhile_are_not_loaded_again(
    live: LoadedRelease, repository: Path, triton: FakeTriton
) -> None:
    triton.loads.clear()
    triton.held.clear()
    model = repository / "retrieval" / "3" / "model.pt"
    whole = model.read_bytes()
    model.write_bytes(b"")
    with pytest.raises(TritonUnavailable):
        await live.retrieve(history("a"), 5.0)
    await asyncio.sleep(0.02)
    assert triton.loads == []
    model.write_bytes(whole)
    await until(lambda: len(triton.held) == 2)


# Stopping.


async def test_draining_answers_what_runs_and_refuses_the_rest(
    live: LoadedRelease, served: Releases
) -> None:
    running = asyncio.create_task(live.retrieve(history("a"), 5.0))
    await asyncio.sleep(0)
    await served.drain()
    assert (await running).keys[0] == item_key("a")
    with pytest.raises(TritonUnavailable):
        await live.retrieve(history("a"), 5.0)


async def test_draining_does_not_wait_for_a_triton_that_is_down(
    live: LoadedRelease, served: Releases, triton: FakeTriton
) -> None:
    triton.ready = False
    with pytest.raises(TritonUnavailable):
        await live.retrieve(history("a"), 5.0)
    async with asyncio.timeout(5):
        await served.drain()
