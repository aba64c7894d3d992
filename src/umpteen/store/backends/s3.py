"""Results on S3, or what speaks its protocol: one request for each thing that is asked.

s3fs finds the credentials and the endpoint; requests go through its client, because its own
methods ask more than once and forget the code of an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, BinaryIO

from umpteen.store.backends.base import (
    ASK_FOR_ACCESS,
    CHECK_NETWORK,
    CONNECT_S,
    IN_FLIGHT,
    READ_S,
    WRITE_ENDPOINT,
    Backend,
    Body,
    Entry,
    Fault,
    WrongOptionsError,
    gather,
    judge_network,
    read_number,
)
from umpteen.system.whole_files import written_whole

__all__ = ["S3Backend"]

_MB = 1024 * 1024
_WHOLE_BYTES = 64 * _MB  # what is larger goes in parts, so that a fault costs one of them
_PART_BYTES, _PARTS_AT_ONCE, _MOST_PARTS = 8 * _MB, 4, 9_000
_COPY_BYTES = 4096 * _MB  # S3 copies no more at once
_NAMES_AT_ONCE = 1000
_MARK = "umpteen-put"  # in the metadata of new files
_CHUNK_BYTES = _MB
_MESSAGE_MOST = 200  # characters, of what a server says

_RENEW = "renew your credentials, then run the same command again"
_CHECK_KEYS = "check the key and the secret, in the environment or in `options` of the results"
_CHECK_ENDPOINT = (
    "check the endpoint, AWS_ENDPOINT_URL or `endpoint_url` in `options`: host, port, http or https"
)
_NO_SERVER = "what answered is no S3 server: HTTP {}"
_LEAVE_PATH = "the endpoint has a path behind its host, which hardly any server has: leave it out"
_SEND_CHECKSUMS = (
    "the server wants checksums, as for Object Lock: set AWS_REQUEST_CHECKSUM_CALCULATION="
    "when_supported here and on workers"
)
_MAKE_ROOM = "make room or ask for more, then run the same command again"
_TROUBLES = {
    "ExpiredToken": Fault("the credentials have expired", _RENEW),
    "InvalidAccessKeyId": Fault("the server does not know this access key", _CHECK_KEYS),
    "SignatureDoesNotMatch": Fault("the secret does not fit the access key", _CHECK_KEYS),
    "InvalidToken": Fault("the session token is wrong", _CHECK_KEYS),
    "RequestTimeTooSkewed": Fault("the clock of this machine is wrong", "set the clock"),
    "AccessDenied": Fault("access denied", ASK_FOR_ACCESS),
    "NoSuchBucket": Fault("there is no such bucket", "make the bucket, or name another"),
    "QuotaExceeded": Fault("the quota of the place is used up", _MAKE_ROOM),
    "PermanentRedirect": Fault(
        "the bucket is in another region",
        "name it: AWS_DEFAULT_REGION, or `client_kwargs: {region_name: …}` in `options`",
    ),
}
_SAME = {
    "ExpiredTokenException": "ExpiredToken",
    "RequestExpired": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
    "AllAccessDisabled": "AccessDenied",
    "AccountProblem": "AccessDenied",
    "Forbidden": "AccessDenied",
    "403": "AccessDenied",
    "XMinioStorageFull": "QuotaExceeded",
    "UserQuotaExceeded": "QuotaExceeded",
    "AuthorizationHeaderMalformed": "PermanentRedirect",
    "IllegalLocationConstraintException": "PermanentRedirect",
}
_PASSING = {
    "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestTimeout",
    "InternalError", "ServiceUnavailable", "IncompleteBody", "BadDigest", "OperationAborted",
    "ConditionalRequestConflict", "429",
}  # fmt: skip
_NEVER = {501, 505}  # statuses of a server that is well and will answer the same again
_NOT_IMPLEMENTED = {"NotImplemented", "501"}
_OPERATIONS = (
    "abort_multipart_upload", "complete_multipart_upload", "copy_object", "create_multipart_upload",
    "delete_object", "delete_objects", "get_object", "head_object", "list_objects_v2",
    "put_object", "upload_part", "upload_part_copy",
)  # fmt: skip
_CHECKSUMS = {
    # Many servers that are not Amazon's refuse the checksums that are the default now.
    "request_checksum_calculation": "AWS_REQUEST_CHECKSUM_CALCULATION",
    "response_checksum_validation": "AWS_RESPONSE_CHECKSUM_VALIDATION",
}


class _NoS3ServerError(Exception):
    """What answered speaks something else."""


class S3Backend(Backend):
    """A bucket, or what is below a prefix of it."""

    keeps_marks = True
    lists_deep = True

    def __init__(self, address: str, options: dict[str, Any]) -> None:
        self.bucket, _, self.root = address.partition("://")[2].partition("/")
        self.options = dict(options)
        self.config = {
            "connect_timeout": read_number(self.options, "connect_timeout", CONNECT_S),
            "read_timeout": read_number(self.options, "read_timeout", READ_S),
            "max_pool_connections": 2 * IN_FLIGHT,
            "retries": {"total_max_attempts": 1},  # trying again is ours
        }
        self.filesystem: Any = None
        self.client: Any = None
        self.ready_s = math.inf  # what asks takes a second to load, and more on a busy machine
        self.has_conditions = True  # until the server says otherwise

    async def send(self, key: str, body: Body, *, mark: str) -> bool:
        """One attempt to put a file; with a mark, False where there is one that has another."""
        if not mark or not self.has_conditions:
            await self._put_object(key, body)
            return True
        try:
            await self._put_object(key, body, mark)
        except Exception as error:
            if _code(error) in _NOT_IMPLEMENTED:
                await self._put_object(key, body)  # raises where it was not for the condition
                self.has_conditions = False
            elif _code(error) in {"PreconditionFailed", "412"}:
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
            await self._call("put_object", **self._name(key), Body=content, **more)
        finally:
            if content is not body.content:
                content.close()

    async def _read_mark(self, key: str) -> str:
        try:
            found = await self._call("head_object", **self._name(key))
        except Exception as error:
            if _code(error) in {"NoSuchKey", "404"}:  # it was there a moment ago
                return ""
            raise
        return str(found.get("Metadata", {}).get(_MARK, ""))

    async def put(self, key: str, body: Body) -> None:
        """Put a file whole, in place of what is there."""
        if body.size <= _WHOLE_BYTES:
            await super().put(key, body)
            return
        upload = await self._ask("create_multipart_upload", **self._name(key))
        name = {**self._name(key), "UploadId": upload["UploadId"]}
        size = max(_PART_BYTES, -(-body.size // _MOST_PARTS))
        room = asyncio.Semaphore(_PARTS_AT_ONCE)

        async def send(number: int, start: int) -> dict[str, Any]:
            async with room:
                with body.open() as file:
                    file.seek(start)
                    content = file.read(size)
                part = await self._ask("upload_part", **name, PartNumber=number, Body=content)
                return {"PartNumber": number, "ETag": part["ETag"]}

        await self._complete(name, send, range(0, body.size, size))

    async def _complete(self, name: dict[str, Any], send: Any, starts: range) -> None:
        try:
            parts = await gather(send, enumerate(starts, start=1))
            await self._ask("complete_multipart_upload", **name, MultipartUpload={"Parts": parts})
        except BaseException:
            with contextlib.suppress(Exception):
                await self._ask("abort_multipart_upload", **name)
            raise

    async def get(self, key: str, offset: int, size: int) -> bytes | None:
        """At most `size` bytes (-1: all) from `offset` on; offset -n: the last n bytes."""

        async def get() -> bytes | None:
            try:
                answer = await self._get_object(key, **_range(offset, size))
            except Exception as error:
                if _code(error) in {"InvalidRange", "416"}:
                    return b""
                raise
            if answer is None:
                return None
            async with answer["Body"]:
                content: bytes = await answer["Body"].read()
            return content if size else b""

        return await self.tried(get)

    async def download(self, key: str, path: str) -> bool:
        """Copy a file to this machine, put whole; False if there is no such file."""

        async def get() -> bool:
            answer = await self._get_object(key)
            if answer is None:
                return False
            async with answer["Body"]:
                with written_whole(path) as temporary, _create(temporary) as file:
                    async for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
                        file.write(chunk)
            return True

        return await self.tried(get)

    async def _get_object(self, key: str, **asked: str) -> dict[str, Any] | None:
        """The answer to a read, its body still to come; None if there is no such file."""
        try:
            answer: dict[str, Any] = await self._call("get_object", **self._name(key), **asked)
        except Exception as error:
            if _code(error) in {"NoSuchKey", "404"}:
                return None
            raise
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        if _is_page(headers) and not _is_s3(headers) and not key.endswith((".html", ".htm")):
            raise _NoS3ServerError(_NO_SERVER.format("200 (text/html)"))
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

    async def remove_many(self, keys: Any) -> None:
        """Remove files, those that are there."""

        async def remove(start: int) -> None:
            named = [{"Key": self._path(key)} for key in keys[start : start + _NAMES_AT_ONCE]]
            answer = await self._ask(
                "delete_objects", Bucket=self.bucket, Delete={"Objects": named, "Quiet": True}
            )
            left = {each["Key"] for each in answer.get("Errors", ())}
            start_of_key = len(self._prefix(""))
            await gather(self.remove, ((path[start_of_key:],) for path in left))

        await gather(remove, ((start,) for start in range(0, len(keys), _NAMES_AT_ONCE)))

    async def move(self, source: str, target: str) -> None:
        """Copy all of it, then remove the old; nothing if it is not there."""
        found = await self.walk(source)
        if not found:
            if await self._copy(source, target, 0):
                await self.remove(source)
            return
        await gather(
            self._copy, ((f"{source}/{name}", f"{target}/{name}", size) for name, size in found)
        )
        await self.remove_many([f"{source}/{name}" for name, _ in found])

    async def _copy(self, source: str, target: str, size: int) -> bool:
        origin = {"CopySource": self._name(source)}

        async def copy() -> bool:
            try:
                await self._call("copy_object", **self._name(target), **origin)
            except Exception as error:
                if _code(error) in {"NoSuchKey", "404"}:
                    return False
                raise
            return True

        if size <= _COPY_BYTES:
            return await self.tried(copy)
        upload = await self._ask("create_multipart_upload", **self._name(target))
        name = {**self._name(target), "UploadId": upload["UploadId"]}

        async def send(number: int, start: int) -> dict[str, Any]:
            end = min(size, start + _COPY_BYTES // 4)
            part = {"PartNumber": number, "CopySourceRange": f"bytes={start}-{end - 1}"}
            answer = await self._ask("upload_part_copy", **name, **origin, **part)
            return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

        await self._complete(name, send, range(0, size, _COPY_BYTES // 4))
        return True

    async def close(self) -> None:
        """Let go of connections."""
        filesystem, self.filesystem = self.filesystem, None
        if filesystem is not None and filesystem._s3 is not None:  # noqa: SLF001
            await filesystem._s3creator.__aexit__(None, None, None)  # noqa: SLF001

    def judge(self, error: Exception) -> Fault:
        """What an error of botocore, or of the connection below it, means."""
        from aiohttp import ClientError as PayloadError
        from botocore import exceptions

        if isinstance(error, _NoS3ServerError):
            return Fault(str(error), _CHECK_ENDPOINT)
        if isinstance(error, exceptions.ClientError):
            return self._judge_answer(error)
        if isinstance(error, exceptions.ParamValidationError):
            return Fault(" ".join(str(error).split()), _CHECK_KEYS, is_input=True)
        if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
            return Fault("no credentials were found", _CHECK_KEYS)
        if isinstance(error, exceptions.EndpointResolutionError):
            return Fault(str(error), WRITE_ENDPOINT, is_input=True)
        if isinstance(error, exceptions.ProfileNotFound):
            return Fault("there is no such profile", _CHECK_KEYS)
        if isinstance(error, exceptions.SSLError):
            if "WRONG_VERSION_NUMBER" in str(error):
                return Fault("the server does not speak TLS", _CHECK_ENDPOINT)
            return Fault("the server's certificate is not trusted", CHECK_NETWORK)
        if isinstance(error, (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError)):
            return Fault("no answer in time", CHECK_NETWORK, is_transient=True)
        if isinstance(
            error,
            (
                exceptions.ConnectionError,
                exceptions.HTTPClientError,
                exceptions.IncompleteReadError,
                exceptions.ResponseStreamingError,
                PayloadError,
            ),
        ):
            return Fault("the connection was lost or refused", CHECK_NETWORK, is_transient=True)
        return judge_network(error) or Fault(f"{type(error).__name__}: {error}")

    def _judge_answer(self, error: Exception) -> Fault:
        """What an error that a server answered means: by its code, else by its status."""
        code, status = _code(error), _status(error)
        found = _TROUBLES.get(_SAME.get(code, code))
        if code == "NoSuchBucket" and self._has_path():
            return Fault("there is no such bucket", _LEAVE_PATH)
        if found:
            return found
        message = _message(error)
        said = f"the server answered {code or status}" + (f": {message}" if message else "")
        if code in _PASSING or status == 429 or (status >= 500 and status not in _NEVER):
            is_known = code in _PASSING or code == str(status)
            reason = f"the server answered {status or code}" if is_known else said
            return Fault(reason, CHECK_NETWORK, is_transient=True)
        wants_checksums = "checksum" in message.lower() or "content-md5" in message.lower()
        return Fault(said, _SEND_CHECKSUMS if wants_checksums else None)

    def _has_path(self) -> bool:
        """Whether the endpoint has more behind its host."""
        endpoint: str = self.client.meta.endpoint_url
        return bool(endpoint.partition("://")[2].partition("/")[2])

    async def _ask(self, name: str, **arguments: Any) -> Any:
        return await self.tried(lambda: self._call(name, **arguments))

    async def _call(self, name: str, **arguments: Any) -> Any:
        """One request, with all that the options add to every request of its kind."""
        client = await self._open()
        extra = self._list_extra(client, name)
        if "Metadata" in extra and "Metadata" in arguments:
            arguments["Metadata"] = {**extra["Metadata"], **arguments["Metadata"]}
        return await getattr(client, name)(**{**extra, **arguments})

    async def _pages(self, **asked: Any) -> AsyncIterator[dict[str, Any]]:
        more: dict[str, Any] = {}
        while True:
            page = await self._ask("list_objects_v2", Bucket=self.bucket, **asked, **more)
            yield page
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    async def _open(self) -> Any:
        """The client for the bucket; raises WrongOptionsError where the options allow none."""
        from botocore import exceptions

        if self.filesystem is None:
            self.filesystem = self._build_filesystem()
        try:
            await self.filesystem.set_session()
        except (
            *(TypeError, ValueError, KeyError, exceptions.InvalidRegionError),
            *(exceptions.InvalidS3AddressingStyleError, exceptions.InvalidChecksumConfigError),
        ) as error:
            raise WrongOptionsError("s3", error) from error
        client = await self.filesystem.get_s3(self.bucket)
        if client is not self.client:
            _check_extra(self.filesystem)
            # Under this name it is before botocore's own look, which makes a 500 of what is no XML.
            client.meta.events.register_first("before-parse.*.*", _refuse_others)
            self.client = client
            self.ready_s = min(self.ready_s, time.monotonic())
        return client

    def _build_filesystem(self) -> Any:
        from fsspec.config import apply_config
        from s3fs import S3FileSystem

        options = apply_config(S3FileSystem, self.options)
        config = {**_choose_checksums(options.get("profile")), **self.config}
        try:
            config.update(options.pop("config_kwargs", None) or {})
            return S3FileSystem(
                **{**options, "config_kwargs": config},
                asynchronous=True,
                use_listings_cache=False,
                skip_instance_cache=True,
                loop=asyncio.get_running_loop(),
            )
        except (TypeError, ValueError, KeyError) as error:
            raise WrongOptionsError("s3", error) from error

    def _list_extra(self, client: Any, name: str) -> dict[str, Any]:
        """What the options add to requests, such as encryption."""
        extra = {**self.filesystem.s3_additional_kwargs, **self.filesystem.req_kw}
        if not extra:
            return {}
        keys = {name: value for name, value in extra.items() if name.startswith("SSECustomer")}
        extra.update({f"CopySource{name}": value for name, value in keys.items()})
        allowed: dict[str, Any] = self.filesystem._filter_kwargs(  # noqa: SLF001
            getattr(client, name), extra
        )
        return allowed

    def _path(self, key: str) -> str:
        return "/".join(part for part in (self.root, key) if part)

    def _prefix(self, folder: str) -> str:
        path = self._path(folder)
        return f"{path}/" if path else ""

    def _name(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._path(key)}


def _choose_checksums(profile: str | None) -> dict[str, str]:
    """When checksums are sent and looked at, where nobody has said so in the environment."""
    from botocore.session import Session

    said = Session(profile=profile).get_scoped_config()
    return {
        name: "when_required"
        for name, variable in _CHECKSUMS.items()
        if variable not in os.environ and name not in said
    }


def _check_extra(filesystem: Any) -> None:
    """Raises WrongOptionsError for what is to be added to requests and fits none of them."""
    fits = filesystem._kwargs_helper.filter_dict  # noqa: SLF001
    for name in filesystem.s3_additional_kwargs:
        if not any(fits(operation, {name: ""}) for operation in _OPERATIONS):
            text = f"s3_additional_kwargs: unexpected option '{name}'"
            raise WrongOptionsError("s3", TypeError(text))


def _refuse_others(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    """Raises _NoS3ServerError for an answer that no S3 server gives: a web page, above all.

    Errors of servers that stand before one (502, 503) may pass, and look like that as well.
    """
    status, headers = response_dict["status_code"], response_dict["headers"]
    if status >= 500 or status == 429:
        return
    is_read = operation_model.name in {"GetObject", "HeadObject"} and status < 300
    if "etag" not in headers if is_read else _is_other(headers, response_dict["body"]):
        kind = headers.get("content-type", "")
        raise _NoS3ServerError(_NO_SERVER.format(f"{status} ({kind})" if kind else status))


def _is_other(headers: Any, body: bytes) -> bool:
    """Whether an answer is no XML, or a page; S3 servers may call an empty one a page."""
    content = body.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not content:
        return _is_page(headers) and not _is_s3(headers)
    return not content.startswith(b"<") or (_is_page(headers) and not content.startswith(b"<?xml"))


def _is_page(headers: Any) -> bool:
    return "html" in headers.get("content-type", "").partition(";")[0].lower()


def _is_s3(headers: Any) -> bool:
    """Whether headers are of an S3 server, which may have web pages as files."""
    return any(name.lower().startswith(("x-amz", "x-goog-", "x-rgw-")) for name in headers)


def _create(path: str) -> BinaryIO:
    return open(path, "xb")


def _range(offset: int, size: int) -> dict[str, str]:
    if offset < 0:
        return {"Range": f"bytes={offset}"}
    if size >= 0:
        return {"Range": f"bytes={offset}-{offset + max(size, 1) - 1}"}
    return {"Range": f"bytes={offset}-"} if offset else {}


def _message(error: Exception) -> str:
    """What the server says of an error, in one line."""
    said = str(_response(error).get("Error", {}).get("Message") or "")
    line = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    return line if len(line) <= _MESSAGE_MOST else line[:_MESSAGE_MOST] + "…"


def _code(error: Exception) -> str:
    return str(_response(error).get("Error", {}).get("Code", ""))


def _status(error: Exception) -> int:
    return int(_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _response(error: Exception) -> dict[str, Any]:
    found = getattr(error, "response", None)  # errors of the connection have one too: None
    return found if isinstance(found, dict) else {}
