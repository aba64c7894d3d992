"""Results on S3, or what speaks its protocol: one request for each thing that is asked."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from typing import Any, BinaryIO

from umpteen.store.backends.base import Backend, Body, Entry, retried
from umpteen.store.backends.faults import Fault
from umpteen.store.backends.loop import gather
from umpteen.store.backends.s3_client import Answer, S3Client
from umpteen.store.backends.s3_errors import NO_FILE, NotS3Error, code_of, is_page, is_s3
from umpteen.store.backends.s3_parts import BodyUpload, CopyUpload
from umpteen.store.base import Options
from umpteen.system.whole_files import written_whole

__all__ = ["S3Backend"]

_MB = 1024 * 1024
_WHOLE_BYTES = 64 * _MB  # what is larger goes in parts, so that a fault costs one of them
_COPY_BYTES = 4096 * _MB  # S3 copies no more at once
_NAMES_AT_ONCE = 1000
_MARK = "umpteen-put"  # in the metadata of new files
_CHUNK_BYTES = _MB
_NOT_IMPLEMENTED = {"NotImplemented", "501"}
_EXISTS = {"PreconditionFailed", "412"}
_BEHIND_END = {"InvalidRange", "416"}


class S3Backend(Backend):
    """A bucket, or what is below a prefix of it."""

    keeps_marks = True
    lists_deep = True

    def __init__(self, address: str, options: Options) -> None:
        super().__init__()
        self.bucket, _, self.root = address.partition("://")[2].partition("/")
        self.client = S3Client(options)
        self.has_conditions = True  # until the server says otherwise

    @property
    def ready_s(self) -> float:
        """When it could be asked first, on the monotonic clock; infinite before."""
        return self.client.ready_s

    async def send(self, key: str, body: Body, *, mark: str) -> bool:
        """One attempt to put a file; with a mark, False where there is one that has another."""
        if not mark or not self.has_conditions:
            await self._put_object(key, body)
            return True
        try:
            await self._put_object(key, body, mark)
        except Exception as error:
            if code_of(error) in _NOT_IMPLEMENTED:
                await self._put_object(key, body)  # raises where it was not for the condition
                self.has_conditions = False
            elif code_of(error) in _EXISTS:
                # aiohttp sends again, unasked, where a connection was closed: it may be ours.
                return await self._read_mark(key) == mark
            else:
                raise
        return True

    async def _put_object(self, key: str, body: Body, mark: str = "") -> None:
        """Put a file; with a mark, only where there is none."""
        more: dict[str, Any] = {"IfNoneMatch": "*", "Metadata": {_MARK: mark}} if mark else {}
        if len(body.content) == body.size <= _CHUNK_BYTES:
            content: Any = body.content  # a file would first be announced, and so cost more
        else:
            content = body.open()
        try:
            await self.client.call("put_object", **self._name(key), Body=content, **more)
        finally:
            if content is not body.content:
                content.close()

    async def _read_mark(self, key: str) -> str:
        try:
            found = await self.client.call("head_object", **self._name(key))
        except Exception as error:
            if code_of(error) in NO_FILE:  # it was there a moment ago
                return ""
            raise
        return str(found.get("Metadata", {}).get(_MARK, ""))

    async def put(self, key: str, body: Body) -> None:
        """Put a file whole, in place of what is there."""
        if body.size <= _WHOLE_BYTES:
            await super().put(key, body)
        else:
            await BodyUpload(self._ask, self._name(key), body).run()

    @retried
    async def get(self, key: str, offset: int, size: int) -> bytes | None:
        """At most `size` bytes (-1: all) from `offset` on; offset -n: the last n bytes."""
        try:
            answer = await self._get_object(key, **_range(offset, size))
        except Exception as error:
            if code_of(error) in _BEHIND_END:
                return b""
            raise
        if answer is None:
            return None
        async with answer["Body"]:
            content: bytes = await answer["Body"].read()
        return content if size else b""

    @retried
    async def download(self, key: str, path: str) -> bool:
        """Copy a file to this machine, put whole; False if there is no such file."""
        answer = await self._get_object(key)
        if answer is None:
            return False
        async with answer["Body"]:
            with written_whole(path) as temporary, _create(temporary) as file:
                async for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
                    file.write(chunk)
        return True

    async def _get_object(self, key: str, **asked: str) -> Answer | None:
        """The answer to a read, its body still to come; None if there is no such file."""
        try:
            answer = await self.client.call("get_object", **self._name(key), **asked)
        except Exception as error:
            if code_of(error) in NO_FILE:
                return None
            raise
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        if is_page(headers) and not is_s3(headers) and not key.endswith((".html", ".htm")):
            raise NotS3Error("200 (text/html)")
        return answer

    async def entries(self, folder: str) -> list[Entry]:
        """What is in a folder; nothing if there is no such folder."""
        prefix = self._prefix(folder)
        entries = []
        async for page in self._pages(Prefix=prefix, Delimiter="/"):
            for each in page.get("CommonPrefixes", ()):
                entries.append(Entry(each["Prefix"][len(prefix) : -1], 0, is_folder=True))
            for each in page.get("Contents", ()):
                entries.append(Entry(each["Key"][len(prefix) :], each["Size"], is_folder=False))
        return [entry for entry in entries if entry.name]

    async def walk(self, folder: str) -> list[tuple[str, int]]:
        """Every file below a folder: its path relative to that, and its bytes."""
        prefix = self._prefix(folder)
        found = []
        async for page in self._pages(Prefix=prefix):
            for each in page.get("Contents", ()):
                found.append((each["Key"][len(prefix) :], each["Size"]))
        # Other tools mark a folder by an empty file whose name ends with `/`.
        return [(name, size) for name, size in found if name and not name.endswith("/")]

    async def look_up(self, keys: Sequence[str]) -> dict[str, str] | None:
        """Those of many files that are there, and the MD5 of each where it is told.

        A page of a listing tells of a thousand objects, and what lies between the files asked for
        is leapt over: so it is never more than a request for each.
        """
        wanted = {self._path(key): key for key in keys}
        paths = sorted(wanted, key=str.encode)
        prefix = os.path.commonprefix(paths)  # noqa: RUF071 -- of a listing it is one of text
        found: dict[str, str] = {}
        place = 0
        while place < len(paths):
            page = await self._ask(
                "list_objects_v2", Bucket=self.bucket, Prefix=prefix, StartAfter=paths[place][:-1]
            )
            there = {each["Key"]: each["ETag"].strip('"') for each in page.get("Contents", ())}
            if list(there) != sorted(there, key=str.encode):
                return None  # not every server has an order
            found.update((wanted[path], there[path]) for path in there.keys() & wanted.keys())
            if not page.get("IsTruncated"):
                break
            if not there:
                return None
            last = max(there, key=str.encode).encode()
            while place < len(paths) and paths[place].encode() <= last:
                place += 1
        return found

    async def remove(self, key: str) -> None:
        """Remove a file, if it is there."""
        await self._ask("delete_object", **self._name(key))

    async def remove_many(self, keys: Sequence[str]) -> None:
        """Remove files, those that are there."""
        starts = range(0, len(keys), _NAMES_AT_ONCE)
        await gather(self._remove_some, ((keys[n : n + _NAMES_AT_ONCE],) for n in starts))

    async def _remove_some(self, keys: Sequence[str]) -> None:
        """As many as one request can name; those that it leaves, one by one."""
        named = [{"Key": self._path(key)} for key in keys]
        answer = await self._ask(
            "delete_objects", Bucket=self.bucket, Delete={"Objects": named, "Quiet": True}
        )
        left = {each["Key"] for each in answer.get("Errors", ())}
        start_of_key = len(self._prefix(""))
        await gather(self.remove, ((path[start_of_key:],) for path in left))

    async def move(self, source: str, target: str) -> None:
        """Copy all of it, then remove the old; nothing if it is not there."""
        found = await self.walk(source)
        if not found:
            if await self._copy_object(source, target):
                await self.remove(source)
            return
        await gather(
            self._copy, ((f"{source}/{name}", f"{target}/{name}", size) for name, size in found)
        )
        await self.remove_many([f"{source}/{name}" for name, _ in found])

    async def _copy(self, source: str, target: str, size: int) -> None:
        if size <= _COPY_BYTES:
            await self._copy_object(source, target)
        else:
            await CopyUpload(self._ask, self._name(target), self._name(source), size).run()

    @retried
    async def _copy_object(self, source: str, target: str) -> bool:
        """Copy a file; False if there is no such file."""
        try:
            await self.client.call(
                "copy_object", **self._name(target), CopySource=self._name(source)
            )
        except Exception as error:
            if code_of(error) in NO_FILE:
                return False
            raise
        return True

    async def close(self) -> None:
        """Let go of connections."""
        await self.client.close()

    def judge(self, error: Exception) -> Fault:
        """What an error of botocore, or of the connection below it, means."""
        return self.client.judge(error)

    @retried
    async def _ask(self, operation: str, **arguments: Any) -> Answer:
        """One request, tried again where that may help."""
        return await self.client.call(operation, **arguments)

    async def _pages(self, **asked: Any) -> AsyncIterator[Answer]:
        more: dict[str, str] = {}
        while True:
            page = await self._ask("list_objects_v2", Bucket=self.bucket, **asked, **more)
            yield page
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _path(self, key: str) -> str:
        return "/".join(part for part in (self.root, key) if part)

    def _prefix(self, folder: str) -> str:
        path = self._path(folder)
        return f"{path}/" if path else ""

    def _name(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._path(key)}


def _create(path: str) -> BinaryIO:
    return open(path, "xb")


def _range(offset: int, size: int) -> dict[str, str]:
    if offset < 0:
        return {"Range": f"bytes={offset}"}
    if size >= 0:
        return {"Range": f"bytes={offset}-{offset + max(size, 1) - 1}"}
    return {"Range": f"bytes={offset}-"} if offset else {}
