"""Which functions a topology takes: how many parameters they have, and of which kind they are.

Rule of this module: a function is looked at once, when the topology is built; nothing here happens for a record. Every
builder asks here, so that all refusals read alike: who refuses, what is expected, what was given and where it stands.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, Literal

from streamstate.errors import TopologyError

__all__ = ["by_field", "checked_function", "checked_instance", "checked_supplier", "own_initial", "takes_key"]

# ``plain`` returns its result, ``iterable`` may also yield it, ``coroutine`` returns what can be awaited.
Kind = Literal["plain", "iterable", "coroutine"]

_AWAITABLE = ("Awaitable", "Coroutine", "Future", "Task")
_SHOWN = 80


def checked_function(function: object, where: str, *forms: str, kind: Kind = "plain", argument: str = "") -> int:
    """Check that an operator was given a function that it can call.

    How many parameters a call must give decides between several forms, the first that fits being taken. A function
    that does not say what it takes, as some that are built in, is taken to be of the first form.

    Args:
        function: what was given.
        where: it was given, for errors, such as ``map after 'lines'``.
        forms: what it may take, such as ``"key, value"``; ``""`` for nothing.
        kind: of function.
        argument: its name where the operator takes several functions.

    Returns:
        The place of the form that it has among ``forms``.

    Raises:
        TopologyError: it is no function, one of another kind, or one that takes something else.

    >>> checked_function(lambda key, value: value, "map_values after 'lines'", "value", "key, value")
    1
    >>> checked_function(str.upper, "map_values after 'lines'", "value", "key, value")
    0
    >>> checked_function(5, "filter after 'lines'", "key, value")
    Traceback (most recent call last):
    streamstate.errors.TopologyError: filter after 'lines' takes a function of (key, value), not 5, which is no function
    """
    expected = f"{where} takes {f'as {argument} ' if argument else ''}{_expected(forms, kind)}"
    if not callable(function):
        raise TopologyError(f"{expected}, not {_short(repr(function))}, which is no function")
    _refuse_kind(function, expected, kind)
    takes = _positional(function)
    if takes is None:
        return 0
    required, most, shown = takes
    for place, form in enumerate(forms):
        if required <= _parameters(form) <= most:
            return place
    raise TopologyError(f"{expected}, not {_shown(function)}, which takes {shown}")


def by_field(given: str | Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A function of (key, value): the one given, or the one that takes the field of this name out of the value.

    >>> by_field("shop")("a key", {"shop": "EWR", "amount": 5})
    'EWR'
    """
    if not isinstance(given, str):
        return given
    field = given
    return lambda key, value: value[field]


def takes_key(
    function: object, where: str, *parameters: str, kind: Kind = "plain", argument: str = "", key: str = "key"
) -> bool:
    """As ``checked_function``, for functions that may take the key in front of their parameters: true when it does.

    >>> takes_key(lambda key, left, right: (left, right), "join after 'a'", "left", "right")
    True
    """
    short = ", ".join(parameters)
    return checked_function(function, where, short, f"{key}, {short}", kind=kind, argument=argument) == 1


def checked_supplier(supplier: object, where: str, base: type, method: str) -> Callable[[], Any]:
    """Check that an operator was given a class, or a function that makes an instance for each task.

    Args:
        supplier: what was given.
        where: it was given, for errors.
        base: of the class.
        method: of the class that is called with (key, value).

    Returns:
        The supplier.

    Raises:
        TopologyError: it is neither, or the class cannot be used as it is.
    """
    name = base.__name__
    expected = f"{where} takes a {name} subclass or a function without parameters that makes a new {name} for each task"
    if isinstance(supplier, base):
        raise TopologyError(
            f"{expected}, not one {type(supplier).__name__} for all tasks: pass the class, or "
            f"lambda: {type(supplier).__name__}(...)"
        )
    if not callable(supplier) or (isinstance(supplier, type) and not issubclass(supplier, base)):
        raise TopologyError(f"{expected}, not {_shown(supplier)}")
    _refuse_kind(supplier, expected, "plain")
    takes = _positional(supplier)
    if takes is not None and takes[0] > 0:
        more = f": pass lambda: {supplier.__name__}(...)" if isinstance(supplier, type) else ""
        raise TopologyError(f"{expected}, not {_shown(supplier)}, which takes {takes[2]}{more}")
    if isinstance(supplier, type):
        given = getattr(supplier, method)
        if given is getattr(base, method) and supplier is not base:
            raise TopologyError(f"{where}: {supplier.__name__} does not define {method}(self, key, value)")
        checked_function(partial(given, None), f"{where}: {supplier.__name__}.{method}", "key, value")
    return supplier


