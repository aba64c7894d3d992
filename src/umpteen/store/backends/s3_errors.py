"""What the errors of S3 mean: those that servers answer, and those of the client below.

Takes errors of botocore and aiohttp, gives Faults. Also tells an S3 server from what is none.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypedDict

from umpteen.store.backends.faults import (
    ASK_FOR_ACCESS,
    CHECK_NETWORK,
    WRITE_ENDPOINT,
    Fault,
    judge_network,
)

__all__ = [
    "NO_FILE",
    "NotS3Error",
    "Response",
    "code_of",
    "is_page",
    "is_s3",
    "judge_s3",
    "name_answer",
    "refuse_others",
]

NO_FILE = frozenset({"NoSuchKey", "404"})
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
_NO_BUCKET = "NoSuchBucket"
_FAULTS = {
    "ExpiredToken": Fault("the credentials have expired", _RENEW),
    "InvalidAccessKeyId": Fault("the server does not know this access key", _CHECK_KEYS),
    "SignatureDoesNotMatch": Fault("the secret does not fit the access key", _CHECK_KEYS),
    "InvalidToken": Fault("the session token is wrong", _CHECK_KEYS),
    "RequestTimeTooSkewed": Fault("the clock of this machine is wrong", "set the clock"),
    "AccessDenied": Fault("access denied", ASK_FOR_ACCESS),
    _NO_BUCKET: Fault("there is no such bucket", "make the bucket, or name another"),
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
_TRANSIENT = {
    "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestTimeout",
    "InternalError", "ServiceUnavailable", "IncompleteBody", "BadDigest", "OperationAborted",
    "ConditionalRequestConflict", "429",
}  # fmt: skip
_PERMANENT = {501, 505}  # statuses of a server that is well and will answer the same again


class Response(TypedDict):
    """An answer as botocore has it before it reads that."""

    status_code: int
    headers: Any  # botocore's own mapping, which is blind to case
    body: bytes


class _Refusal(NamedTuple):
    """What a server said of an error; nothing where it was none that a server answered."""

    code: str = ""
    status: int = 0
    message: str = ""  # in one line


class NotS3Error(Exception):
    """What answered is no S3 server."""

    def __init__(self, answer: str) -> None:
        super().__init__(_NO_SERVER.format(answer))


def judge_s3(error: Exception, endpoint: str) -> Fault:
    """What an error of a request to the server at `endpoint` means."""
    from botocore.exceptions import ClientError

    if isinstance(error, NotS3Error):
        return Fault(str(error), _CHECK_ENDPOINT)
    if isinstance(error, ClientError):
        return _judge_answer(error, endpoint)
    found = _judge_input(error) or _judge_connection(error) or judge_network(error)
    return found or Fault(f"{type(error).__name__}: {error}")


def _judge_answer(error: Exception, endpoint: str) -> Fault:
    """What an error that a server answered means: by its code, else by its status."""
    code, status, message = _read_refusal(error)
    found = _FAULTS.get(_SAME.get(code, code))
    if found and code == _NO_BUCKET and _has_path(endpoint):
        return Fault(found.reason, _LEAVE_PATH)
    if found:
        return found
    said = f"the server answered {code or status}" + (f": {message}" if message else "")
    if code in _TRANSIENT or status == 429 or (status >= 500 and status not in _PERMANENT):
        is_known = code in _TRANSIENT or code == str(status)
        reason = f"the server answered {status or code}" if is_known else said
        return Fault(reason, CHECK_NETWORK, is_transient=True)
    wants_checksums = "checksum" in message.lower() or "content-md5" in message.lower()
    return Fault(said, _SEND_CHECKSUMS if wants_checksums else None)


def _judge_input(error: Exception) -> Fault | None:
    """What an error means that the client raises before it asks anybody."""
    from botocore import exceptions

    if isinstance(error, exceptions.ParamValidationError):
        return Fault(" ".join(str(error).split()), _CHECK_KEYS, is_input=True)
    if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
        return Fault("no credentials were found", _CHECK_KEYS)
    if isinstance(error, exceptions.EndpointResolutionError):
        return Fault(str(error), WRITE_ENDPOINT, is_input=True)
    if isinstance(error, exceptions.ProfileNotFound):
        return Fault("there is no such profile", _CHECK_KEYS)
    return None


def _judge_connection(error: Exception) -> Fault | None:
    """What an error of the connection to the server means, as the client names those."""
    from aiohttp import ClientError as PayloadError
    from botocore import exceptions

    if isinstance(error, exceptions.SSLError):
        if "WRONG_VERSION_NUMBER" in str(error):
            return Fault("the server does not speak TLS", _CHECK_ENDPOINT)
        return Fault("the server's certificate is not trusted", CHECK_NETWORK)
    if isinstance(error, (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError)):
        return Fault("no answer in time", CHECK_NETWORK, is_transient=True)
    lost = (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.ResponseStreamingError,
        PayloadError,
    )
    if isinstance(error, lost):
        return Fault("the connection was lost or refused", CHECK_NETWORK, is_transient=True)
    return None


def refuse_others(operation_model: Any, response_dict: Response, **_: Any) -> None:
    """Raises NotS3Error for an answer that no S3 server gives: a web page, above all.

    botocore calls it with each answer before it reads that. Errors of servers that stand before
    one (502, 503) may pass, and look like that as well.
    """
    status, headers = response_dict["status_code"], response_dict["headers"]
    if status >= 500 or status == 429:
        return
    is_read = operation_model.name in {"GetObject", "HeadObject"} and status < 300
    if "etag" not in headers if is_read else _is_other(headers, response_dict["body"]):
        raise NotS3Error(name_answer(status, headers))


def name_answer(status: int, headers: Any) -> str:
    """The status of an answer, with its kind of content."""
    kind = headers.get("content-type", "")
    return f"{status} ({kind})" if kind else str(status)


def _is_other(headers: Any, body: bytes) -> bool:
    """Whether an answer is no XML, or a page; S3 servers may call an empty one a page."""
    content = body.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not content:
        return is_page(headers) and not is_s3(headers)
    return not content.startswith(b"<") or (is_page(headers) and not content.startswith(b"<?xml"))


def is_page(headers: Any) -> bool:
    """Whether headers are of a web page."""
    return "html" in headers.get("content-type", "").partition(";")[0].lower()


def is_s3(headers: Any) -> bool:
    """Whether headers are of an S3 server, which may have web pages as files."""
    return any(name.lower().startswith(("x-amz", "x-goog-", "x-rgw-")) for name in headers)


def code_of(error: Exception) -> str:
    """The code of an error that a server answered; empty for another error."""
    return _read_refusal(error).code


def _read_refusal(error: Exception) -> _Refusal:
    response = getattr(error, "response", None)
    if not isinstance(response, dict):  # errors of the connection have one too: None
        return _Refusal()
    said, status = response.get("Error", {}), response.get("ResponseMetadata", {})
    message = "".join(c if c.isprintable() else " " for c in str(said.get("Message") or ""))
    line = " ".join(message.split())
    return _Refusal(
        str(said.get("Code", "")),
        int(status.get("HTTPStatusCode", 0)),
        line if len(line) <= _MESSAGE_MOST else line[:_MESSAGE_MOST] + "…",
    )


def _has_path(endpoint: str) -> bool:
    """Whether an endpoint has more behind its host."""
    return bool(endpoint.partition("://")[2].partition("/")[2])
