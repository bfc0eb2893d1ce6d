"""`tf.train.Example` read by Google's own protobuf library, apart from the importer's reader."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest


def _message_class() -> Any:
    """The class of Example, from its definition in tensorflow/core/example."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    descriptor_pool = pytest.importorskip("google.protobuf.descriptor_pool")
    message_factory = pytest.importorskip("google.protobuf.message_factory")
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tests", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, int, str]) -> Any:
        made = file.message_type.add(name=name)
        for field, number, label, kind, of in fields:
            typed = {"type": kind, "type_name": f".tests.{of}"} if of else {"type": kind}
            made.field.add(name=field, number=number, label=label, **typed)
        return made

    one, many, nested = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED, kinds.TYPE_MESSAGE
    message("BytesList", ("value", 1, many, kinds.TYPE_BYTES, ""))
    message("FloatList", ("value", 1, many, kinds.TYPE_FLOAT, ""))
    message("Int64List", ("value", 1, many, kinds.TYPE_INT64, ""))
    lists = (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List"))
    message("Feature", *((name, number, one, nested, of) for number, (name, of) in enumerate(lists, 1)))
    message("Entry", ("key", 1, one, kinds.TYPE_STRING, ""), ("value", 2, one, nested, "Feature"))
    message("Features", ("feature", 1, many, nested, "Entry"))
    message("Example", ("features", 1, one, nested, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tests.Example"))


def read_examples(path: Path) -> list[dict[str, list[Any]]]:
    """The features of every record of a file, by name; checksums are not looked at."""
    parsed, content, offset = _message_class(), path.read_bytes(), 0
    records = []
    while offset < len(content):
        (length,) = struct.unpack_from("<Q", content, offset)
        example = parsed.FromString(content[offset + 12 : offset + 12 + length])
        records.append(
            {
                entry.key: [
                    value
                    for kind in (entry.value.bytes_list, entry.value.float_list, entry.value.int64_list)
                    for value in kind.value
                ]
                for entry in example.features.feature
            }
        )
        offset += 12 + length + 4
    return records
