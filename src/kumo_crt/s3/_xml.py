"""The little XML that S3 speaks; few answers have any, so the parser is loaded when one does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def escape(text: str) -> str:
    """Text as element content."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def parse(document: bytes) -> Element:
    """Parses a document, dropping XML namespaces.

    Raises:
        ValueError: It is not XML.
    """
    # First: _elementtree loads it so (PyCapsule_Import) that Ctrl-C is taken for its absence.
    import pyexpat  # noqa: F401
    from xml.etree import ElementTree

    try:
        # Expat (2.4.1 and later) bounds entity expansion; Python does not fetch external ones.
        root = ElementTree.fromstring(document)  # noqa: S314
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root
