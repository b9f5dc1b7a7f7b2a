"""The hand-written stub of the extension has what the extension has; the package is typed."""

from __future__ import annotations

import ast
from importlib import resources

from kumo_crt import _core


def _stub() -> ast.Module:
    return ast.parse((resources.files("kumo_crt") / "_core.pyi").read_text(encoding="utf-8"))


def _members(body: list[ast.stmt]) -> set[str]:
    names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {
        node.target.id
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return {name for name in names if not name.startswith("_")}


def _public(thing: object) -> set[str]:
    return {name for name in vars(thing) if not name.startswith("_")}


def test_the_package_says_that_it_is_typed() -> None:
    assert (resources.files("kumo_crt") / "py.typed").is_file()


def test_names() -> None:
    assert _members(_stub().body) == _public(_core)


def test_members_of_classes() -> None:
    classes = [node for node in _stub().body if isinstance(node, ast.ClassDef)]
    assert len(classes) > 5
    for node in classes:
        found = getattr(_core, node.name)
        if not issubclass(found, BaseException):  # their members are set on each object
            assert _members(node.body) == _public(found), node.name
