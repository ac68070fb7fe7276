"""A .tflite as the schema's own objects, every part of it, to be changed and written again."""

from __future__ import annotations

import struct
from typing import Any

import flatbuffers

from bridge.errors import BridgeError

_IDENTIFIER = b"TFL3"


def unpacked(content: bytes) -> Any:
    """`ModelT` of the file. Raises `BridgeError` for one that is damaged, be it in parts that nobody else reads: signatures,
    metadata, options of operators."""
    from ai_edge_litert import schema_py_generated as schema

    try:
        return schema.ModelT.InitFromPackedBuf(content, 0)
    except (struct.error, IndexError, TypeError, ValueError, AttributeError, OverflowError, MemoryError) as error:
        raise BridgeError(
            where=".tflite",
            problem=f"the flatbuffer is damaged ({error})",
            remedy="Convert the model again, and check that the file was copied whole.",
        ) from error


def packed(model: Any, size: int = 1024) -> bytes:
    """The file of a `ModelT`; `size` bytes are made ready for it to begin with."""
    builder = flatbuffers.Builder(size)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())
