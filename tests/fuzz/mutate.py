"""Spoils good input: deterministic, seeded, structural where the input is JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

#: Nearly as long as anything that the hub reads of its issuer (`issuer_http.MAX_REPLY`).
LONGEST = 250 * 1024
#: One example in so many is as long as that.
BIG_EVERY = 250

_WORDS = [
    "", " ", "\x00", "\n", "\r\n", "\ud800", "\u202e", "\uffff", "é", "💥", "%00", "%ff", "..",
    "//", "none", "HS256", "RS256", "at+jwt", "AUP ", "sign ", "user disabled", "account", "locked",
    "reuse",
    "http://attacker.invalid/", "https://[", "javascript:alert(1)", "https://iam.example.org:99999/",
    "NaN", "Infinity", "1e999", "-0", "0x1", "null", "true", "<script>", "'", '"', "\\", ".", "..."
]  # fmt: skip
_NUMBERS: list[Any] = [
    0, -1, 1, 2**31, 2**63, 10**20, 10**400, -(10**400), 0.1, 1e308, -1e308,
    float("nan"), float("inf"), float("-inf"), 1_800_000_000, 253_402_300_800,
]  # fmt: skip
_PIECES = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\u0000", b"\\ud800", b"\\", b"\x00", b"\xff",
    b"\xef\xbb\xbf", b"\xff\xfe", b"null", b"NaN", b"Infinity", b"1e999", b"9" * 40, b"AUP ", b".",
    b"=", b"&", b"%", b"%00", b"%ff", b"%%", b";", b"+", b"~", b"a", b" ", b"\t", b"\r\n", b"eyJ",
]  # fmt: skip


class Mutator:
    """``mutate(seed)`` gives one spoilt input; the same seed number gives the same sequence."""

    def __init__(self, number: int) -> None:
        self.rng = random.Random(number)  # noqa: S311 - chosen, not secret

    def mutate(self, seeds: Sequence[bytes]) -> bytes:
        """One to four changes to one of the seeds; now and then a very long one."""
        rng = self.rng
        raw = rng.choice(seeds)
        if rng.randrange(BIG_EVERY) == 0:
            return self._big(raw)[:LONGEST]
        if rng.random() < 0.55 and (made := self._structural(raw)) is not None:
            raw = made
            if rng.random() < 0.8:
                return raw
        for _ in range(rng.randint(1, 4)):
            raw = self._bytes(raw, rng.choice(seeds))
        return raw

    # -- bytes -------------------------------------------------------------------------

    def _bytes(self, raw: bytes, other: bytes) -> bytes:
        rng, at = self.rng, self.rng.randint(0, len(raw))
        end = min(len(raw), at + rng.choice((1, 1, 2, 4, 16, 64)))
        match rng.randrange(7):
            case 0:
                return raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :]
            case 1:
                return raw[:at] + raw[end:]
            case 2:
                return raw[:at] + rng.choice(_PIECES) * rng.choice((1, 1, 3, 20)) + raw[at:]
            case 3:
                return raw[:at] + raw[at:end] * rng.choice((2, 3, 10)) + raw[end:]
            case 4:
                return raw[:at] + other[rng.randint(0, len(other)) :]
            case 5:
                return raw[:at]
            case _:
                return raw[:at] + rng.randbytes(rng.randint(1, 8)) + raw[at:]

    def _big(self, raw: bytes) -> bytes:
        rng = self.rng
        piece = rng.choice(
            (*_PIECES, b"[],", b"{},", b"[[", b'{"a":', b'"",', b"0,", b"1.", b"AUP ")
        )
        many = piece * (LONGEST // len(piece))
        match rng.randrange(5):
            case 0:
                return many
            case 1:
                return b"[" + many[: LONGEST - 8].rstrip(b",") + b"]"
            case 2:
                at = rng.randint(0, len(raw))
                return raw[:at] + many[: LONGEST - len(raw)] + raw[at:]
            case 3:
                return raw * (LONGEST // max(1, len(raw)))
            case _:
                try:
                    document = json.loads(raw)
                except (ValueError, RecursionError):
                    return many
                return self._grown(document)

    def _grown(self, document: Any) -> bytes:
        """One text, list or number of the document is as long as it can be."""
        rng, room = self.rng, LONGEST - 4096
        word = rng.choice([w for w in _WORDS if w])
        long: Any = rng.choice([
            word * (room // max(1, len(json.dumps(word)) - 2)),
            [word] * (room // (len(json.dumps(word)) + 2)),
            ["x"] * (room // 5),
            {f"k{n}": n for n in range(room // 20)},
            [[]] * (room // 4),
            "\x00" * (room // 6),
        ])  # fmt: skip
        if isinstance(document, dict) and document:
            document[rng.choice([*document])] = long
            return _dumped(document)
        return _dumped(long)

    # -- JSON --------------------------------------------------------------------------

    def _structural(self, raw: bytes) -> bytes | None:
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError):
            return None
        for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
            document = self._changed(document)
        return _dumped(document)

    def _changed(self, node: Any, depth: int = 0) -> Any:
        """The document with one node changed."""
        rng = self.rng
        if isinstance(node, dict) and node and depth < 6 and rng.random() < 0.85:
            key = rng.choice([*node])
            match rng.randrange(6):
                case 0:
                    return {k: v for k, v in node.items() if k != key}
                case 1:
                    return {**node, rng.choice(_WORDS): self._value()}
                case 2:
                    return {**node, key: node[rng.choice([*node])]}
                case _:
                    return {**node, key: self._changed(node[key], depth + 1)}
        if isinstance(node, list) and node and depth < 6 and rng.random() < 0.7:
            at = rng.randrange(len(node))
            changed = self._changed(node[at], depth + 1)
            return [*node[:at], changed, *node[at + rng.randint(0, 1) :]]
        if isinstance(node, str) and rng.random() < 0.5:
            at = rng.randint(0, len(node))
            return node[:at] + rng.choice(_WORDS) * rng.choice((1, 1, 2, 40)) + node[at:]
        return self._value()

    def _value(self) -> Any:
        rng = self.rng
        match rng.randrange(8):
            case 0:
                return None
            case 1:
                return rng.random() < 0.5
            case 2 | 3:
                return rng.choice(_NUMBERS)
            case 4:
                return [self._value() for _ in range(rng.randint(0, 3))]
            case 5:
                return {rng.choice(_WORDS): rng.choice(_WORDS)}
            case _:
                return rng.choice(_WORDS) * rng.choice((1, 1, 1, 300))


def _dumped(document: Any) -> bytes:
    return json.dumps(document).encode()
