"""What is made of the errors of S3 servers, whatever they call them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from botocore import exceptions

from umpteen.store.backends.s3_errors import NotS3Error, Response, code_of, judge_s3, refuse_others

ENDPOINT = "https://s3.lab.example"
REFUSED = ConnectionRefusedError()


def answered(code: str, status: int, message: str = "") -> exceptions.ClientError:
    said = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return exceptions.ClientError(said, "PutObject")


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("SlowDown", 503, "the server answered 503"),
        ("503", 503, "the server answered 503"),
        ("429", 429, "the server answered 429"),
        ("InternalError", 200, "the server answered 200"),
        ("NewCode", 500, "the server answered NewCode"),
        ("ConditionalRequestConflict", 409, "the server answered 409"),
    ],
)
def test_answers_that_pass_are_transient(code: str, status: int, reason: str) -> None:
    fault = judge_s3(answered(code, status), ENDPOINT)
    assert (fault.reason, fault.is_transient) == (reason, True)


@pytest.mark.parametrize(
    ("code", "status", "reason", "hint"),
    [
        ("ExpiredTokenException", 400, "the credentials have expired", "renew"),
        ("403", 403, "access denied", "may not do this"),
        ("UserQuotaExceeded", 403, "the quota of the place is used up", "make room"),
        ("AuthorizationHeaderMalformed", 400, "the bucket is in another region", "name it"),
        ("NoSuchBucket", 404, "there is no such bucket", "make the bucket"),
        ("NotImplemented", 501, "the server answered NotImplemented", ""),
        ("NewCode", 409, "the server answered NewCode", ""),
    ],
)
def test_answers_that_stay_are_named(code: str, status: int, reason: str, hint: str) -> None:
    fault = judge_s3(answered(code, status), ENDPOINT)
    assert (fault.reason, fault.is_transient) == (reason, False)
    assert hint in (fault.hint or "")


def test_words_of_a_server_are_one_line_and_not_long() -> None:
    fault = judge_s3(answered("New", 400, "Not on\na \u202eFriday" + "y" * 999), ENDPOINT)
    assert fault.reason.startswith("the server answered New: Not on a Friday")
    assert len(fault.reason) < 300


def test_a_demand_for_checksums_is_answered_by_a_hint() -> None:
    fault = judge_s3(answered("InvalidRequest", 400, "Content-MD5 is required"), ENDPOINT)
    assert "AWS_REQUEST_CHECKSUM_CALCULATION" in (fault.hint or "")


def test_a_missing_bucket_may_be_the_path_of_an_endpoint() -> None:
    fault = judge_s3(answered("NoSuchBucket", 404), f"{ENDPOINT}/some/path")
    assert "the endpoint has a path" in (fault.hint or "")


@pytest.mark.parametrize(
    ("error", "reason", "is_transient"),
    [
        (exceptions.NoCredentialsError(), "no credentials were found", False),
        (exceptions.ProfileNotFound(profile="x"), "there is no such profile", False),
        (
            exceptions.EndpointConnectionError(endpoint_url="x", error=REFUSED),
            "the connection was lost or refused",
            True,
        ),
        (exceptions.ReadTimeoutError(endpoint_url="x"), "no answer in time", True),
        (
            exceptions.SSLError(endpoint_url="x", error="WRONG_VERSION_NUMBER"),
            "the server does not speak TLS",
            False,
        ),
        (
            exceptions.SSLError(endpoint_url="x", error="unknown"),
            "the server's certificate is not trusted",
            False,
        ),
        (REFUSED, "the connection was lost or refused", True),
        (LookupError("odd"), "LookupError: odd", False),
    ],
)
def test_errors_of_the_client_are_named(
    error: Exception, reason: str, *, is_transient: bool
) -> None:
    fault = judge_s3(error, ENDPOINT)
    assert (fault.reason, fault.is_transient) == (reason, is_transient)


def test_only_answers_of_a_server_have_a_code() -> None:
    assert code_of(answered("NoSuchKey", 404)) == "NoSuchKey"
    assert code_of(exceptions.ReadTimeoutError(endpoint_url="x")) == code_of(REFUSED) == ""


XML = {"content-type": "application/xml"}
PAGE = {"content-type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    ("operation", "status", "headers", "body", "is_s3"),
    [
        ("ListObjectsV2", 200, XML, b"<ListBucketResult/>", True),
        ("ListObjectsV2", 200, XML, b'{"status": "ok"}', False),
        ("ListObjectsV2", 200, PAGE, b"<html>", False),
        ("ListObjectsV2", 200, PAGE, b"<?xml version='1.0'?>", True),
        ("PutObject", 200, PAGE, b"", False),
        ("PutObject", 200, {**PAGE, "x-amzn-requestid": "1"}, b"", True),
        ("GetObject", 200, {"etag": "1"}, b"{}", True),
        ("GetObject", 200, {}, b"<xml>", False),
        ("GetObject", 404, XML, b"<Error/>", True),
        ("ListObjectsV2", 502, PAGE, b"<html>Bad gateway", True),  # it may pass
    ],
)
def test_answers_of_other_servers_are_refused(
    operation: str, status: int, headers: dict[str, str], body: bytes, *, is_s3: bool
) -> None:
    answer: Response = {"status_code": status, "headers": headers, "body": body}
    if is_s3:
        refuse_others(SimpleNamespace(name=operation), answer)
    else:
        with pytest.raises(NotS3Error, match=f"no S3 server: HTTP {status}"):
            refuse_others(SimpleNamespace(name=operation), answer)
