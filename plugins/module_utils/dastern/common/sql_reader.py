"""A reader that takes a statement word by word, as far as lint needs to understand it."""

from __future__ import annotations

from .sql_text import literal_value, tokens

Token = tuple[str, str, int]
"""Kind, text and offset, as `sql_text.tokens` yields them."""


class Reader:
    """A reader of a statement's tokens, or of a part of them, from left to right."""

    def __init__(self, source: str | list[Token]) -> None:
        self._tokens = list(tokens(source)) if isinstance(source, str) else source
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at >= len(self._tokens)

    @property
    def rest(self) -> list[Token]:
        return self._tokens[self._at :]

    @property
    def word(self) -> str:
        """Return the next word in upper case; '' if the next token is no word."""
        kind, text, _ = self._tokens[self._at] if not self.done else ("", "", 0)
        return text.upper() if kind == "word" else ""

    def skip(self) -> None:
        self._at += 1

    def take(self, *words: str) -> bool:
        """Step over `words` if exactly these come next; return whether they did."""
        ahead = self._tokens[self._at : self._at + len(words)]
        if [text.upper() if kind == "word" else "" for kind, text, _ in ahead] != list(words):
            return False
        self._at += len(words)
        return True

    def path(self) -> tuple[str, ...]:
        """Take the next name with its schema; it is empty at the end."""
        names: list[str] = []
        while not self.done:
            names.append(name_of(self._tokens[self._at]))
            self.skip()
            if self.done or self._tokens[self._at][1] != ".":
                break
            self.skip()
        return tuple(names)

    def name(self) -> str:
        """Take the next name and return it without its schema; it is '' at the end."""
        return (self.path() or ("",))[-1]

    def group(self) -> list[list[Token]]:
        """Take a pair of parentheses, if one opens here, and return the elements between them."""
        if self.done or self._tokens[self._at][1] != "(":
            return []
        depth, start = 0, self._at + 1
        while not self.done:
            depth += {"(": 1, ")": -1}.get(self._tokens[self._at][1], 0)
            self.skip()
            if depth == 0:
                break
        return split(self._tokens[start : self._at - 1])


def split(items: list[Token]) -> list[list[Token]]:
    """Cut `items` at the commas outside of parentheses."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in items:
        depth += {"(": 1, ")": -1}.get(token[1], 0)
        if token[1] == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def outside(items: list[Token]) -> list[Token]:
    """Return the `items` outside of parentheses, up to a parenthesis that closes around them."""
    kept, depth = [], 0
    for token in items:
        depth += {"(": 1, ")": -1}.get(token[1], 0)
        if depth < 0:
            break
        if depth == 0 and token[1] != ")":
            kept.append(token)
    return kept


def altered(source: str | list[Token]) -> tuple[tuple[str, ...], list[list[Token]]]:
    """Return the table of an ALTER TABLE, with its schema, and the actions on it."""
    reader = Reader(source)
    reader.take("ALTER")
    reader.take("FOREIGN")
    reader.take("TABLE")
    reader.take("IF", "EXISTS")
    reader.take("ONLY")
    table = reader.path()
    return table, [action for action in split(reader.rest) if action]


def upper(items: list[Token]) -> list[str]:
    """Return the texts of `items`, words in upper case."""
    return [text.upper() if kind == "word" else text for kind, text, _ in items]


def line(items: list[Token]) -> str:
    """Return `items` as one line for a pattern: words in upper case, and `""` in place of each quoted name."""
    return " ".join('""' if kind == "ident" else text.upper() if kind == "word" else text for kind, text, _ in items)


def name_of(token: Token) -> str:
    """Return the name that a word or a quoted identifier stands for."""
    kind, text, _ = token
    return literal_value(text) if kind == "ident" else text.lower()
