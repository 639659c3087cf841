"""The operators of a loaded TorchScript module, seen where they run: in its graphs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ebbing.operators import allowed
from ebbing.torchscript import TorchScriptError, not_allowed


def check_graphs(module: torch.jit.ScriptModule, path: Path) -> None:
    """Refuse a module of which any method, of it or what it holds, uses an operator it may not.

    The text of the file has been read by `ebbing.torchscript.check_archive` before it was loaded.
    This is the second look: whatever the text was taken for, these are the operators that run.

    Raises:
        TorchScriptError: names the file, the method and the operator.
    """
    for name, held in module.named_modules():
        for method in held._c._method_names():
            graph = held._c._get_method(method).graph.copy()
            torch._C._jit_pass_inline(graph)
            for operator in operators_of(graph):
                if not allowed(operator):
                    where = ".".join(filter(None, [name, method]))
                    raise TorchScriptError(not_allowed(operator, f"{path}: {where}"))


def operators_of(graph: Any) -> Iterator[str]:
    """Kinds of all nodes of a graph: in branches, loops and the graphs that nodes hold, too."""
    for node in graph.nodes():
        yield node.kind()
        for block in node.blocks():
            yield from operators_of(block)
        for attribute in node.attributeNames():
            if node.kindOf(attribute) == "g":
                yield from operators_of(node.g(attribute))
            elif node.kindOf(attribute) == "gs":
                for held in node.gs(attribute):
                    yield from operators_of(held)
