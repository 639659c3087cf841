"""Generates the stubs in ``ebbing/v1`` from the protos: ``python protos/generate.py [OUT]``.

The stubs are committed; a test regenerates them elsewhere and compares.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent


def generate(out: Path) -> None:
    """Write the Python stubs and their types below ``out`` (the parent of ``ebbing/v1``)."""
    # protoc finds the mypy plugins on PATH; they lie beside this interpreter.
    scripts = Path(sys.executable).parent
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={ROOT}",
            f"--proto_path={files(grpc_tools) / '_proto'}",
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out={out}",
            f"--mypy_grpc_out={out}",
            *(str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("ebbing/v1/*.proto"))),
        ]
    )
    if status:
        sys.exit(f"protoc failed with status {status}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent)
