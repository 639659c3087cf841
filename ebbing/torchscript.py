"""What a TorchScript file would do, read without loading it.

TorchScript is code: loading a file runs any ``__setstate__`` in it, and a compiler that folds
constants runs operators. So the code is read first, as text, and refused unless every operator is
one of `ebbing.operators`, every call goes to code of the file itself, and what is unpickled are
tensors and objects of its own classes. Nothing here needs torch.
"""

from __future__ import annotations

import ast
import pickletools
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ebbing.operators import allowed

__all__ = ["TorchScriptError", "check_archive", "not_allowed"]

LARGEST_TEXT = 16 * 2**20
"""Bytes of one file of code or pickles; a model's are some kilobytes."""

_ENTRY = re.compile(
    r"[^/]+/(?:(?P<code>code/(?P<module>__torch__(?:/\w+)*)\.py)"
    r"|(?P<pickle>data\.pkl|constants\.pkl|code/__torch__(?:/\w+)*\.py\.debug_pkl)"
    r"|(?:data|constants)/\d+|byteorder|version|\.format_version|\.storage_alignment"
    r"|\.data/(?:version|serialization_id))"
)
_PICKLED = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch \w+Storage"
    r"|torch\.jit\._pickle (?:build_\w+list|restore_type_tag)"
)
_NODES = (
    *(ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.keyword),
    *(ast.Assign, ast.AnnAssign, ast.Return, ast.If, ast.For, ast.While, ast.Pass, ast.Expr),
    *(ast.Call, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Constant, ast.Tuple),
    *(ast.List, ast.Dict, ast.IfExp, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare),
    *(ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
_CALLABLE = {
    *("annotate", "bool", "float", "getattr", "int", "len", "range", "str"),
    *("unchecked_cast", "uninitialized"),
}
_STORED_HOW = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_RUN_BY_LOADING = "__setstate__"


class TorchScriptError(Exception):
    """A file that is no TorchScript, or does what a model may not; says where."""


def not_allowed(operator: str, where: str) -> str:
    """What to say of an operator that is not allowed."""
    return (
        f"{where} uses {operator}, which is not among the operators a model may use: do without "
        "it, or add it to ebbing/operators.py if all it can touch is tensors"
    )


def check_archive(path: Path) -> None:
    """Read the code of a TorchScript file and refuse what a model may not do.

    Raises:
        TorchScriptError: names the file, the place in it and what is wrong there.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            code, pickles = _entries(archive)
        modules = {name: _parsed(name, text) for name, text in code.items()}
        declared = _Declared.of(modules)
        for name, tree in modules.items():
            for function, owner in _functions(name, tree):
                _Function(declared, f"{name}.{function.name}", owner).check(function)
        for name, content in pickles.items():
            _check_pickle(name, content, declared)
    except TorchScriptError as error:
        raise TorchScriptError(f"{path}: {error}") from None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise TorchScriptError(
            f"{path} is not a loadable TorchScript module: {error}; train again"
        ) from error


def _entries(archive: zipfile.ZipFile) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Code by module name, and pickles by name."""
    code: dict[str, bytes] = {}
    pickles: dict[str, bytes] = {}
    infos = archive.infolist()
    if len({info.filename.partition("/")[0] for info in infos}) != 1 or len(
        {info.filename for info in infos}
    ) != len(infos):
        raise TorchScriptError("is not a loadable TorchScript module: its files are ambiguous")
    for info in infos:
        match = _ENTRY.fullmatch(info.filename)
        if not match or info.compress_type not in _STORED_HOW:
            raise TorchScriptError(f"holds {info.filename!r}, which no exported model does")
        if match["module"] or match["pickle"]:
            if info.file_size > LARGEST_TEXT:
                raise TorchScriptError(f"{info.filename} is too large to be looked through")
            into, name = (
                (code, match["module"].replace("/", "."))
                if match["module"]
                else (pickles, match["pickle"])
            )
            into[name] = archive.read(info)
    if not code or "data.pkl" not in pickles:
        raise TorchScriptError("is not a loadable TorchScript module: it holds no code")
    return code, pickles


def _parsed(name: str, content: bytes) -> ast.Module:
    """Serialised TorchScript is also Python's syntax, a small part of it."""
    if re.search(rb"[^\n\x20-\x7e]", content):
        # Two parsers might read those differently.
        raise TorchScriptError(f"the code of {name} has characters that code does not have")
    try:
        tree = ast.parse(content.decode("ascii"))
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise TorchScriptError(f"the code of {name} does not read: {error}") from None
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            raise TorchScriptError(f"{_at(name, node)} has {type(node).__name__}, as no model does")
    return tree


def _functions(name: str, tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Every function and method of a module, the latter with the class it is of."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            yield statement, ""
        elif isinstance(statement, ast.ClassDef):
            for inner in statement.body:
                if isinstance(inner, ast.FunctionDef):
                    yield inner, f"{name}.{statement.name}"
                elif not isinstance(inner, ast.Assign | ast.AnnAssign | ast.Pass) or any(
                    isinstance(node, ast.Call) for node in ast.walk(inner)
                ):
                    raise TorchScriptError(f"{_at(name, inner)} is no declaration")
        else:
            raise TorchScriptError(f"{_at(name, statement)} is no declaration")


@dataclass(frozen=True)
class _Declared:
    """The classes and functions of a file."""

    functions: set[str] = field(default_factory=set)
    methods: dict[str, set[str]] = field(default_factory=dict)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of each class, its attributes that may be objects, with the names of their types."""

    @classmethod
    def of(cls, modules: dict[str, ast.Module]) -> _Declared:
        declared = cls()
        for name, tree in modules.items():
            for function, owner in _functions(name, tree):
                if function.name == _RUN_BY_LOADING:
                    raise TorchScriptError(
                        f"{_at(name, function)}: {owner} has a {function.name}, which would run "
                        "when the file is loaded: do without it"
                    )
                qualified = f"{name}.{function.name}"
                if not owner and qualified in declared.functions:
                    raise TorchScriptError(f"{qualified} is declared twice")
                if not owner:
                    declared.functions.add(qualified)
            for statement in tree.body:
                if isinstance(statement, ast.ClassDef):
                    declared._add(f"{name}.{statement.name}", statement)
        return declared

    def _add(self, qualified: str, statement: ast.ClassDef) -> None:
        methods = [inner.name for inner in statement.body if isinstance(inner, ast.FunctionDef)]
        attributes: list[tuple[str, str]] = []
        for inner in statement.body:
            match inner:
                case ast.AnnAssign(ast.Name(name), kind):
                    attributes.append((name, ".".join(_chain(kind))))
                case ast.Assign([ast.Subscript(_, ast.Constant(str(name)))], kind):
                    # __annotations__["0"] = ...: what is not an identifier.
                    attributes.append((name, ".".join(_chain(kind))))
        names = [*methods, *(name for name, _ in attributes)]
        if qualified in self.methods or len(set(names)) < len(names):
            raise TorchScriptError(f"{qualified} is declared twice, or something in it is")
        self.methods[qualified] = set(methods)
        self.attributes[qualified] = dict(attributes)


class _Function:
    """One function of a file: what its names stand for, as far as that matters."""

    def __init__(self, declared: _Declared, name: str, owner: str) -> None:
        self.declared = declared
        self.name = name
        self.objects: dict[str, str] = {"self": owner} if owner else {}
        """Class of each local that is an object of the file; TorchScript lets none change."""
        self.aliases: set[str] = set()
        """Locals that stand for functions of the file."""

    def check(self, function: ast.FunctionDef) -> None:
        """Refuse what the function may not do."""
        given = function.args
        names = [argument.arg for argument in given.args]
        own = list(self.objects)  # self, in a method
        odd = (
            function.decorator_list,
            given.posonlyargs,
            given.kwonlyargs,
            given.vararg,
            given.kwarg,
        )
        if any(odd) or names[: len(own)] != own or names.count("self") != len(own):
            raise TorchScriptError(f"{self.name} is declared as no model's method is")
        for argument in given.args:
            kind = ".".join(_chain(argument.annotation)) if argument.annotation else ""
            if argument.arg == "self":
                if kind != self.objects["self"]:
                    raise TorchScriptError(f"{self.name} is a method of something else")
            else:
                self._name(argument.arg, kind if kind in self.declared.methods else "", "")
        for default in function.args.defaults:
            self._visit(default)
        for statement in function.body:
            self._visit(statement)

    def _name(self, local: str, kind: str, function: str) -> None:
        """Note what a local stands for: an object, a function, or anything else."""
        if local in _CALLABLE | {"torch", "ops", "__torch__", "CONSTANTS"}:
            raise TorchScriptError(f"{self.name} gives {local} another meaning")
        before = self.objects.get(local, ""), local in self.aliases
        known = local in self.objects or local in self.aliases
        if known and before != (kind, bool(function)):
            raise TorchScriptError(f"{self.name} uses {local} for two things")
        if kind:
            self.objects[local] = kind
        if function:
            self.aliases.add(local)

    def _visit(self, node: ast.AST) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(local)], value=value):
                self._visit(value)
                chain = ".".join(_chain(value))
                self._name(
                    local, self._class_of(value), chain if chain in self.declared.functions else ""
                )
            case ast.AnnAssign(target=target, value=value):
                self._targets(target)
                if value:
                    self._visit(value)
            case ast.For(target=target) | ast.Assign(targets=[target]):
                self._targets(target)
                for child in ast.iter_child_nodes(node):
                    self._visit(child)
            case ast.Call():
                self._call(node)
            case ast.Attribute() | ast.Name():
                self._reference(node)
            case ast.FunctionDef() | ast.ClassDef():
                raise TorchScriptError(f"{_at(self.name, node)} declares within a function")
            case _:
                for child in ast.iter_child_nodes(node):
                    self._visit(child)

    def _targets(self, target: ast.AST) -> None:
        """Locals that become something other than an object or a function."""
        for inner in ast.walk(target):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                self._name(inner.id, "", "")

    def _call(self, node: ast.Call) -> None:
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        match node.func:
            case ast.Name("annotate" | "unchecked_cast" | "uninitialized"):
                arguments = arguments[1:]  # the first one is a type
            case ast.Name(local) if local in _CALLABLE or local in self.aliases:
                pass
            case ast.Attribute(value, method) if kind := self._class_of(value):
                if method not in self.declared.methods[kind]:
                    raise TorchScriptError(f"{_at(self.name, node)} calls {kind}.{method}: none")
                self._visit(value)
            case ast.Attribute() as called if _chain(called)[:1] in (["torch"], ["ops"]):
                self._reference(called)
            case ast.Attribute() as called if ".".join(_chain(called)) in (
                self.declared.functions | self.declared.methods.keys()
            ):
                pass
            case called:
                raise TorchScriptError(
                    f"{_at(self.name, node)} calls {ast.unparse(called)}, which is nothing of its "
                    "own: do without it"
                )
        for argument in arguments:
            self._visit(argument)

    def _reference(self, node: ast.Attribute | ast.Name) -> None:
        chain = _chain(node)
        match chain:
            case ["torch", name]:
                self._operator(f"aten::{name}", node)
            case ["ops", namespace, name]:
                self._operator(f"{namespace}::{name}", node)
            case ["torch" | "ops" | "fork" | "awaitable", *_]:
                raise TorchScriptError(f"{_at(self.name, node)} refers to {ast.unparse(node)}")
            case ["__torch__", *_]:
                known = self.declared.functions | self.declared.methods.keys()
                if ".".join(chain) not in known:
                    raise TorchScriptError(
                        f"{_at(self.name, node)} refers to {ast.unparse(node)}, which is not in it"
                    )
            case []:
                assert isinstance(node, ast.Attribute)
                self._visit(node.value)

    def _operator(self, operator: str, node: ast.AST) -> None:
        if not allowed(operator):
            raise TorchScriptError(not_allowed(operator, _at(self.name, node)))

    def _class_of(self, node: ast.AST) -> str:
        """Class of the file that an expression is an object of; empty if it is none."""
        match node:
            case ast.Name(local):
                kind = self.objects.get(local, "")
            case ast.Attribute(value, name) | ast.Call(
                ast.Name("getattr"), [value, ast.Constant(str(name))]
            ):
                kind = self.declared.attributes.get(self._class_of(value), {}).get(name, "")
            case ast.Call(called):
                kind = ".".join(_chain(called))
            case _:
                kind = ""
        return kind if kind in self.declared.methods else ""


def _check_pickle(name: str, content: bytes, declared: _Declared) -> None:
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "GLOBAL":
                known = str(argument).replace(" ", ".", 1) in declared.methods
                if not (known or _PICKLED.fullmatch(str(argument))):
                    raise TorchScriptError(
                        f"{name} holds a {str(argument).replace(' ', '.', 1)}, as no model does"
                    )
            elif opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
                raise TorchScriptError(f"{name} holds {opcode.name}, as no model does")
    except ValueError as error:
        raise TorchScriptError(f"{name} does not read: {error}") from None


def _chain(node: ast.AST | None) -> list[str]:
    """``a.b.c`` as its names; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def _at(name: str, node: ast.AST) -> str:
    return f"{name}, line {getattr(node, 'lineno', 0)},"
