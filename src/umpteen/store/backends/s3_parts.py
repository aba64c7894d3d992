"""What is too large for one request to S3: files that are put, or copied, in parts."""

from __future__ import annotations

import abc
import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, Callable

from umpteen.store.backends.base import Body
from umpteen.store.backends.loop import gather

__all__ = ["BodyUpload", "CopyUpload"]

_PART_BYTES, _PARTS_AT_ONCE, _MOST_PARTS = 8 * 1024 * 1024, 4, 9_000
_COPIED_BYTES = 1024 * 1024 * 1024

# One request, tried again where that may help: the operation and its arguments.
Ask = Callable[..., Awaitable[Any]]


class _Upload(abc.ABC):
    """A file that is put in parts; nothing is there before all of them are."""

    def __init__(self, ask: Ask, name: dict[str, str], size: int, part_bytes: int) -> None:
        self._ask, self._size, self._part_bytes = ask, size, part_bytes
        # Bucket and key; with the upload's own id as soon as it has begun.
        self._name: dict[str, str] = name

    async def run(self) -> None:
        """Put it; where that fails, let the server forget the parts that it has."""
        begun = await self._ask("create_multipart_upload", **self._name)
        self._name = {**self._name, "UploadId": begun["UploadId"]}
        try:
            starts = range(0, self._size, self._part_bytes)
            tags = await gather(self._put_part, enumerate(starts, start=1))
            parts = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, start=1)]
            await self._ask(
                "complete_multipart_upload", **self._name, MultipartUpload={"Parts": parts}
            )
        except BaseException:
            with contextlib.suppress(Exception):
                await self._ask("abort_multipart_upload", **self._name)
            raise

    @abc.abstractmethod
    async def _put_part(self, number: int, start: int) -> str:
        """Put the part that begins at `start`; its ETag."""


class BodyUpload(_Upload):
    """A body that is put in parts, so that a fault costs one of them."""

    def __init__(self, ask: Ask, name: dict[str, str], body: Body) -> None:
        super().__init__(ask, name, body.size, max(_PART_BYTES, -(-body.size // _MOST_PARTS)))
        self._body = body
        self._room = asyncio.Semaphore(_PARTS_AT_ONCE)  # of memory

    async def _put_part(self, number: int, start: int) -> str:
        async with self._room:
            with self._body.open() as file:
                file.seek(start)
                content = file.read(self._part_bytes)
            part = await self._ask("upload_part", **self._name, PartNumber=number, Body=content)
        return str(part["ETag"])


class CopyUpload(_Upload):
    """A copy of a file that is larger than S3 copies at once."""

    def __init__(self, ask: Ask, name: dict[str, str], source: dict[str, str], size: int) -> None:
        super().__init__(ask, name, size, _COPIED_BYTES)
        self._source = source

    async def _put_part(self, number: int, start: int) -> str:
        end = min(self._size, start + self._part_bytes)
        part = {"PartNumber": number, "CopySourceRange": f"bytes={start}-{end - 1}"}
        answer = await self._ask("upload_part_copy", **self._name, CopySource=self._source, **part)
        return str(answer["CopyPartResult"]["ETag"])
