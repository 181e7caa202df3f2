"""A strict parser of device-tree source, as far as overlays need it (Devicetree Specification 0.4,
chapter 6): `&label` nodes at the top, properties of strings and cells, references, comments."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""(?P<space>\s+|/\*.*?\*/|//[^\n]*)
    |(?P<directive>/[a-z0-9-]+/)
    |(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<number>0x[0-9a-fA-F]+(?![\w.,#-])|\d+(?![\w.,#@-]))
    |(?P<reference>&[A-Za-z_]\w*)
    |(?P<label>[A-Za-z_]\w*:)
    |(?P<name>[\w#][\w,.+?#-]*(?:@[0-9a-f,]+)?)
    |(?P<mark>[{}=;,<>])""",
    re.X | re.S,
)

Cell = int | str
"""A number, or the label of the node whose phandle is meant."""


class SourceError(ValueError):
    """The source breaks a rule; the text names it."""


@dataclass
class Node:
    """A node: values are strings or lists of cells, none for a property without a value."""

    name: str
    label: str | None = None
    properties: dict[str, list[str | list[Cell]]] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)

    def cells(self, name: str) -> list[Cell]:
        """All cells of a property."""
        flat: list[Cell] = []
        for value in self.properties[name]:
            assert isinstance(value, list), f"{name} holds a string"
            flat += value
        return flat

    def text(self, name: str) -> str:
        (value,) = self.properties[name]
        assert isinstance(value, str), f"{name} holds cells"
        return value


class _Parser:
    def __init__(self, source: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(source):
            match = _TOKEN.match(source, at)
            if match is None:
                raise SourceError(f"can't read {source[at : at + 20]!r}")
            kind = match.lastgroup or ""
            if kind != "space":
                self.tokens.append((kind, match.group()))
            at = match.end()
        self.at = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self, *wanted: str) -> str:
        """The next token, which is one of these kinds or marks."""
        kind, text = self.peek()
        if kind not in wanted and text not in wanted:
            raise SourceError(f"{text!r} where {' or '.join(wanted)} has to be")
        self.at += 1
        return text

    def source(self) -> dict[str, Node]:
        for directive in ("/dts-v1/", "/plugin/"):
            self.take(directive)
            self.take(";")
        nodes: dict[str, Node] = {}
        while self.peek()[0] != "end":
            label = self.take("reference")[1:]
            if label in nodes:
                raise SourceError(f"&{label} comes twice")
            nodes[label] = self.body(Node(label))
        return nodes

    def body(self, node: Node) -> Node:
        self.take("{")
        while self.peek()[1] != "}":
            label = self.take("label")[:-1] if self.peek()[0] == "label" else None
            name = self.take("name")
            if label is None and self.peek()[1] in ("=", ";"):
                if node.nodes:
                    raise SourceError(f"property {name} after a node")
                if name in node.properties:
                    raise SourceError(f"property {name} comes twice")
                node.properties[name] = self.values()
            else:
                if name in node.nodes:
                    raise SourceError(f"node {name} comes twice")
                node.nodes[name] = self.body(Node(name, label))
        self.take("}")
        self.take(";")
        return node

    def values(self) -> list[str | list[Cell]]:
        values: list[str | list[Cell]] = []
        if self.peek()[1] == "=":
            mark = self.take("=")
            while mark != ";":
                if self.peek()[0] == "string":
                    values.append(self.take("string")[1:-1])
                else:
                    values.append(self.cells())
                mark = self.take(",", ";")
        else:
            self.take(";")
        return values

    def cells(self) -> list[Cell]:
        self.take("<")
        cells: list[Cell] = []
        while self.peek()[1] != ">":
            text = self.take("number", "reference")
            if not text.startswith("&") and int(text, 0) >> 32:
                raise SourceError(f"{text} is wider than a cell")
            cells.append(text[1:] if text.startswith("&") else int(text, 0))
        self.take(">")
        return cells


def parse(source: str) -> dict[str, Node]:
    """The nodes of an overlay, by the label of the node that each extends."""
    return _Parser(source).source()