def checked_instance(instance: object, where: str, base: type, method: str) -> None:
    """Check what a supplier has made, for what only shows then: the function of ``checked_supplier`` was not called.

    Raises:
        TopologyError: it cannot be used.
    """
    for name in ("init", method, "close"):
        if not callable(getattr(instance, name, None)):
            raise TopologyError(
                f"{where}: the supplier made {_shown(instance)}, which has no {name}(): it has to return a new "
                f"{base.__name__}"
            )
    kind = type(instance).__name__
    checked_function(getattr(instance, method), f"{where}: {kind}.{method}", "key, value")


def _refuse_kind(function: Callable[..., Any], expected: str, kind: Kind) -> None:
    called = _called(function)
    if inspect.isasyncgenfunction(called):
        raise TopologyError(f"{expected}, not the asynchronous generator function {_shown(function)}")
    if kind == "coroutine":
        if not _may_await(function, called):
            raise TopologyError(
                f"{expected}, not {_shown(function)}, which is none. Make it an async def. What blocks or only "
                "computes belongs into map_values or map_batches; what returns an awaitable, into a lambda"
            )
        return
    if inspect.iscoroutinefunction(called):
        raise TopologyError(
            f"{expected}, not the coroutine function {_shown(function)}: nobody would await it here, map_async does"
        )
    if kind == "plain" and inspect.isgeneratorfunction(called):
        raise TopologyError(
            f"{expected}, not the generator function {_shown(function)}: a call of it runs nothing. Return the "
            "result, or use flat_map or flat_map_values for several"
        )


def _may_await(function: Callable[..., Any], called: Any) -> bool:
    if inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(inspect.unwrap(called)):
        return True
    if isinstance(function, type):
        return hasattr(function, "__await__")
    if getattr(called, "__name__", "") == "<lambda>":
        # A lambda cannot be a coroutine function, and may well return what one returns.
        return True
    if inspect.isgeneratorfunction(called):
        return False
    returns = str(getattr(called, "__annotations__", {}).get("return", ""))
    return any(name in returns for name in _AWAITABLE)


def _called(function: Any) -> Any:
    """The function itself, inside of partial objects and of objects that can be called."""
    while isinstance(function, partial):
        function = function.func
    if inspect.isroutine(function) or isinstance(function, type):
        return function
    return getattr(function, "__call__", function)  # noqa: B004 - the method itself is wanted


def _positional(function: Callable[..., Any]) -> tuple[int, float, str] | None:
    """How many values a call must give, how many it may, and all parameters as text; None where it does not say."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    required, most = 0, 0.0
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = float("inf")
        elif parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty:
                # Nobody would give it.
                required = 1_000
        elif parameter.kind is not parameter.VAR_KEYWORD:
            most += 1
            required += parameter.default is parameter.empty
    bare = signature.replace(
        parameters=[parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()],
        return_annotation=signature.empty,
    )
    return required, most, str(bare)


def _parameters(form: str) -> int:
    return len(form.split(",")) if form else 0


def _expected(forms: tuple[str, ...], kind: Kind) -> str:
    of = " or of ".join(f"({form})" for form in forms)
    name = "a coroutine function" if kind == "coroutine" else "a function"
    return f"{name} without parameters" if of == "()" else f"{name} of {of}"


def _shown(function: Any) -> str:
    """A function as errors call it."""
    called = _called(function)
    code = getattr(called, "__code__", None)
    if code is not None and not isinstance(function, type):
        return f'{called.__name__} (File "{code.co_filename}", line {code.co_firstlineno})'
    return _short(getattr(function, "__qualname__", None) or repr(function))


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def own_initial(initializer: Callable[[], Any]) -> Callable[[], Any]:
    """An initializer that gives every key an object of its own.

    One that gives every key the same object, which can change in place, would show what is added for one key in the
    aggregates of others: of such an object each key gets a copy. The initializer is called twice to find out.

    >>> own_initial(list) is list
    True
    >>> one = []
    >>> mine = own_initial(lambda: one)
    >>> mine() == [], mine() is mine()
    (True, False)
    """
    try:
        first, second = initializer(), initializer()
    except Exception:  # noqa: BLE001
        # Whether it fails for a record too is for the error policy to decide.
        return initializer
    if first is not second or type(first).__hash__ is not None:
        return initializer
    return lambda: deepcopy(initializer())
