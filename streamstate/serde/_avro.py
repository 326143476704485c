"""Avro by fastavro, which is imported when the first Avro serde is made."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

from streamstate.errors import ConfigError
from streamstate.serde._base import Serde

__all__ = ["avro"]

MAGIC = 0
FRAME = struct.Struct(">bI")


def avro(schema: dict[str, Any] | list[Any] | str, *, schema_id: int | None = None) -> Serde[Any]:
    """Avro binary encoding of one schema.

    Args:
        schema: an Avro schema as Python data.
        schema_id: write, and expect, the frame of schema registries: a zero byte and this id in four bytes. None:
            the bare encoding.

    Raises:
        ConfigError: fastavro is not installed.

    >>> serde = avro({"type": "record", "name": "Point", "fields": [{"name": "x", "type": "int"}]}, schema_id=7)
    >>> serde.serialize({"x": 3})
    b'\\x00\\x00\\x00\\x00\\x07\\x06'
    >>> serde.deserialize(_)
    {'x': 3}
    """
    try:
        import fastavro
    except ImportError as error:
        raise ConfigError("the Avro serde needs fastavro: pip install 'streamstate[avro]'") from error
    parsed = fastavro.parse_schema(schema)
    frame = b"" if schema_id is None else FRAME.pack(MAGIC, schema_id)
    write, read = fastavro.schemaless_writer, fastavro.schemaless_reader

    def serialize(value: Any) -> bytes:
        buffer = BytesIO()
        buffer.write(frame)
        write(buffer, parsed, value)
        return buffer.getvalue()

    def deserialize(data: bytes) -> Any:
        if not data.startswith(frame):
            raise ValueError(f"the record starts with {data[:5]!r}, not with the frame of schema id {schema_id}")
        buffer = BytesIO(data)
        buffer.seek(len(frame))
        value = read(buffer, parsed, None)
        if buffer.read(1):
            raise ValueError("bytes are left behind the Avro value: it was written with another schema")
        return value

    canonical = fastavro.schema.to_parsing_canonical_form(parsed) + _logical_types(parsed)
    fingerprint = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    return Serde("avro", serialize, deserialize, schema=fingerprint if schema_id is None else f"{fingerprint} framed")


def _logical_types(schema: Any) -> str:
    """What the canonical form leaves out although it decides what bytes mean, such as a decimal's scale."""
    if isinstance(schema, list):
        return "".join(_logical_types(part) for part in schema)
    if not isinstance(schema, dict):
        return ""
    own = "".join(f"{name}={schema[name]};" for name in ("logicalType", "precision", "scale") if name in schema)
    return own + "".join(_logical_types(part) for part in schema.values())
