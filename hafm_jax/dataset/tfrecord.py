"""TFRecord files and tf.train.Example without TensorFlow: framing, checksums, an index of offsets, the message class.

Reading and writing need only protobuf and google-crc32c. The Example message is declared here from its published field
numbers (tensorflow/core/example/*.proto), because an import from tensorflow-datasets takes seconds in every worker
process; the bytes are the same.

In a file, a record is: length of the payload (uint64), masked CRC-32C of these 8 bytes (uint32), payload, its masked
CRC-32C (uint32).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from hafm_jax.common.errors import InputError

HEADER = struct.Struct("<QI")  # length of the payload, masked CRC of these 8 bytes
FOOTER = struct.Struct("<I")  # masked CRC of the payload
MAX_PAYLOAD_BYTES = 1 << 31  # protobuf's limit; a longer "length" is a damaged one


def masked_crc32c(data: bytes) -> int:
    """The checksum of the TFRecord format: CRC-32C, rotated and offset so that data may hold CRCs itself."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def example_class(packed: bool = False) -> type:
    """The message tf.train.Example, wire-compatible; in a descriptor pool of its own, apart from TensorFlow's.

    With `packed`, an int64_list's `value` holds the packed bytes of its integers (see `Varints`): a window of a song
    can be read without decoding all of it.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    package = "hafm_jax_example"
    field_types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")

    def message(parent: Any, name: str, *fields: tuple) -> Any:
        """Adds a message; a field is (name, number, scalar type or message's name, repeated)."""
        out = parent.add(name=name)
        for field_name, number, kind, repeated in fields:
            label = field_types.LABEL_REPEATED if repeated else field_types.LABEL_OPTIONAL
            added = out.field.add(name=field_name, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = field_types.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                added.type = kind
        return out

    message(file.message_type, "BytesList", ("value", 1, field_types.TYPE_BYTES, True))
    message(file.message_type, "FloatList", ("value", 1, field_types.TYPE_FLOAT, True))
    integers = field_types.TYPE_BYTES if packed else field_types.TYPE_INT64
    message(file.message_type, "Int64List", ("value", 1, integers, True))
    kinds = [("bytes_list", 1, "BytesList", False), ("float_list", 2, "FloatList", False)]
    feature = message(file.message_type, "Feature", *kinds, ("int64_list", 3, "Int64List", False))
    feature.oneof_decl.add(name="kind")
    for member in feature.field:
        member.oneof_index = 0
    features = message(file.message_type, "Features", ("feature", 1, "Features.FeatureEntry", True))
    entry = message(
        features.nested_type,
        "FeatureEntry",
        ("key", 1, field_types.TYPE_STRING, False),
        ("value", 2, "Feature", False),
    )
    entry.options.map_entry = True  # Features.feature is a map<string, Feature>
    message(file.message_type, "Example", ("features", 1, "Features", False))

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Example"))


class Varints:
    """The integers that protobuf packed to these bytes; a slice of them is decoded alone, to int64.

    Each has 7 bits a byte, the lowest first; its last byte is below 128. Raises ValueError where one is cut off
    or longer than 64 bits.
    """

    def __init__(self, packed: bytes) -> None:
        self._bytes = np.frombuffer(packed, np.uint8)
        self._ends = np.flatnonzero(self._bytes < 128)
        if len(packed) and packed[-1] >= 128:
            raise ValueError("an integer is cut off")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, window: slice) -> np.ndarray:
        first, stop, _ = window.indices(len(self))
        ends = self._ends[first:stop]
        starts = np.empty_like(ends)
        if len(ends):
            starts[0] = self._ends[first - 1] + 1 if first else 0
            starts[1:] = ends[:-1] + 1
        more = ends - starts  # bytes beyond the first
        values = (self._bytes[starts] & 127).astype(np.int64)
        longest = int(more.max(initial=0))
        if longest > 9:
            raise ValueError("an integer has more than 64 bits")
        for byte in range(1, longest + 1):
            has = np.flatnonzero(more >= byte)
            values[has] |= (self._bytes[starts[has] + byte] & 127).astype(np.int64) << 7 * byte
        return values


def frame(payload: bytes) -> bytes:
    """The record as a file holds it."""
    length = struct.pack("<Q", len(payload))
    return length + FOOTER.pack(masked_crc32c(length)) + payload + FOOTER.pack(masked_crc32c(payload))


def framed_size(length: int) -> int:
    """Bytes in a file of a record whose payload has `length` bytes."""
    return HEADER.size + length + FOOTER.size


def walk_records(path: Path) -> Iterator[tuple[int, int, int]]:
    """(offset of the header, length, stored masked CRC of the payload) of each record; no payload is read.

    Raises InputError, with file and byte offset, where the framing breaks: no record after that can be found.
    """
    try:
        size = path.stat().st_size
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}): check the data set") from error
    with file:
        offset = 0
        while offset < size:
            where = f"{path} at byte {offset}"
            header = file.read(HEADER.size)
            if len(header) < HEADER.size:
                raise InputError(f"{where}: the file ends within a record's header: copy it again")
            length, crc = HEADER.unpack(header)
            if masked_crc32c(header[:8]) != crc or length > MAX_PAYLOAD_BYTES:
                raise InputError(f"{where}: the header's checksum is wrong; expected a TFRecord file: copy it again")
            following = offset + framed_size(length)
            if following > size:
                raise InputError(
                    f"{where}: the file ends {following - size} bytes before its record does: copy it again"
                )
            file.seek(offset + HEADER.size + length)
            yield offset, length, FOOTER.unpack(file.read(FOOTER.size))[0]
            offset = following


def check_payload(payload: bytes, length: int, crc: int, where: str) -> None:
    """Raises InputError, `where` first, unless the payload has this length and checksum."""
    if len(payload) != length:
        raise InputError(f"{where}: {len(payload)} of {length} bytes are left; expected a whole file: copy it again")
    if masked_crc32c(payload) != crc:
        raise InputError(f"{where}: the record's checksum is wrong; expected intact data: copy the file again")


def unframe(data: bytes, length: int, crc: int, where: str) -> bytes:
    """The payload of a whole record with header and footer. Raises InputError, `where` first, unless it has this length
    and checksum."""
    header = struct.pack("<Q", length)
    payload = data[HEADER.size : HEADER.size + length]
    check_payload(payload, length, crc, where)
    if data != header + FOOTER.pack(masked_crc32c(header)) + payload + FOOTER.pack(crc):
        raise InputError(f"{where}: the record's frame is damaged; expected intact data: copy the file again")
    return payload
