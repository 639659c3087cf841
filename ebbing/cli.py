"""The ``ebbing`` command: one program whose sub-commands come from entry points.

Server and trainer each bring their own commands, so that installing one never needs the other.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

__all__ = ["CommandError", "main", "nobody_answers"]

GROUP = "ebbing.commands"


class CommandError(Exception):
    """A failure to tell the person at the terminal in one line: what is wrong, and the remedy."""


def nobody_answers(address: str) -> str:
    """What to tell of a gateway that is not there."""
    return (
        f"no gateway answers at {address}: start one with 'ebbing serve', or name its address with"
        " --address"
    )


def main() -> None:
    """Run the command line; exits non-zero with one clear line on failure."""
    try:
        import typer
    except ModuleNotFoundError:
        sys.exit("ebbing: the command line needs an extra: pip install 'ebbing[server]'")

    app = typer.Typer(
        name="ebbing",
        help="gRPC serving for recommenders whose users' interests evolve and fade.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    missing = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        try:
            command = entry.load()
        except ModuleNotFoundError as error:
            missing[entry.name] = error.name
            continue
        if isinstance(command, typer.Typer):  # a group of commands
            app.add_typer(command, name=entry.name)
        else:
            app.command(entry.name)(command)
    if len(sys.argv) > 1 and (module := missing.get(sys.argv[1])):
        sys.exit(
            f"ebbing {sys.argv[1]}: {module} is not installed: "
            "pip install 'ebbing[server]' or 'ebbing[trainer]'"
        )
    try:
        app()
    except CommandError as error:
        sys.exit(f"ebbing: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
