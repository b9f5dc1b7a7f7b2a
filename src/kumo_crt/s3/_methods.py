"""Makes the methods of both clients from one set of operations.

An operation is a function of `_operations`: from a `Context` and arguments to a task, or to the
pages of a listing. The clients' methods have its arguments, its documentation, and the result of
its task.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
C = TypeVar("C", bound=Callable[..., Any])

_SELF = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)


def presented(method: C, operation: Callable[..., Any], result: str = "{}") -> C:
    """Gives a method the name, the documentation and the arguments of an operation.

    Args:
        method: The method.
        operation: The operation that it runs.
        result: What the method returns, where ``{}`` is the result of the operation's task.
    """
    signature = inspect.signature(operation)
    parameters = list(signature.parameters.values())
    if parameters[0].name == "ctx":
        del parameters[0]
    inner = str(signature.return_annotation).partition("[")[2].removesuffix("]")
    shown = signature.replace(
        parameters=[_SELF, *parameters], return_annotation=result.format(inner)
    )
    if method.__name__ != "__init__":
        method.__name__ = method.__qualname__ = operation.__name__
        method.__doc__ = operation.__doc__
    method.__signature__ = shown  # type: ignore[attr-defined]
    return method
