"""``ebbing demo``: the whole loop, from a log to a recommendation and what became of interest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with a log of your own (events.csv[.gz], items.csv[.gz]).",
            show_default="a generated log",
        ),
    ] = None,
    leave: Annotated[
        bool, typer.Option("--exit", help="Stop after the story instead of serving on.")
    ] = False,
    repository: Annotated[
        Path, typer.Option(help="Triton model repository to publish into and serve from.")
    ] = Path("triton_repo"),
    work: Annotated[Path, typer.Option(help="Folder for data, run, state and logs.")] = Path(
        ".demo"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="gRPC port of the gateway.")] = 50051,
    metrics_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the gateway's /metrics.")
    ] = 9464,
    seed: Annotated[int, typer.Option(help="Seed of the generated log and of training.")] = 7,
) -> None:
    """Train, publish and serve, then watch one user's interests evolve and fade.

    Generates a log (or takes yours), trains the models on it, publishes them as a release, starts
    Triton and the gateway, replays the log through the gateway's own API, and tells the story of
    one user's interests from the answers. Then it keeps serving until Ctrl-C.

    [bold]Examples[/bold]

        ebbing demo

        ebbing demo --exit

        ebbing demo --data data/shop --work .demo-shop
    """
    import signal

    from ebbing.cli import CommandError
    from ebbing.client import EbbingError
    from ebbing.demo.narrator import Narrator
    from ebbing.demo.stage import Stage

    # A service manager stops the demonstration as gently as a person does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stage = Stage(repository, work, port, metrics_port, seed, Narrator())
    try:
        stage.play(data, stay=not leave)
    except EbbingError as error:
        raise CommandError(
            f"the gateway answered {error}; its log is {stage.gateway_log}"
        ) from error
    except OSError as error:
        raise CommandError(str(error)) from error
