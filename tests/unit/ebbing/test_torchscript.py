"""TorchScript read as text: what a model may do, and what is refused before anything is loaded."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest

from ebbing.operators import allowed
from ebbing.torchscript import TorchScriptError, check_archive
from tests.harness.archive import NOTHING, write_archive

MODEL = """
class Inner(Module):
  __parameters__ = ["weight", ]
  __buffers__ = []
  weight : Tensor
  scale : Final[float] = 2.
  def forward(self: __torch__.Inner,
    x: Tensor) -> Tensor:
    weight = self.weight
    return torch.linear(x, weight, None)
class Outer(Module):
  __parameters__ = []
  __buffers__ = []
  inner : __torch__.Inner
  __annotations__["0"] = __torch__.Inner
  def forward(self: __torch__.Outer,
    x: Tensor) -> Tensor:
    inner = self.inner
    zero = getattr(self, "0")
    helper = __torch__.helper
    y = (inner).forward((zero).forward(x, ), )
    for i in range(torch.len(torch.size(x))):
      if bool(torch.gt(torch.sum(y), 0)):
        y0 = helper(y, )
      else:
        ops.prim.RaiseException("negative")
        y0 = torch.masked_fill(y, torch.isinf(y), -inf)
      y = y0
    _0 = annotate(List[Optional[Tensor]], [y])
    _1 = __torch__.Pair(y, CONSTANTS.c0)
    return torch.index(y, _0)
class Pair(NamedTuple):
  one : Tensor
  two : Tensor
def helper(x: Tensor,
    scale: float=1.) -> Tensor:
  x0 = torch.mul_(x, scale)
  return unchecked_cast(Tensor, x0)
"""


def refused(tmp_path: Path, code: str) -> str:
    with pytest.raises(TorchScriptError) as caught:
        check_archive(write_archive(tmp_path / "model.pt", code))
    assert str(caught.value).startswith(str(tmp_path / "model.pt"))
    return str(caught.value)


def in_a_function(*lines: str) -> str:
    return "def f(x: Tensor) -> Tensor:\n" + "".join(f"  {line}\n" for line in (*lines, "return x"))


def test_what_models_do_is_fine(tmp_path: Path) -> None:
    check_archive(write_archive(tmp_path / "model.pt", MODEL))


@pytest.mark.parametrize(
    ("line", "operator"),
    [
        ('y = torch.from_file("/etc/passwd", False, 4)', "aten::from_file"),
        ('torch.save(x, "/tmp/x")', "aten::save"),
        ('y = ops.aten.from_file("/etc/passwd", False, 4)', "aten::from_file"),
        ("y = ops.quantized.anything(x)", "quantized::anything"),
        ("y = ops.prim.rpc_async(x)", "prim::rpc_async"),
        ("ops.prim.Print(x)", "prim::Print"),
        ("y = torch.rand([1])", "aten::rand"),
        ("y = torch.empty([1])", "aten::empty"),
        ("y = torch.as_strided(x, [9], [1])", "aten::as_strided"),
        ("f = torch.from_file", "aten::from_file"),
        ("y = [torch.neg(x), torch.from_file('f', True, 1)]", "aten::from_file"),
        ("y = torch.ops(x)", "aten::ops"),
    ],
)
def test_other_operators_are_refused_by_name(tmp_path: Path, line: str, operator: str) -> None:
    said = refused(tmp_path, in_a_function(line))
    assert f"__torch__.f, line 2, uses {operator}, which is not among the operators" in said


@pytest.mark.parametrize(
    "lines",
    [
        ("for i in range(3):", '  y = torch.from_file("f", True, 1)'),
        ("if True:", "  pass", "else:", '  y = torch.from_file("f", True, 1)'),
        ("while True:", '  y = torch.neg(torch.from_file("f", True, 1))'),
        ('y = annotate(Tensor, torch.from_file("f", True, 1))',),
        ('y = [torch.neg(x)][torch.size(torch.from_file("f", True, 1), 0)]',),
        ('y = torch.add(x, 1, alpha=torch.from_file("f", True, 1))',),
    ],
)
def test_however_deep_they_hide(tmp_path: Path, lines: tuple[str, ...]) -> None:
    assert "uses aten::from_file" in refused(tmp_path, in_a_function(*lines))


def test_in_any_method_of_any_class(tmp_path: Path) -> None:
    hidden = MODEL.replace(
        "class Pair",
        """  def aside(self: __torch__.Outer) -> Tensor:
    return torch.from_file("f", True, 1)
