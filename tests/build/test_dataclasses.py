"""The classes that `kumo_crt._dataclasses` makes are those that the standard library would make."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from kumo_crt import _dataclasses
from kumo_crt._dataclasses import replace


def _class(name: str, module: Any, **options: bool) -> Any:
    """A class with fields of all kinds, made by `dataclasses` or by ours."""

    class Made:
        """Some values."""

        a: int
        b: str = "b"
        secret: str | None = module.field(default=None, repr=False)
        items: list[int] = module.field(default_factory=list)
        note: str = module.field(default="", compare=False)

        @property
        def doubled(self) -> int:
            return 2 * self.a

    Made.__name__ = Made.__qualname__ = name  # pickle looks for that
    return module.dataclass(**options)(Made)


Frozen = _class("Frozen", _dataclasses, frozen=True, slots=True)
Mutable = _class("Mutable", _dataclasses, slots=True)
PAIRS = [
    (Frozen, _class("Frozen", dataclasses, frozen=True, slots=True)),
    (Mutable, _class("Mutable", dataclasses, slots=True)),
]


def _outcome(function: Callable[[], object]) -> object:
    try:
        return function()
    except Exception as error:
        return type(error)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_instances_behave_alike(ours: Any, theirs: Any) -> None:
    def of(kind: Any) -> list[object]:
        one, same = kind(1, secret="s"), kind(a=1, secret="s", note="another")
        other = kind(1, "c", None, [1])
        text = repr(other).partition("(")[2]
        return [
            one == same,
            one == other,
            one == 1,
            one.doubled,
            text,
            "secret" in repr(one),
            one.items is same.items,
            dataclasses.asdict(other),
            dataclasses.astuple(other),
            [(f.name, f.type, f.init, f.repr) for f in dataclasses.fields(one)],
            dataclasses.is_dataclass(kind),
            dataclasses.asdict(dataclasses.replace(other, a=5)),
            kind.__match_args__,
            kind.__slots__,
            list(inspect.signature(kind).parameters),
            _outcome(lambda: kind()),
            _outcome(lambda: kind(1, unknown=2)),
            _outcome(lambda: setattr(one, "a", 2)),
            _outcome(lambda: delattr(one, "b")),
            _outcome(lambda: hash(other)),
            type(_outcome(lambda: hash(kind(1, items=())))),
            kind.__doc__ is not None,
        ]

    assert of(ours) == of(theirs)


@pytest.mark.parametrize("kind", [Frozen, Mutable])
def test_copies_and_pickles(kind: Any) -> None:
    one = kind(1, "c", "s", [1, 2], "n")
    for made in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one)), replace(one)):
        assert made is not one
        assert dataclasses.astuple(made) == (1, "c", "s", [1, 2], "n")
    assert copy.copy(one).items is one.items
    assert copy.deepcopy(one).items is not one.items
    assert replace(one, a=7, items=[]) == kind(7, "c", "s", [])


@pytest.mark.parametrize("kind", [kind for pair in PAIRS for kind in pair])
def test_some_values_replaced(kind: Any) -> None:
    assert replace(kind(1, "b"), a=7, items=[2]) == kind(7, "b", items=[2])


@pytest.mark.parametrize("kind", [Frozen, Mutable])
def test_there_is_room_for_the_fields_alone(kind: Any) -> None:
    with pytest.raises(AttributeError):
        kind(1).unknown = 2


def test_what_is_not_given_to_the_constructor() -> None:
    @_dataclasses.dataclass(frozen=True)
    class Counted:
        name: str
        seen: dict[str, int] = _dataclasses.field(default_factory=dict, init=False, repr=False)

        def __post_init__(self) -> None:
            self.seen[self.name] = 1

    one = Counted("x")
    assert one.seen == {"x": 1}
    assert replace(one, name="y").seen == {"y": 1}
    assert repr(one).endswith("Counted(name='x')")
    with pytest.raises(TypeError):
        Counted("x", seen={})  # type: ignore[call-arg]
