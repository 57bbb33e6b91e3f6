"""Reads XML without document types, so that no entity can expand or read another file; elements know their line."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from mmmamba.errors import InputError


@dataclass
class Element:
    """An element of an XML file.

    Args:
        tag: Its name.
        line: Where it begins, from 1.
        text: What is directly in it.
        children: The elements in it.
    """
    tag: str
    line: int
    text: str = ''
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Element]:
        """Yields the children with a name."""
        return (child for child in self.children if child.tag == tag)

    def get(self, tag: str) -> Element | None:
        """Returns the first child with a name; None if there is none."""
        return next(self.all(tag), None)


def read_xml(content: bytes, path: Path) -> Element:
    """Returns the outermost element.

    Args:
        content: What is in the file.
        path: The file, for messages.

    Raises:
        InputError: It is not well-formed, or declares a document type.
    """
    parser, top, open_elements = expat.ParserCreate(), Element('', 0), []
    open_elements.append(top)

    def start(tag: str, _: dict) -> None:
        element = Element(tag, parser.CurrentLineNumber)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def refuse(*_: object) -> None:
        raise InputError(f'{path}, line {parser.CurrentLineNumber}: it declares a document type (DOCTYPE), which '
                         f'annotations do not need and which is not read: remove it')

    def add_text(text: str) -> None:
        open_elements[-1].text += text

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_elements.pop()
    parser.CharacterDataHandler = add_text
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = expat.ErrorString(error.code) if isinstance(error, expat.ExpatError) else error
        raise InputError(f'{path}, line {parser.ErrorLineNumber}: this is not valid XML: {reason}') from None
    return top.children[0]
