"""`Observer`: what `observe_llm` and `observe` return, a decorator and a context manager."""

from __future__ import annotations

import functools
import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Generic, TypeVar, cast

from observatory_storage.errors import ValidationError
from observatory_storage.recording.generator_steps import observed_async_steps, observed_steps
from observatory_storage.recording.observation import Observation, current_observation
from observatory_storage.recording.shared_writer import losses

__all__ = ["Observer"]

F = TypeVar("F", bound=Callable[..., Any])
Observed = TypeVar("Observed", bound=Observation)

_END: Final = object()
_MOST_ENTERED: Final = 1_000
_RECEIVERS: Final = frozenset({"self", "cls"})
_Arguments = Callable[[tuple[Any, ...], Mapping[str, Any]], Mapping[str, Any]]


class Observer(Generic[Observed]):
    """What `observe_llm` and `observe` return: a decorator and a context manager.

    As a decorator it takes functions and methods, generators, and both with ``async``. As a context
    manager it takes ``with`` and ``async with``, and gives the observation. It can be used any
    number of times, also at the same time in several threads and tasks.
    """

    def __init__(self, begin: Callable[[str | None], Observed], *, wraps_iterators: bool) -> None:
        """Not for applications to call.

        Args:
            begin: makes an observation of the function of this name, or of a block.
            wraps_iterators: whether a function that returns an iterator is observed until the end
                of the iterator, rather than until it returns.
        """
        self._begin = begin
        self._wraps_iterators = wraps_iterators
        # What is not left yet. Those that are never left must not fill the memory.
        self._entered: deque[Observation] = deque(maxlen=_MOST_ENTERED)

    def __enter__(self) -> Observed:
        observation = self._begin(None)
        observation.entered_by = self
        observation.enter()
        self._entered.append(observation)
        return observation

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Other threads and tasks may have entered too: the innermost of this context is left. A
        # generator that is closed in another context has none there.
        left: Observation | None = current_observation()
        while left is not None and left.entered_by is not self:
            left = left.around
        if left is None:
            if len(self._entered) != 1:  # ending the wrong one would be worse than ending none
                losses.add("an observer that several tasks use was left in another context")
                return
            left = self._entered[0]
        left.entered_by = None
        with suppress(ValueError):  # many others were entered since
            self._entered.remove(left)
        left.leave(error)

    async def __aenter__(self) -> Observed:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: F) -> F:
        """Decorate a function: each of its calls is observed."""
        given: Any = function
        if isinstance(given, (staticmethod, classmethod)):
            return cast(F, type(given)(self(given.__func__)))
        if not callable(given) or inspect.isclass(given):
            raise ValidationError("function", function, "must be a function")
        arguments = _arguments_of(function)
        wrapper: Callable[..., Any]
        if inspect.isasyncgenfunction(function):
            wrapper = self._around_async_generator(function, arguments)
        elif inspect.iscoroutinefunction(function):
            wrapper = self._around_coroutine(function, arguments)
        elif inspect.isgeneratorfunction(function):
            wrapper = self._around_generator(function, arguments)
        else:
            wrapper = self._around_function(function, arguments)
        return cast(F, wrapper)

    def _begin_call(
        self,
        function: Callable[..., Any],
        arguments: _Arguments,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Observed:
        name: str = getattr(function, "__qualname__", type(function).__qualname__)
        observation = self._begin(name.rpartition("<locals>.")[2])
        observation.take_call(arguments(args, kwargs))
        return observation

    def _around_function(self, function: Callable[..., Any], arguments: _Arguments) -> Any:
        @functools.wraps(function)
        def observed(*args: Any, **kwargs: Any) -> Any:
            observation = self._begin_call(function, arguments, args, kwargs)
            observation.enter()
            try:
                result = function(*args, **kwargs)
                if inspect.iscoroutine(result):  # of an async function in a plain wrapper
                    observation.suspend()
                    return self._awaited(observation, result)
                result = self._taken(observation, result)
            except BaseException as error:
                observation.leave(error)
                raise
            observation.leave()
            return result

        return observed

    def _around_coroutine(self, function: Callable[..., Any], arguments: _Arguments) -> Any:
        @functools.wraps(function)
        async def observed(*args: Any, **kwargs: Any) -> Any:
            observation = self._begin_call(function, arguments, args, kwargs)
            observation.enter()
            try:
                result = self._taken(observation, await function(*args, **kwargs))
            except BaseException as error:
                observation.leave(error)
                raise
            observation.leave()
            return result

        return observed

    def _around_generator(self, function: Callable[..., Any], arguments: _Arguments) -> Any:
        @functools.wraps(function)
        def observed(*args: Any, **kwargs: Any) -> Any:
            observation = self._begin_call(function, arguments, args, kwargs)
            return (yield from observed_steps(observation, function(*args, **kwargs)))

        return observed

    def _around_async_generator(self, function: Callable[..., Any], arguments: _Arguments) -> Any:
        # An asynchronous generator has no ``yield from``.
        @functools.wraps(function)
        async def observed(*args: Any, **kwargs: Any) -> Any:
            observation = self._begin_call(function, arguments, args, kwargs)
            steps = observed_async_steps(observation, function(*args, **kwargs))
            item = await anext(steps, _END)
            while item is not _END:
                try:
                    sent = yield item
                except GeneratorExit:
                    await steps.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - the generator decides
                    step = steps.athrow(error)
                else:
                    step = steps.asend(sent)
                try:
                    item = await step
                except StopAsyncIteration:
                    return

        return observed

    async def _awaited(self, observation: Observed, result: Awaitable[Any]) -> Any:
        observation.enter()
        try:
            taken = self._taken(observation, await result)
        except BaseException as error:
            observation.leave(error)
            raise
        observation.leave()
        return taken

    def _taken(self, observation: Observed, result: Any) -> Any:
        if self._wraps_iterators and isinstance(result, (Iterator, AsyncIterator)):
            return observation.stream(result)
        observation.take_result(result)
        return result


def _arguments_of(function: Callable[..., Any]) -> _Arguments:
    """A function that returns the arguments of a call by their names."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions in C have none
        return lambda _args, kwargs: kwargs

    others = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)

    def arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            bound = signature.bind_partial(*args, **kwargs).arguments
        except TypeError:  # the function itself will say what is wrong
            return {}
        given = {name: value for name, value in bound.items() if name not in _RECEIVERS}
        return {**given.pop(others, {}), **given} if others is not None else given

    return arguments
