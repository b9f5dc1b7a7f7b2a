"""`dataclasses` for what is loaded when a program starts: the same classes in a tenth of the time.

The standard library's decorator compiles half a dozen functions a class, 0.3 to 0.7 ms, and its
module loads `inspect`; with a hundred classes that was most of what importing kumo_crt took. Here
only ``__init__`` is compiled; the other methods are the same functions for all classes.

Instances are ones of dataclasses to everybody else: `dataclasses.fields`, `asdict`, `replace` and
pattern matching work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform, overload

T = TypeVar("T")
C = TypeVar("C", bound=type)
_REQUIRED: Any = object()


class _Field:
    __slots__ = ("compare", "default", "default_factory", "init", "repr")

    def __init__(
        self,
        default: Any,
        default_factory: Callable[[], Any] | None = None,
        init: bool = True,
        repr: bool = True,  # noqa: A002 - as dataclasses.field has it
        compare: bool = True,
    ) -> None:
        self.default = default
        self.default_factory = default_factory
        self.init = init
        self.repr = repr
        self.compare = compare


def field(
    *,
    default: Any = _REQUIRED,
    default_factory: Callable[[], Any] | None = None,
    init: bool = True,
    repr: bool = True,  # noqa: A002
    compare: bool = True,
) -> Any:
    """`dataclasses.field`."""
    return _Field(default, default_factory, init, repr, compare)


@overload
def dataclass(cls: type[T], /) -> type[T]: ...
@overload
def dataclass(*, frozen: bool = False, slots: bool = False) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(field_specifiers=(field,))
def dataclass(cls: Any = None, /, *, frozen: bool = False, slots: bool = False) -> Any:
    """`dataclasses.dataclass`. Fields are always slots; without ``slots`` there is more room."""
    if cls is None:
        return lambda decorated: _made(decorated, frozen, slots)
    return _made(cls, frozen, slots)


def replace(instance: T, /, **changes: Any) -> T:
    """`dataclasses.replace`, which also takes those of the standard library."""
    fields: dict[str, _Field] | None = getattr(type(instance), "_fields", None)
    if fields is None:
        import dataclasses

        standard: Any = instance
        changed: T = dataclasses.replace(standard, **changes)
        return changed
    for name, spec in fields.items():
        if spec.init and name not in changes:
            changes[name] = getattr(instance, name)
    return type(instance)(**changes)


def _made(cls: type, frozen: bool, slots: bool) -> type:
    own = cls.__dict__
    fields: dict[str, _Field] = {}
    for name in own.get("__annotations__", ()):
        found = own.get(name, _REQUIRED)
        fields[name] = found if isinstance(found, _Field) else _Field(found)
    # Slots cannot be added to a class that exists.
    left_out = {*fields, "__dict__", "__weakref__"}
    body = {name: value for name, value in own.items() if name not in left_out}
    body["__slots__"] = body["__match_args__"] = tuple(fields)
    if not slots:
        body["__slots__"] += ("__dict__", "__weakref__")
    body["_fields"] = fields
    body["__dataclass_fields__"] = _StandardFields()
    methods = _FROZEN if frozen else _MUTABLE
    for name, method in methods.items():
        body.setdefault(name, method)
    if body["__eq__"] is not _eq and "__hash__" not in own:
        body["__hash__"] = None
    made = type(cls)(cls.__name__, cls.__bases__, body)
    made.__init__ = _init(made, fields, frozen)  # type: ignore[misc]
    return made


def _init(cls: type, fields: dict[str, _Field], frozen: bool) -> Any:
    """Compiles ``__init__``."""
    places: dict[str, Any] = {"_REQUIRED": _REQUIRED}
    parameters, lines = [], []
    for name, spec in fields.items():
        value = name
        if spec.default_factory is not None:
            places[f"_new_{name}"] = spec.default_factory
            value = f"_new_{name}()"
            if spec.init:
                parameters.append(f"{name}=_REQUIRED")
                value = f"{value} if {name} is _REQUIRED else {name}"
        elif spec.default is not _REQUIRED:
            places[f"_is_{name}"] = spec.default
            if spec.init:
                parameters.append(f"{name}=_is_{name}")
            else:
                value = f"_is_{name}"
        else:
            parameters.append(name)
        if frozen:
            # The slot itself: assignment is refused.
            places[f"_set_{name}"] = getattr(cls, name).__set__
            lines.append(f" _set_{name}(self, {value})")
        else:
            lines.append(f" self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()")
    text = f"def __init__(self, {', '.join(parameters)}):\n" + "\n".join(lines or [" pass"])
    scope: dict[str, Any] = {}
    exec(text, places, scope)  # noqa: S102 - made of the names of a class of ours
    init = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__module__ = cls.__module__
    init.__annotations__ = {n: t for n, t in cls.__annotations__.items() if fields[n].init}
    return init


# -- methods of all classes ------------------------------------------------------------------------


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name, spec in self._fields.items() if spec.compare)


def _eq(self: Any, other: object) -> Any:
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _repr(self: Any) -> str:
    shown = (f"{n}={getattr(self, n)!r}" for n, spec in self._fields.items() if spec.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _reduce(self: Any) -> tuple[Any, ...]:
    return _restored, (type(self), tuple(getattr(self, name) for name in self._fields))


def _restored(cls: type[T], values: tuple[Any, ...]) -> T:
    """Makes an instance as it was, for `pickle` and `copy`."""
    instance = object.__new__(cls)
    for name, value in zip(cls._fields, values, strict=True):  # type: ignore[attr-defined]
        object.__setattr__(instance, name, value)
    return instance


def _set(self: object, name: str, value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(self: object, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


_MUTABLE: dict[str, Any] = {
    "__eq__": _eq,
    "__hash__": None,
    "__repr__": _repr,
    "__reduce__": _reduce,
}
_FROZEN: dict[str, Any] = {
    **_MUTABLE,
    "__hash__": _hash,
    "__setattr__": _set,
    "__delattr__": _delete,
}


class _StandardFields:
    """What the standard library looks for in a class; made when it does so."""

    def __get__(self, instance: object, owner: Any) -> Any:
        import dataclasses

        specs = []
        for name, spec in owner._fields.items():
            how: dict[str, Any] = {"init": spec.init, "repr": spec.repr, "compare": spec.compare}
            if spec.default_factory is not None:
                how["default_factory"] = spec.default_factory
            elif spec.default is not _REQUIRED:
                how["default"] = spec.default
            specs.append((name, owner.__annotations__[name], dataclasses.field(**how)))
        made: Any = dataclasses.make_dataclass(owner.__name__, specs)
        found = made.__dataclass_fields__
        owner.__dataclass_fields__ = found
        return found
