"""The asynchronous client."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from kumo_crt._engine import Task
from kumo_crt.exceptions import KumoError
from kumo_crt.s3 import _bucket_operations, _operations
from kumo_crt.s3._base import ClientBase
from kumo_crt.s3._bucket_operations import Pages
from kumo_crt.s3._context import Context
from kumo_crt.s3._methods import presented

if TYPE_CHECKING:
    from kumo_crt._engine._asyncio import Driver

P = ParamSpec("P")
T = TypeVar("T")

# Threads with loops of their own may come at the same time.
_changing = threading.Lock()


def _method(
    operation: Callable[Concatenate[Context, P], Task[T]],
) -> Callable[Concatenate[AsyncS3Client, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncS3Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        task = operation(self._open(), *args, **kwargs)
        return await self._driver_here().run(task)

    return presented(method, operation)


def _listing(
    operation: Callable[Concatenate[Context, P], Pages[T]],
) -> Callable[Concatenate[AsyncS3Client, P], AsyncIterator[T]]:
    def method(self: AsyncS3Client, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._items(operation(self._open(), *args, **kwargs))

    return presented(method, operation, "AsyncIterator[{}]")


class AsyncS3Client(ClientBase):
    """A client of S3, or of a service that speaks its protocol, for asyncio.

    It has the methods of `S3Client`, to be awaited, or iterated over with ``async for``; they do
    the same, with the same native engine and without threads between it and the event loop. One
    client serves any number of coroutines, in any number of event loops, thousands of requests at
    once: ``max_connections`` of them have a connection, the others wait in their order.

    A coroutine that is cancelled (`asyncio.timeout` does so) has cleaned up when CancelledError
    reaches the caller: no upload, no temporary file stays behind. If the network keeps that from
    being done within a second, it follows in the background.

    Close it, or use it as a context manager.

    Args:
        region: See `S3Client`, as for every other argument.
    """

    put_object = _method(_operations.put_object)
    get_object = _method(_operations.get_object)
    head_object = _method(_operations.head_object)
    copy_object = _method(_operations.copy_object)
    delete_object = _method(_operations.delete_object)
    delete_objects = _method(_operations.delete_objects)
    list_objects = _listing(_bucket_operations.list_objects)
    list_object_versions = _listing(_bucket_operations.list_object_versions)
    list_multipart_uploads = _listing(_bucket_operations.list_multipart_uploads)
    abort_multipart_upload = _method(_bucket_operations.abort_multipart_upload)
    create_bucket = _method(_bucket_operations.create_bucket)
    delete_bucket = _method(_bucket_operations.delete_bucket)
    get_bucket_versioning = _method(_bucket_operations.get_bucket_versioning)
    put_bucket_versioning = _method(_bucket_operations.put_bucket_versioning)
    metrics = _method(_operations.metrics)

    _driver: Driver | None = None  # of the loop that was used last
    _drivers: tuple[Driver, ...] = ()

    def _driver_here(self) -> Driver:
        driver = self._driver
        if driver is not None and driver.here:
            return driver
        # asyncio takes long to import, and a program that runs this has done so.
        import asyncio

        from kumo_crt._engine._asyncio import Driver

        loop = asyncio.get_running_loop()
        with _changing:
            over = [driver for driver in self._drivers if driver.loop.is_closed()]
            kept = tuple(driver for driver in self._drivers if driver not in over)
            for driver in kept:
                if driver.loop is loop:
                    break
            else:
                connections = self._settings.max_connections
                driver = Driver(
                    loop,
                    # So that no connection waits for Python to hand it the next request.
                    calls=2 * connections,
                    tasks=max(128, 4 * connections),
                    room=self._room,
                )
                kept = (*kept, driver)
            self._drivers = kept
        for gone in over:
            gone.release(_closed)
        self._driver = driver
        return driver

    async def _items(self, pages: Pages[T]) -> AsyncIterator[T]:
        place = None
        while True:
            self._open()
            found, place = await self._driver_here().run(pages(place))
            for item in found:
                yield item
            if place is None:
                return

    async def close(self) -> None:
        """Cancels the calls that are under way, lets them clean up, and drops the connections.

        Whoever awaits one of them gets a `KumoError`.
        """
        await self._close(leaving=False)

    async def _close(self, leaving: bool) -> None:
        drivers, self._drivers, self._driver = self._drivers, (), None
        self._context = None
        for driver in drivers:
            await driver.close(_closed, leaving)

    def _close_at_once(self) -> None:
        drivers, self._drivers, self._driver = self._drivers, (), None
        self._context = None
        for driver in drivers:
            driver.release(_exiting)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # An exit, Ctrl-C, or a cancelled task: nobody wants to wait.
        await self._close(leaving=kind is not None and not issubclass(kind, Exception))


def _closed() -> KumoError:
    return KumoError("the AsyncS3Client was closed while this call was under way: await it first")


def _exiting() -> KumoError:
    return KumoError("this call was cancelled, as the interpreter is exiting")


__all__ = ["AsyncS3Client"]
