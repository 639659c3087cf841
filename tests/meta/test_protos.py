"""Every field of the contract says if it is required, its unit, its limit and what zero means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import grpc_tools
import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc

PROTOS = Path(__file__).parents[2] / "protos"
KINDS = ("Required.", "Optional.", "Output only.")
NUMBERS = {
    getattr(FieldDescriptorProto, f"TYPE_{name}")
    for name in ("DOUBLE", "FLOAT", "INT32", "INT64", "UINT32", "UINT64", "SINT32", "SINT64")
}
TEXTS = {FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES}
BOOL, ENUM = FieldDescriptorProto.TYPE_BOOL, FieldDescriptorProto.TYPE_ENUM
MESSAGE = FieldDescriptorProto.TYPE_MESSAGE

LIMIT = re.compile(r"\b(at most|up to|from 1 to)\b", re.IGNORECASE)
UNIT_OR_RANGE = re.compile(
    r"no unit|the unit is|in events' worth|seconds|status code"
    r"|\bfrom −?\d|\babove \d|\bat (least|most) \d|\d or more",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Field:
    """A field of the contract with what its comment says."""

    name: str
    """Full name, without the package."""
    proto: FieldDescriptorProto
    comment: str
    """Its leading comment on one line."""
    in_request: bool
    """Whether a caller can send it."""

    @property
    def repeated(self) -> bool:
        return self.proto.label == FieldDescriptorProto.LABEL_REPEATED


@cache
def contract(folder: Path) -> tuple[FileDescriptorProto, ...]:
    """The project's files with their comments."""
    out = folder / "contract.pb"
    paths = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--proto_path={files(grpc_tools) / '_proto'}",
            f"--descriptor_set_out={out}",
            "--include_source_info",
            *paths,
        ]
    )
    assert status == 0
    return tuple(FileDescriptorSet.FromString(out.read_bytes()).file)


def messages(
    file: FileDescriptorProto,
) -> Iterator[tuple[str, tuple[int, ...], DescriptorProto]]:
    """Messages with their full names and their paths in the source info."""

    def inside(
        prefix: str, path: tuple[int, ...], message: DescriptorProto
    ) -> Iterator[tuple[str, tuple[int, ...], DescriptorProto]]:
        name = f"{prefix}.{message.name}"
        yield name, path, message
        for i, nested in enumerate(message.nested_type):
            yield from inside(name, (*path, 3, i), nested)

    for i, message in enumerate(file.message_type):
        yield from inside(f".{file.package}", (4, i), message)


def sent_by_callers(all_messages: dict[str, DescriptorProto]) -> set[str]:
    """Messages that a request is made of."""
    waiting = [name for name in all_messages if name.endswith("Request")]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found and name in all_messages:
            found.add(name)
            waiting += [field.type_name for field in all_messages[name].field if field.type_name]
    return found


@pytest.fixture(scope="session")
def fields(tmp_path_factory: pytest.TempPathFactory) -> list[Field]:
    """All fields of the contract but the keys and values of maps."""
    contents = contract(tmp_path_factory.mktemp("protos"))
    known = {name: message for file in contents for name, _, message in messages(file)}
    sent = sent_by_callers(known)
    found = []
    for file in contents:
        comments = {
            tuple(location.path): " ".join(location.leading_comments.split())
            for location in file.source_code_info.location
        }
        for name, path, message in messages(file):
            if message.options.map_entry:
                continue
            for i, field in enumerate(message.field):
                found.append(
                    Field(
                        f"{name}.{field.name}".removeprefix(f".{file.package}."),
                        field,
                        comments.get((*path, 2, i), ""),
                        name in sent,
                    )
                )
    return found


def failing(fields: list[Field], wanted: re.Pattern[str]) -> dict[str, str]:
    return {field.name: field.comment for field in fields if not wanted.search(field.comment)}


def test_there_are_fields_of_every_service(fields: list[Field]) -> None:
    assert len(fields) > 100
    assert {"UserEvent.event_id", "Slate.items", "Item.attributes"} <= {f.name for f in fields}


def test_every_field_says_whether_it_is_required(fields: list[Field]) -> None:
    assert not {f.name: f.comment for f in fields if not f.comment.startswith(KINDS)}


def test_requests_have_nothing_that_is_output_only(fields: list[Field]) -> None:
    direct = [f for f in fields if f.name.partition(".")[0].endswith("Request")]
    assert not {f.name for f in direct if f.comment.startswith("Output only.")}
    answers = [f for f in fields if f.name.partition(".")[0].endswith("Response")]
    assert not {f.name for f in answers if not f.comment.startswith("Output only.")}


def test_every_optional_field_says_what_zero_means(fields: list[Field]) -> None:
    optional = [f for f in fields if f.comment.startswith("Optional.")]
    groups: dict[str, list[Field]] = {"Zero:": [], "Empty:": [], "Unset:": [], "False:": []}
    for field in optional:
        if field.repeated or (field.proto.type in TEXTS and not field.proto.proto3_optional):
            groups["Empty:"].append(field)
        elif field.proto.proto3_optional or field.proto.type == MESSAGE:
            groups["Unset:"].append(field)
        elif field.proto.type == BOOL:
            groups["False:"].append(field)
        else:
            groups["Zero:"].append(field)
    for word, members in groups.items():
        assert members
        assert not failing(members, re.compile(word))


def test_every_number_and_flag_of_an_answer_says_what_zero_means(fields: list[Field]) -> None:
    answers = [f for f in fields if f.comment.startswith("Output only.") and not f.repeated]
    numbers = [f for f in answers if f.proto.type in NUMBERS]
    assert not failing(numbers, re.compile(r"Zero:|Unset:|from 1\b"))
    assert not failing([f for f in answers if f.proto.type == BOOL], re.compile("False:"))


def test_every_text_list_and_map_of_a_request_has_a_limit(fields: list[Field]) -> None:
    open_ended = [f for f in fields if f.in_request and (f.repeated or f.proto.type in TEXTS)]
    assert open_ended
    assert not failing(open_ended, LIMIT)


def test_every_number_has_a_unit_or_a_range(fields: list[Field]) -> None:
    numbers = [f for f in fields if f.proto.type in NUMBERS]
    # The unit of a count is what it counts.
    measured = [f for f in numbers if not f.proto.name.endswith("_count")]
    assert not failing(measured, UNIT_OR_RANGE)


def test_every_page_is_asked_for_alike(fields: list[Field]) -> None:
    sizes = [f for f in fields if f.proto.name == "page_size"]
    assert sizes
    assert not failing(sizes, re.compile(r"from 1 to \d+\. Zero: \d+\."))
