"""The hand-written stub of the extension has what the extension has; the package is typed."""

from __future__ import annotations

import ast
import inspect
from importlib import resources

import kumo_crt
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


def test_what_is_public_says_what_it_is() -> None:
    """help() is all that a user may have: also of what is native."""
    undocumented = []
    for name in kumo_crt.__all__:
        about = inspect.getdoc(getattr(kumo_crt, name)) if name != "__version__" else "a text"
        # pybind11 and data classes write signatures by themselves.
        lines = [line for line in (about or "").splitlines() if not line.startswith(f"{name}(")]
        if not any(line.strip() for line in lines):
            undocumented.append(name)
    assert undocumented == []
