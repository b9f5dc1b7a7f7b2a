"""Makes the methods of both clients from one set of operations.

An operation is a function of `_operations`: from a `Context` and arguments to a task, or to the
pages of a listing. The clients' methods have its arguments, its documentation, and the result of
its task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    import inspect

P = ParamSpec("P")
C = TypeVar("C", bound=Callable[..., Any])


def presented(method: C, operation: Callable[..., Any], result: str = "{}") -> C:
    """Gives a method the name, the documentation and the arguments of an operation.

    Args:
        method: The method.
        operation: The operation that it runs.
        result: What the method returns, where ``{}`` is the result of the operation's task.
    """
    if method.__name__ != "__init__":
        method.__name__ = method.__qualname__ = operation.__name__
        method.__doc__ = operation.__doc__
    method.__wrapped__ = _Presented(operation, result)  # type: ignore[attr-defined]
    return method


class _Presented:
    """What `inspect`, which takes long to load, finds behind a method."""

    def __init__(self, operation: Callable[..., Any], result: str) -> None:
        self._operation = operation
        self._result = result

    @property
    def __signature__(self) -> inspect.Signature:
        import inspect

        signature = inspect.signature(self._operation)
        parameters = list(signature.parameters.values())
        if parameters[0].name == "ctx":
            del parameters[0]
        me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        inner = str(signature.return_annotation).partition("[")[2].removesuffix("]")
        return signature.replace(
            parameters=[me, *parameters], return_annotation=self._result.format(inner)
        )
