"""Just enough HTML reading for tests: elements with their attributes and text, forms with their fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"})


@dataclass
class Element:
    """A tag, its attributes, and what is inside it."""

    tag: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        return self.attributes[name]

    def get(self, name: str) -> str | None:
        return self.attributes.get(name)

    @property
    def text(self) -> str:
        """Everything written inside, with single spaces."""
        return " ".join(" ".join(self._texts()).split())

    def _texts(self, *, spoken: bool = False) -> Iterator[str]:
        yield from self.texts
        for child in self.children:
            if not (spoken and child.get("aria-hidden") == "true"):
                yield from child._texts(spoken=spoken)

    def all(self, tag: str | None = None, **attributes: str) -> list[Element]:
        """The elements inside with this tag and these attributes."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            element
            for element in self._inside()
            if tag in {None, element.tag} and wanted.items() <= element.attributes.items()
        ]

    def one(self, tag: str | None = None, **attributes: str) -> Element:
        """The only such element."""
        found = self.all(tag, **attributes)
        assert len(found) == 1, f"{len(found)} × {tag} {attributes}"
        return found[0]

    def _inside(self) -> Iterator[Element]:
        for child in self.children:
            yield child
            yield from child._inside()

    def button(self, name: str) -> Element:
        """The button that a screen reader calls ``name``."""
        found = [button for button in self.all("button") if self._name(button) == name]
        assert len(found) == 1, f"{len(found)} buttons {name!r}"
        return found[0]

    def buttons(self) -> set[str]:
        """What all buttons are called."""
        return {self._name(button) for button in self.all("button")}

    def _name(self, element: Element) -> str:
        if label := element.get("aria-label"):
            return label
        return " ".join(" ".join(element._texts(spoken=True)).split())

    def labelled(self, label: str) -> Element:
        """The field with this label."""
        return self.one(id=next(found["for"] for found in self.all("label") if found.text == label))

    def fields(self) -> dict[str, str]:
        """What a browser would send of this form if nobody touched it."""
        inputs = [
            element
            for element in self.all("input")
            if element.get("type") not in {"radio", "checkbox"} or "checked" in element.attributes
        ]
        return {element["name"]: element.get("value") or "" for element in inputs}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("document", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        # The text keeps its place among the children by being one.
        self._open[-1].children.append(Element("#text", {}, texts=[data]))


def read(html: str) -> Element:
    """Parse a page or a fragment; tags that are not closed properly fail the test."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader._open == [reader.root], f"<{reader._open[-1].tag}> is never closed"
    return reader.root
