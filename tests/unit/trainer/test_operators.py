"""The second look: operators in the graphs of loaded modules, and files that would do harm."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from ebbing.torchscript import TorchScriptError
from trainer.export import ExportError, TorchScriptExporter, load_exported
from trainer.operators import check_graphs

Script = Callable[[str], torch.jit.ScriptModule]

INNER = """
class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1
    @torch.jit.export
    def aside(self, x: Tensor) -> Tensor:
        for _ in range(3):
            if bool(x.sum() > 0):
                x = x + torch.from_file("/etc/passwd", False, 4, dtype=torch.uint8)
        return x
class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
    def forward(self, x: Tensor) -> Tensor:
        return BODY
"""


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Scripts the class ``Model`` of a source; TorchScript wants it to be in a file."""

    def scripted(source: str) -> torch.jit.ScriptModule:
        path = tmp_path / "source.py"
        path.write_text(f"import torch\nfrom torch import Tensor, nn\n{source}")
        spec = importlib.util.spec_from_file_location("source", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
            return torch.jit.script(module.Model())

    return scripted


def saved(module: torch.jit.ScriptModule, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        torch.jit.save(module, path)
    return path


def model(*body: str) -> str:
    lines = "".join(f"        {line}\n" for line in body)
    return f"class Model(nn.Module):\n    def forward(self, x: Tensor) -> Tensor:\n{lines}"


@pytest.mark.parametrize(
    ("body", "operator"),
    [
        (['return x + torch.from_file("/etc/passwd", False, 4)'], "aten::from_file"),
        (["if bool(x.sum() > 0):", "    x = x + torch.rand(1)", "return x"], "aten::rand"),
        (["for _ in range(3):", "    x = x + torch.randn(1)", "return x"], "aten::randn"),
        (["while bool(x.sum() > 0):", "    x = torch.bernoulli(x)", "return x"], "aten::bernoulli"),
        (["y = torch.jit.fork(torch.neg, x)", "return torch.jit.wait(y)"], "prim::fork"),
        (["print(x)", "return x"], "prim::Print"),
        (['torch.save(x, "/tmp/never")', "return x"], "aten::save"),
        (["return torch.as_strided(x, [1], [1], 99)"], "aten::as_strided"),
        (["return x.resize_([100])"], "aten::resize_"),
        (["return torch.empty(3)"], "aten::empty"),
    ],
)
def test_each_look_sees_it(script: Script, tmp_path: Path, body: list[str], operator: str) -> None:
    made = script(model(*body))
    with pytest.raises(TorchScriptError, match=f"forward uses {operator}, which is not among"):
        check_graphs(made, tmp_path / "model.pt")
    with pytest.raises(TorchScriptError, match=r"model\.pt: "):
        load_exported(saved(made, tmp_path / "model.pt"))


@pytest.mark.parametrize("body", ["self.inner(x)", "self.inner.aside(x)"])
def test_in_a_method_of_a_submodule_called_or_not(
    script: Script, tmp_path: Path, body: str
) -> None:
    made = script(INNER.replace("BODY", body))
    with pytest.raises(TorchScriptError, match="uses aten::from_file"):
        check_graphs(made, tmp_path / "model.pt")
    with pytest.raises(TorchScriptError, match=r"line .*uses aten::from_file"):
        load_exported(saved(made, tmp_path / "model.pt"))


def test_nothing_runs_before_a_file_is_refused(script: Script, tmp_path: Path) -> None:
    written = tmp_path / "written"
    source = f"""
class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kept = torch.ones(1)
    def forward(self, x: Tensor) -> Tensor:
        return x
    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.kept, self.training
    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.kept = torch.from_file({str(written)!r}, True, 4)
        self.training = state[1]
"""
    path = saved(script(source), tmp_path / "model.pt")
    with pytest.raises(TorchScriptError, match="__setstate__, which would run when the file is"):
        load_exported(path)
    assert not written.exists()
    # What it was kept from: loading alone does write the file.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        torch.jit.load(path)
    assert written.exists()


def test_the_exporter_refuses_what_publishing_would(tmp_path: Path) -> None:
    class Random(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand_like(x)

    with pytest.raises(ExportError, match=r"uses aten::rand_like.*add it to ebbing/operators\.py"):
        TorchScriptExporter().export(Random(), [(torch.ones(2),)], tmp_path / "model.pt")


def test_exported_methods_survive_freezing(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

        @torch.jit.export
        def other(self, x: torch.Tensor) -> torch.Tensor:
            return x + 2

    path = tmp_path / "model.pt"
    TorchScriptExporter().export(Two(), [(torch.ones(1),)], path)
    assert load_exported(path).other(torch.ones(1)).item() == 3.0
