"""The commands of the server side. What a command runs is imported only when it runs."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import Annotated

import typer

from ebbing.cli import CommandError


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
    # A service manager stops this command as gently as a person does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