class Pair""",
    )
    assert "__torch__.aside, line" in refused(tmp_path, hidden)
    default = MODEL.replace("scale: float=1.", 'scale: Tensor=torch.from_file("f", True, 1)')
    assert "uses aten::from_file" in refused(tmp_path, default)


def test_what_would_run_as_it_is_loaded(tmp_path: Path) -> None:
    code = MODEL.replace(
        "class Pair",
        """  def __setstate__(self: __torch__.Outer,
    state: Tensor) -> NoneType:
    return None
class Pair""",
    )
    assert "would run when the file is loaded" in refused(tmp_path, code)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (('y = x.save("f")',), "calls x.save"),
        (('y = "f".from_file(True, 1)',), "calls 'f'.from_file"),
        (("y = torch.neg(x).numpy()",), "calls torch.neg(x).numpy"),
        (('y = getattr(x, "save")("f")',), "calls getattr(x, 'save')"),
        (('s = getattr(x, "save")', 's("f")'), "calls s"),
        (("t = torch", "y = t.neg(x)"), "refers to torch"),
        (("o = ops.aten", "y = o.neg(x)"), "refers to ops.aten"),
        (("y = fork(x)",), "calls fork"),
        (("f = fork", "y = f(x)"), "refers to fork"),
        (("y = print(x)",), "calls print"),
        (("y = open('f')",), "calls open"),
        (("annotate = x", "y = annotate(Tensor, x)"), "gives annotate another meaning"),
        (("torch = x",), "gives torch another meaning"),
        (("y = __torch__.torch.classes.some.Thing(x)",), "calls __torch__.torch.classes"),
        (("y = __torch__.elsewhere",), "refers to __torch__.elsewhere, which is not in it"),
        (("y = [z for z in x]",), "has ListComp"),
        (("y = (lambda: x)()",), "has Lambda"),
        (("import os",), "has Import"),
        (("with x:", "  pass"), "has With"),
        (("def g(x: Tensor):", "  pass"), "declares within a function"),
        (("g = __torch__.f", "g = x"), "uses g for two things"),
    ],
)
def test_ways_around_the_list(tmp_path: Path, lines: tuple[str, ...], why: str) -> None:
    assert why in refused(tmp_path, in_a_function(*lines))


METHOD = "class C(Module):\n  def save(self: __torch__.C, f: str) -> int:\n    return 1\n"


@pytest.mark.parametrize(
    "code",
    [
        # A method named as an operator makes no operator of the same name fine.
        METHOD + in_a_function('y = x.save("f")'),
        METHOD + "def g(x: Tensor, self: Tensor) -> int:\n  return self.save('f')\n",
        METHOD.replace("self: __torch__.C", "self: Tensor"),
        METHOD.replace("self: __torch__.C, f: str", "f: __torch__.C, self: Tensor"),
        METHOD + "def g(c: __torch__.C, x: Tensor) -> int:\n  c = x\n  return c.save('f')\n",
        METHOD + "def g(c: __torch__.C) -> int:\n  return c.load('f')\n",
        METHOD + METHOD,
        METHOD + "def f(x: Tensor) -> int:\n  return 1\n" * 2,
        METHOD + "class D(Module):\n  c : __torch__.C\n  c : Tensor\n",
        METHOD + "class D(Module):\n  c : int = torch.neg(1)\n",
        METHOD + "class D(Module):\n  class E(Module):\n    pass\n",
        METHOD + "@decorated\ndef g() -> int:\n  return 1\n",
        "x = 1\n",
        "def f(*xs) -> int:\n  return 1\n",
    ],
)
def test_names_that_stand_for_something_else(tmp_path: Path, code: str) -> None:
    refused(tmp_path, code)


@pytest.mark.parametrize("code", ["def f(:\n", "def f(x: Tensor):\n\treturn x\n", "\x0c", "é = 1"])
def test_code_that_two_parsers_may_read_differently(tmp_path: Path, code: str) -> None:
    assert "the code of __torch__" in refused(tmp_path, code)


def test_what_is_unpickled(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple:
            return print, ("harm",)

    for protocol in (2, 4):
        path = write_archive(tmp_path / "model.pt", MODEL, pickle.dumps(print, protocol))
        with pytest.raises(TorchScriptError, match=r"data\.pkl holds"):
            check_archive(path)
    with pytest.raises(TorchScriptError, match=r"data\.pkl holds a __builtin__\.print"):
        check_archive(write_archive(tmp_path / "model.pt", MODEL, pickle.dumps(Harm(), 2)))
    custom = b"\x80\x02c__torch__.torch.classes.some\nThing\n."
    with pytest.raises(TorchScriptError, match=r"__torch__\.torch\.classes\.some\.Thing"):
        check_archive(write_archive(tmp_path / "model.pt", MODEL, custom))
    check_archive(write_archive(tmp_path / "model.pt", MODEL, b"\x80\x02c__torch__\nOuter\n."))
    with pytest.raises(TorchScriptError, match=r"data\.pkl does not read"):
        check_archive(write_archive(tmp_path / "model.pt", MODEL, b"\x80\x02c"))


def test_what_is_no_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    for content in (b"", b"not a model", write_archive(path, MODEL).read_bytes()[:-30]):
        path.write_bytes(content)
        with pytest.raises(TorchScriptError, match=r"model\.pt is not a loadable TorchScript"):
            check_archive(path)
    path.unlink()
    with pytest.raises(TorchScriptError, match=r"model\.pt is not a loadable TorchScript"):
        check_archive(path)


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([("m/data.pkl", NOTHING)], "holds no code"),
        ([("m/code/__torch__.py", b"")], "holds no code"),
        ([("m/code/__torch__.py", b""), ("n/data.pkl", NOTHING)], "ambiguous"),
        ([("m/code/__torch__.py", b""), ("m/data.pkl", NOTHING), ("m/model.py", b"")], "model.py"),
        ([("m/code/__torch__.py", b""), ("m/data.pkl", NOTHING), ("m/extra/x", b"")], "extra/x"),
        ([("m/code/other.py", b""), ("m/data.pkl", NOTHING)], "code/other.py"),
    ],
)
def test_what_else_lies_in_the_file(
    tmp_path: Path, entries: list[tuple[str, bytes]], why: str
) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    with pytest.raises(TorchScriptError, match=why):
        check_archive(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "model.pt", MODEL)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/code/__torch__.py", in_a_function("y = torch.neg(x)"))
    with pytest.raises(TorchScriptError, match="ambiguous"):
        check_archive(path)


def test_code_too_large_to_be_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_archive(tmp_path / "model.pt", MODEL)
    monkeypatch.setattr("ebbing.torchscript.LARGEST_TEXT", 1000)
    with pytest.raises(TorchScriptError, match=r"code/__torch__\.py is too large"):
        check_archive(path)


def test_in_place_forms_go_with_their_operators() -> None:
    assert allowed("aten::add")
    assert allowed("aten::add_")
    assert allowed("aten::__getitem__")
    for operator in ("aten::set_", "aten::resize_", "aten::__setstate__", "add", "", "aten::"):
        assert not allowed(operator)
