"""Generators that are observed while they run, and not while their consumer does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from observatory_storage.recording import span_context
from observatory_storage.recording.observation import Observation

__all__ = ["observed_async_steps", "observed_steps"]

Y = TypeVar("Y")
S = TypeVar("S")
R = TypeVar("R")


class _Inside:
    """The active spans inside of a generator, which are not those of its consumer."""

    def __init__(self, observation: Observation) -> None:
        self._observation = observation
        self._inner: Any = None
        self._is_entered = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """Run one step of the generator with the spans that its last step has left active."""
        outer = span_context.snapshot()
        if self._is_entered:
            span_context.restore_snapshot(self._inner)
        else:
            self._is_entered = True
            self._observation.enter()
        try:
            yield
        finally:
            self._inner = span_context.snapshot()
            span_context.restore_snapshot(outer)

    def end(self, error: BaseException | None = None) -> None:
        """End the observation."""
        self._observation.leave(error)


def observed_steps(observation: Observation, generator: Generator[Y, S, R]) -> Generator[Y, S, R]:
    """The steps of a generator, as ``yield from`` has them."""
    inside = _Inside(observation)
    sent: Any = None
    thrown: BaseException | None = None
    try:
        while True:
            with inside.step():
                item = generator.send(sent) if thrown is None else generator.throw(thrown)
            observation.take_item(item)
            sent = thrown = None
            try:
                sent = yield item
            except GeneratorExit:
                with inside.step():
                    generator.close()
                raise
            except BaseException as error:  # noqa: BLE001 - the generator decides
                thrown = error
    except StopIteration as stop:
        inside.end()
        result: R = stop.value
        return result
    except BaseException as error:
        inside.end(error)
        raise


async def observed_async_steps(
    observation: Observation, generator: AsyncGenerator[Y, S]
) -> AsyncGenerator[Y, S]:
    """The same of an asynchronous generator."""
    inside = _Inside(observation)
    sent: Any = None
    thrown: BaseException | None = None
    try:
        while True:
            with inside.step():
                if thrown is None:
                    item = await generator.asend(sent)
                else:
                    item = await generator.athrow(thrown)
            observation.take_item(item)
            sent = thrown = None
            try:
                sent = yield item
            except GeneratorExit:
                with inside.step():
                    await generator.aclose()
                raise
            except BaseException as error:  # noqa: BLE001 - the generator decides
                thrown = error
    except StopAsyncIteration:
        inside.end()
    except BaseException as error:
        inside.end(error)
        raise
