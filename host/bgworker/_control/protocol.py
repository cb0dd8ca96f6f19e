"""Newline-delimited JSON: bytes in, messages out. The wire of the control socket and of every inner channel.

Pure: no sockets. docs/protocol.md describes what the messages mean to a client in any language.

A message is one JSON object on one line of UTF-8. A request has ``id`` and ``method`` (and
``params``); its reply has the same ``id`` and either ``result`` or ``error``. Anything
without an ``id`` is a notice. What arrives is hostile until ``Decoder`` has let it through.
"""

from __future__ import annotations

import json
from typing import Any, Final

from bgworker.errors import HostError, ProtocolError

#: Said in the greeting; a client that knows another major refuses.
PROTOCOL_VERSION: Final = 1
#: Longest line that a client may send, in bytes. A registration with the longest argument fits twice.
MAX_REQUEST_BYTES: Final = 65_536
#: Longest line of a trusted peer: status of 4096 slots fits.
MAX_REPLY_BYTES: Final = 64 * 1024 * 1024
#: How deep arrays and objects may nest; deeper ones are an attack on the parser's stack.
MAX_DEPTH: Final = 64

Message = dict[str, Any]

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encode(message: Message) -> bytes:
    """Return the message as one line.

    Raises:
        ProtocolError: The message holds what JSON cannot say.
    """
    try:
        # Lone surrogates are replaced: they come from file names and would not be UTF-8.
        text = _ENCODER.encode(message)
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError("message is not JSON", f"{error}.") from None
    return text.encode("utf-8", "replace") + b"\n"


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object names the same key twice")
    return result


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
_TRUSTING_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def decode(line: bytes) -> Message:
    """Return the message on one line.

    Raises:
        ProtocolError: The line is not UTF-8, not JSON, not an object, nested too deeply, names a key twice or holds NaN.
    """
    try:
        if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _depth(line) > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        message = _DECODER.decode(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ProtocolError("message is not valid: " + str(error)[:120]) from None
    if not isinstance(message, dict):
        raise ProtocolError("message is not an object")
    return message


def decode_from_host(line: bytes) -> Message:
    """Return the message on one line that the host has sent, whose word is taken for its form: in a tenth of the time.

    Raises:
        ProtocolError: The line is not UTF-8, not JSON, not an object, or holds NaN.
    """
    try:
        message = _TRUSTING_DECODER.decode(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError("message is not valid: " + str(error)[:120]) from None
    if not isinstance(message, dict):
        raise ProtocolError("message is not an object")
    return message


def _depth(line: bytes) -> int:
    """Return a bound on how deep the line nests; brackets inside strings do not count."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in line:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


class Decoder:
    """Collects bytes and gives back whole messages.

    Args:
        limit: Longest line in bytes; a longer one is an error as soon as it is known to be longer.
    """

    def __init__(self, limit: int = MAX_REPLY_BYTES) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def rest(self) -> bytes:
        """The beginning of a line that is not complete yet."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes and return the lines they complete, without their newline.

        Raises:
            ProtocolError: A line is longer than the limit; the stream cannot be used further.
        """
        searched = len(self._buffer)
        self._buffer += data
        if self._buffer.find(b"\n", searched) < 0:
            lines = []
        else:
            *complete, rest = self._buffer.split(b"\n")
            self._buffer = rest
            lines = [bytes(line) for line in complete]
        if len(self._buffer) > self._limit or any(len(line) > self._limit for line in lines):
            self._buffer.clear()
            raise ProtocolError(f"message is longer than {self._limit} bytes")
        return lines


def reply(request_id: Any, result: Any) -> Message:
    """Return the reply to a request that succeeded."""
    return {"id": request_id, "result": result}


def refusal(request_id: Any, error: HostError) -> Message:
    """Return the reply to a request that failed."""
    return {"id": request_id, "error": error.to_dict()}
