"""Frames that pika cannot decode."""

from __future__ import annotations

import struct
from typing import Any

import pika


def without_headers(data: bytes) -> tuple[int, Any]:
    """The frame of a message's properties at the beginning of ``data``, its length, and all properties but the headers.

    Raises whatever comes of it where there is no such frame, or the headers are not what is wrong with it.
    """
    kind, channel, size = struct.unpack_from(">BHL", data)
    properties = data[7 : 7 + size]
    body_size, flags = struct.unpack_from(">4xQH", properties)
    if kind != pika.spec.FRAME_HEADER or not flags & pika.BasicProperties.FLAG_HEADERS:
        raise ValueError("A frame without headers cannot be decoded.")
    begin = 14
    for flag in (pika.BasicProperties.FLAG_CONTENT_TYPE, pika.BasicProperties.FLAG_CONTENT_ENCODING):
        if flags & flag:  # these two texts, and nothing else, stand before the headers
            begin += 1 + properties[begin]
    end = begin + 4 + struct.unpack_from(">L", properties, begin)[0]
    rest = struct.pack(">H", flags & ~pika.BasicProperties.FLAG_HEADERS) + properties[14:begin] + properties[end:]
    return size + 8, pika.frame.Header(channel, body_size, pika.BasicProperties().decode(rest))
