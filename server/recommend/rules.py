"""Business rules: small expressions over an item, checked when they are loaded.

A rule denies items, or multiplies their score. Its condition is an expression of Python's grammar
cut down to comparisons, arithmetic, `and`, `or`, `not`, `in` and conditional expressions: no calls,
no attributes, no subscripts, so it can read nothing but the names below and always ends.

Names: each of the item's attributes (a number where its text is one), `item_id`, `interests`
(paths, parents included), `source`, and each entry of the request's context as `context_NAME`. A
name an item does not have is None; a rule whose condition cannot be told of an item, as in
None < 1, does not apply to it.
"""

from __future__ import annotations

import ast
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

from server.recommend.about import topics
from server.recommend.candidates import Candidate
from server.recommend.filters import REMEMBERED_ITEMS, attributes_of
from server.state.store import ItemRecord

__all__ = ["Rule", "RuleError", "Rules", "load_rules", "names_of"]

Value = str | float | tuple[str, ...] | None

LONGEST_CONDITION = 2000
MOST_BOOST = 100.0
_TAKEN = (
    ast.Expression,
    ast.BoolOp,
    ast.UnaryOp,
    ast.BinOp,
    ast.Compare,
    ast.IfExp,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.List,
    ast.Tuple,
    ast.boolop,
    ast.unaryop,
    ast.cmpop,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
)


class RuleError(Exception):
    """A rule that cannot be taken; the message names the file, the rule, the position and why."""


class _Names(dict[str, Value]):
    """What a condition sees: names an item does not have are None."""

    def __missing__(self, name: str) -> None:
        return None


@dataclass(frozen=True)
class Rule:
    """One rule."""

    name: str
    """What it is called in explanations and metrics."""
    condition: str
    """When it applies."""
    boost: float | None
    """What it multiplies the score by, above 0; None: it denies."""
    code: CodeType

    def applies(self, names: Mapping[str, Value]) -> bool:
        """Whether it applies to an item with these names; one that cannot be told does not."""
        try:
            return bool(eval(self.code, {"__builtins__": {}}, _Names(names)))
        except (TypeError, ArithmeticError):
            # 'a' < 1, None * 2 or 1 / 0: an item of which that is so meets no condition.
            return False


@dataclass(frozen=True)
class Rules:
    """All rules of a gateway, in the order of their file."""

    rules: tuple[Rule, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules)

    def denies(self, candidate: Candidate, context: Mapping[str, str]) -> str | None:
        """The name of the first rule that denies a candidate of a request with this context."""
        names = names_of(candidate, context)
        for rule in self.rules:
            if rule.boost is None and rule.applies(names):
                return rule.name
        return None

    def boost(self, candidate: Candidate, context: Mapping[str, str]) -> float:
        """What all rules that apply multiply a candidate's score by."""
        names = names_of(candidate, context)
        factors = [r.boost for r in self.rules if r.boost is not None and r.applies(names)]
        return math.prod(factors)


def load_rules(path: Path) -> Rules:
    """Read rules from a TOML file of `[[rule]]` tables.

    Each has a `name` and either `deny`, a condition, or `boost`, a number above 0, with `when`, a
    condition.

    Raises:
        RuleError: the file does not read, or a rule is none.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("rule", [])
    except tomllib.TOMLDecodeError as error:
        raise RuleError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RuleError(f"{path}: cannot be read ({error})") from error
    if not isinstance(tables, list):
        raise RuleError(f"{path}: rules are tables [[rule]], each with a name")
    rules = [_rule(path, number, table) for number, table in enumerate(tables, 1)]
    names = [rule.name for rule in rules]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RuleError(f"{path}: two rules are called {twice!r}; give each a name of its own")
    return Rules(tuple(rules))


def _rule(path: Path, number: int, table: Any) -> Rule:
    where = f"{path}: rule {number}"
    if not isinstance(table, dict) or not isinstance(table.get("name"), str) or not table["name"]:
        raise RuleError(f"{where}: has no name; give it one")
    where = f"{path}: rule {table['name']!r}"
    unknown = sorted(table.keys() - {"name", "deny", "boost", "when"})
    if unknown:
        raise RuleError(f"{where}: {unknown[0]!r} is none of deny, boost and when")
    if ("deny" in table) == ("boost" in table) or ("boost" in table) != ("when" in table):
        raise RuleError(f"{where}: needs either deny, or boost and when")
    boost = table.get("boost")
    if boost is not None:
        number_given = isinstance(boost, int | float) and not isinstance(boost, bool)
        if not number_given or not 0 < boost <= MOST_BOOST:
            raise RuleError(f"{where}: boost is {boost}; give a number above 0, up to 100")
    condition = table.get("deny", table.get("when"))
    if not isinstance(condition, str):
        raise RuleError(f'{where}: the condition must be a text such as "price > 100"')
    return Rule(table["name"], condition, boost, compiled(condition, where))


def compiled(condition: str, where: str) -> CodeType:
    """The code of a condition.

    Raises:
        RuleError: it is none; the message begins with ``where`` and tells the position.
    """
    if len(condition) > LONGEST_CONDITION:
        raise RuleError(f"{where}: the condition is longer than {LONGEST_CONDITION} characters")
    try:
        tree = ast.parse(condition.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line, column = getattr(error, "lineno", None) or 1, getattr(error, "offset", None) or 1
        reason = getattr(error, "msg", None) or "it is no expression"
        raise RuleError(f"{where}: line {line}, column {column}: {reason}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and type(node.value) is int:
            # A text times a whole number would be as long as somebody likes.
            node.value = float(node.value)
        bad = not isinstance(node, _TAKEN) or isinstance(node, ast.Is | ast.IsNot)
        if isinstance(node, ast.Constant):
            bad = not (node.value is None or isinstance(node.value, str | int | float))
        if bad:
            column = getattr(node, "col_offset", 0) + 1
            line = getattr(node, "lineno", 1)
            raise RuleError(
                f"{where}: line {line}, column {column}: {type(node).__name__} cannot be used; a"
                " condition is made of names, numbers, texts, comparisons, arithmetic, and, or,"
                " not, in"
            )
    try:
        return compile(tree, where, "eval")
    except (RecursionError, MemoryError, OverflowError):
        raise RuleError(f"{where}: the condition is nested too deeply") from None


def names_of(candidate: Candidate, context: Mapping[str, str]) -> dict[str, Value]:
    """The names a condition sees of a candidate."""
    told = {f"context_{name}": _value(text) for name, text in context.items()}
    return {**_values(candidate.item), **told, "source": candidate.source.name.lower()}


@lru_cache(REMEMBERED_ITEMS)
def _values(item: ItemRecord) -> Mapping[str, Value]:
    values = {name: _value(text) for name, text in attributes_of(item).items()}
    return {**values, "item_id": item.item_id, "interests": tuple(sorted(topics(item.interests)))}


def _value(text: str) -> Value:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
