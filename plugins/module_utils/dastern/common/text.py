"""Text from a database, a file or a log, made safe to show: a terminal obeys none of it, and it can't forge a line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

# C0, DEL and C1; the separators of lines and paragraphs; characters that turn the direction of writing or are invisible
# (Unicode's category Cf, without the zero-width space and joiners, which Khmer and emoji need); surrogates.
_OBEYED = (
    r"\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
_CONTROL = re.compile(f"[{_OBEYED}]")
_CONTROL_IN_LINES = re.compile(f"(?![\t\n])[{_OBEYED}]")
# JSON itself escapes C0 only.
_IN_JSON = re.compile(f"(?![\x00-\x1f])[{_OBEYED}]")
_SHOWN = ("msg", "lines", "next", "log", "diff", "warnings", "ansible_stats")
# Each entry of these is one line; other texts may have several.
_LINES = ("lines", "next", "log")


def shown(text: str, *, lines: bool = False) -> str:
    """Return `text` with the characters that a terminal obeys as escapes, such as `\\x1b`, `\\n` and `\\u202e`.

    With `lines`, \\n and \\t stay.
    """
    pattern = _CONTROL_IN_LINES if lines else _CONTROL
    return pattern.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def shown_json(text: str) -> str:
    """Return JSON of the same value with these characters as JSON's own escapes."""
    units = lambda match: match[0].encode("utf-16-be", "surrogatepass").hex()  # noqa: E731
    return _IN_JSON.sub(lambda match: re.sub(r"(.{4})", r"\\u\1", units(match)), text)


def presentable(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a module's result so that Ansible may print it.

    All of a failed result is made safe. Of another result only the printed parts are: roles go on with the rest.
    """
    return {
        name: _safe(value, lines=name not in _LINES) if result.get("failed") or name in _SHOWN else value
        for name, value in result.items()
    }


def _safe(value: Any, *, lines: bool = True) -> Any:
    if isinstance(value, str):
        return shown(value, lines=lines)
    if isinstance(value, Mapping):
        # The header of a diff is one line, whatever the diff's texts are.
        return {
            shown(name) if isinstance(name, str) else name: _safe(
                item, lines=name not in _LINES and not str(name).endswith("_header")
            )
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_safe(item, lines=lines) for item in value]
    return value


def told(text: str, longest: int = 60) -> str:
    """Return somebody else's text quoted and cut, so that it can't be taken for our own words or commands."""
    safe = shown(text).replace("`", "'").replace("ansible-playbook", "ansible playbook")
    return json.dumps(safe if len(safe) <= longest else f"{safe[: longest - 4]} ...", ensure_ascii=False)
