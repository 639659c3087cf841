"""The commands of the server side. What a command runs is imported only when it runs."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from ebbing.cli import CommandError


def serve(
    state: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="File of events and state, or URL.", show_default="ebbing.db"
        ),
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Folder of models and releases.", show_default="triton_repo")
    ] = None,
    release: Annotated[
        int | None,
        typer.Option(
            min=0, help="Release a new state begins with; 0 is the newest.", show_default="0"
        ),
    ] = None,
    release_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Public keys; serve only releases one of them signed."),
    ] = None,
    triton_address: Annotated[
        str | None,
        typer.Option("--triton", help="gRPC address of Triton.", show_default="127.0.0.1:8001"),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="gRPC port; 0: any.", show_default="50051")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of /metrics.", show_default="9464")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes that share the port.", show_default="1"),
    ] = None,
) -> None:
    """Run the gateway until Ctrl-C or SIGTERM; running calls are answered first.

    Every setting can also be given in the environment as EBBING_<NAME>; flags go first.

    [bold]Examples[/bold]

        ebbing serve

        ebbing serve --state /var/lib/ebbing/state.db --triton triton:8001 --host 0.0.0.0

        ebbing serve --workers 4

        ebbing serve --release-key-file /etc/ebbing/signing.key.pub

        EBBING_ALPHA=3 ebbing serve --release 4
    """
    import asyncio

    import uvloop
    from pydantic import ValidationError

    from ebbing.manifest import ManifestError
    from ebbing.signing import SigningKeyError
    from server.app import Gateway, run
    from server.errors import EbbingError
    from server.inference.errors import InferenceError
    from server.logs import configure_logs
    from server.ports import StartError
    from server.recommend.rules import RuleError
    from server.settings import Settings
    from server.state.keys import KeyFileError
    from server.workers import Serving, WorkerFailed, run_workers

    given: dict[str, Any] = {
        "state": state,
        "repository": repository,
        "release": release,
        "release_key_file": release_key_file,
        "triton": triton_address,
        "host": host,
        "port": port,
        "metrics_port": metrics_port,
        "workers": workers,
    }
    given = {name: value for name, value in given.items() if value is not None}
    configure_logs()

    def tell(gateway: Gateway) -> None:
        typer.echo(f"gateway  grpc://{gateway.address}  (release {gateway.release.release})")
        typer.echo(f"metrics  http://{gateway.metrics_address}/metrics")

    def tell_all(serving: Serving) -> None:
        typer.echo(f"gateway  grpc://{serving.address}  ({settings.workers} processes)")
        for address in serving.metrics_addresses:
            typer.echo(f"metrics  http://{address}/metrics")

    try:
        settings = Settings(**given)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            if settings.workers > 1:
                runner.run(run_workers(settings, given, tell_all))
            else:
                runner.run(run(settings, tell))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise CommandError(f"setting {name}: {first['msg']} (given: {first['input']})") from error
    except EbbingError as error:
        raise CommandError(f"{settings.state}: {error.message}") from error
    except InferenceError as error:
        detail = f" ({error.detail})" if error.detail else ""
        raise CommandError(f"{error}{detail}") from error
    except (
        KeyFileError,
        ManifestError,
        RuleError,
        SigningKeyError,
        StartError,
        WorkerFailed,
    ) as error:
        raise CommandError(str(error)) from error
    except asyncio.CancelledError:
        typer.echo("stopped before it served")


def triton(
    repository: Annotated[
        Path, typer.Option(help="Model repository; models load when the gateway asks for them.")
    ] = Path("triton_repo"),
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for the gateway.")] = 8001,
    metrics_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port for Prometheus.")
    ] = 8002,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for prepared backends.", show_default="~/.cache/ebbing"),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="File for Triton's output.", show_default="triton.log in --work"),
    ] = None,
    print_command: Annotated[
        bool,
        typer.Option(
            "--print-command",
            help="Print the command of the official Triton for this repository, run nothing.",
        ),
    ] = False,
) -> None:
    """Run the embedded Triton on the loopback interface until Ctrl-C.

    It is meant for development and tests. Production runs the official Triton over the same
    repository, on a private network, with the gateway as its only client.

    [bold]Examples[/bold]

        ebbing triton

        ebbing triton --repository triton_repo --grpc-port 9001 --metrics-port 9002

        ebbing triton --print-command      (on a machine with a GPU add --gpus=all)
    """
    from server.inference.embedded import EmbeddedConfig, EmbeddedTriton, official_command
    from server.inference.errors import TritonStartError

    if print_command:
        command = official_command(repository, grpc_port=grpc_port, metrics_port=metrics_port)
        typer.echo(shlex.join(command))
        return
    folder = work or Path.home() / ".cache" / "ebbing"
    config = EmbeddedConfig(
        repository=repository,
        work=folder,
        log=log or folder / "triton.log",
        grpc_port=grpc_port,
        metrics_port=metrics_port,
    )
    # A service manager stops this command as gently as a person does, also in the background,
    # where shells have SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with EmbeddedTriton(config) as server:
            typer.echo(f"Triton   grpc://{server.grpc_address}")
            typer.echo(f"metrics  http://127.0.0.1:{metrics_port}/metrics")
            typer.echo(f"log      {config.log}")
            server.wait()
    except TritonStartError as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        typer.echo("Triton has stopped.")
