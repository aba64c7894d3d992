"""What a store on S3 or SFTP does when the network or the server does not do its part."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.proxy import Answer, FaultProxy, Request, refusal
from tests.support.s3 import S3, S3Server
from tests.support.server import find_port
from tests.support.sftp import Sftp
from umpteen.errors import SettingsError, StoreError, UmpteenError
from umpteen.store.address import open_store
from umpteen.store.backends import sftp as sftp_backend
from umpteen.store.base import Store
from umpteen.store.layout import RecordsKey, records_folder, records_key
from umpteen.store.segments import SEGMENT_BYTES

MB = 1024 * 1024


@pytest.fixture
def store(s3: S3, s3_proxy: FaultProxy) -> Iterator[Store]:
    """A store on S3, behind the proxy."""
    store = open_store(s3.address, s3.through(s3_proxy.port))
    yield store
    store.close()


def open_with(s3: S3, **options: Any) -> Store:
    return open_store(s3.address, {**s3.options, **options})


def shown(error: pytest.ExceptionInfo[UmpteenError]) -> str:
    """All that a user may be shown of an error."""
    return f"{error.value} {error.value.hint} {error.value.to_dict()}"


# --- how much is asked ------------------------------------------------------------------------


def test_each_thing_asked_is_one_request(
    store: Store, s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    store.create("a/first", b"1")  # tries out once whether that is exclusive
    assert s3_proxy.count() == {"PUT": 3, "HEAD": 1, "DELETE": 1}
    assert store.create("a/second", b"2")
    assert s3_proxy.count() == {"PUT": 1}
    assert not store.create("a/second", b"2")  # where there is one: whose is it?
    assert s3_proxy.count() == {"PUT": 1, "HEAD": 1}
    store.replace("a/third", b"3")
    assert s3_proxy.count() == {"PUT": 1}
    for key in ("a/third", "a/none"):
        store.read(key)
        assert s3_proxy.count() == {"GET": 1}
        store.read_tail(key, 10)
        assert s3_proxy.count() == {"GET": 1}
        store.fetch(key, str(tmp_path / "copy"))
        assert s3_proxy.count() == {"GET": 1}
        store.delete(key)
        assert s3_proxy.count() == {"DELETE": 1}
    for folder in ("a", "none", ""):
        store.names(folder)
        assert s3_proxy.count() == {"GET": 1}
        store.walk(folder)
        assert s3_proxy.count() == {"GET": 1}
    store.put("a/fourth", str(tmp_path / "copy"))
    assert s3_proxy.count() == {"PUT": 1}


def test_many_are_asked_for_no_more_than_once_each(
    store: Store, s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    (tmp_path / "one").write_bytes(b"1")
    keys = [f"a/{number}" for number in range(1500)]
    store.put_many([(key, str(tmp_path / "one")) for key in keys])
    assert s3_proxy.count() == {"PUT": 1500}
    assert len(store.names("a")) == 1500
    assert s3_proxy.count() == {"GET": 2}
    assert store.read_many([(key, 0, -1) for key in keys[:50]]) == [b"1"] * 50
    assert s3_proxy.count() == {"GET": 50}
    store.delete_many(keys)
    assert s3_proxy.count() == {"POST": 2}


def test_records_without_news_cost_a_listing_alone(store: Store, s3_proxy: FaultProxy) -> None:
    key = records_key("7", RecordsKey(1, "aa"))
    records = store.open_records(key)
    assert s3_proxy.count() == {}
    for _ in range(3):
        records.append(b"x" * SEGMENT_BYTES)
        records.flush()
    records.append(b"last\n")
    records.flush()
    assert s3_proxy.count() == {"PUT": 4}
    store.names(records_folder("7"))
    assert store.read(key, 3 * SEGMENT_BYTES) == b"last\n"
    assert s3_proxy.count() == {"GET": 2}
    store.names(records_folder("7"))
    assert store.read(key, 3 * SEGMENT_BYTES + 5) == b""
    assert s3_proxy.count() == {"GET": 1}
    assert store.read(key, 3 * SEGMENT_BYTES + 5) == b""  # looks again, having read once
    assert s3_proxy.count() == {"GET": 1}


def test_many_at_once_wait_for_one_another_little(store: Store, s3_proxy: FaultProxy) -> None:
    for number in range(64):
        store.replace(f"a/{number}", b"x")
    s3_proxy.latency_s = 0.1
    began_s = time.monotonic()
    store.read_many([(f"a/{number}", 0, -1) for number in range(64)])
    assert time.monotonic() - began_s < 64 * 0.2 / 4


# --- faults that pass -------------------------------------------------------------------------


def use_everything(store: Store, folder: Path) -> None:
    """All that a store can do, with answers that are checked."""
    content = os.urandom(300_000)
    (folder / "file").write_bytes(content)
    for number in range(8):
        assert store.create(f"a/{number}", b"%d" % number)
        assert not store.create(f"a/{number}", b"other")
        store.replace(f"b/{number}", content)
    assert store.read_many([(f"a/{n}", 0, -1) for n in range(8)]) == [b"%d" % n for n in range(8)]
    assert store.read("b/3") == content
    assert store.read_tail("b/3", 1000) == content[-1000:]
    store.put_many([(f"c/{number}", str(folder / "file")) for number in range(8)])
    pairs = [(f"c/{number}", str(folder / f"copy{number}")) for number in range(8)]
    assert store.fetch_many(pairs) == [True] * 8
    assert all((folder / f"copy{number}").read_bytes() == content for number in range(8))
    store.move("c", "d")
    assert sorted(store.names("d")) == [str(number) for number in range(8)]
    assert store.names("c") == []
    store.delete_many([f"d/{number}" for number in range(8)])
    assert len(store.walk("")) == 16


def test_errors_of_a_fifth_of_requests_are_not_noticed(
    store: Store, s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    s3_proxy.errors = 0.2
    use_everything(store, tmp_path)


@pytest.mark.parametrize("status", [429, 500])
def test_errors_of_other_kinds_pass_too(store: Store, s3_proxy: FaultProxy, status: int) -> None:
    s3_proxy.errors, s3_proxy.status = 0.3, status
    for number in range(10):
        store.replace("a", b"%d" % number)
        assert store.read("a") == b"%d" % number


def test_resets_of_answers_are_not_noticed(
    store: Store, s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    s3_proxy.reset = 0.1
    use_everything(store, tmp_path)


def test_connections_that_are_refused_are_tried_again(
    store: Store, s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    s3_proxy.refuse = 0.3
    use_everything(store, tmp_path)


def test_a_pause_is_waited_out(s3: S3, s3_proxy: FaultProxy) -> None:
    store = open_store(s3.address, {**s3.through(s3_proxy.port), "read_timeout": 0.5})
    store.replace("a", b"x")
    s3_proxy.blackhole = True
    threading.Timer(2, lambda: setattr(s3_proxy, "blackhole", False)).start()
    store.replace("a", b"y")
    assert store.read("a") == b"y"
    store.close()


def test_a_patient_store_bears_with_a_server_that_is_gone_for_long(
    store: Store, s3_proxy: FaultProxy
) -> None:
    s3_proxy.refuse = 1.0
    threading.Timer(8, lambda: setattr(s3_proxy, "refuse", 0.0)).start()
    with store.patient():
        store.replace("a", b"x")
    assert store.read("a") == b"x"


def test_create_whose_answer_was_lost_is_ours(store: Store, s3_proxy: FaultProxy) -> None:
    assert store.create("a/first", b"1")
    s3_proxy.reset = 1.0
    s3_proxy.count()
    threading.Timer(0.7, lambda: setattr(s3_proxy, "reset", 0.0)).start()
    assert store.create("a/second", b"2")
    assert s3_proxy.count()["PUT"] > 1


def test_a_slow_line_is_no_silent_one(s3: S3, s3_proxy: FaultProxy, tmp_path: Path) -> None:
    s3_proxy.rate_bytes_s = 5 * MB
    store = open_store(s3.address, {**s3.through(s3_proxy.port), "read_timeout": 2})
    content = os.urandom(16 * MB)  # more than twice what fits into the buffers on the way
    store.replace("a", content)
    assert store.fetch("a", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == content
    store.close()


# --- faults that stay -------------------------------------------------------------------------


def test_a_server_that_is_silent_is_an_error_in_time(
    s3: S3, s3_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_proxy.blackhole = True
    monkeypatch.setenv("UMPTEEN_STORE_PATIENCE_S", "1")
    store = open_store(s3.address, {**s3.through(s3_proxy.port), "read_timeout": 0.3})
    began_s = time.monotonic()
    with pytest.raises(StoreError) as caught:
        store.read("a/b")
    assert time.monotonic() - began_s < 5
    assert caught.value.transient
    assert "could not read" in caught.value.message
    assert caught.value.path == f"{s3.address}/a/b"
    store.close()


def test_a_server_that_is_gone_is_an_error_soon(s3: S3) -> None:
    store = open_store(s3.address, s3.through(find_port()))
    began_s = time.monotonic()
    with pytest.raises(StoreError, match="connection was lost or refused") as caught:
        store.replace("a", b"x")
    assert time.monotonic() - began_s < 15
    assert caught.value.transient
    assert "network" in (caught.value.hint or "")
    store.close()


@pytest.mark.parametrize(
    ("options", "reason", "hint"),
    [
        ({"secret": "hidden-word"}, "secret does not fit", "check the key"),
        ({"key": "hidden-word"}, "does not know this access key", "check the key"),
        ({"anon": True, "key": None, "secret": None}, "access denied", "may not do this"),
    ],
)
def test_credentials_that_are_wrong_are_named_but_not_shown(
    s3: S3, options: dict[str, Any], reason: str, hint: str
) -> None:
    store = open_with(s3, **options)
    for call in (
        lambda: store.read("a"),
        lambda: store.replace("a", b"x"),
        lambda: store.create("a", b"x"),
        lambda: store.names("a"),
        lambda: store.delete("a"),
    ):
        began_s = time.monotonic()
        with pytest.raises(StoreError, match=reason) as caught:
            call()
        assert time.monotonic() - began_s < 5
        assert hint in (caught.value.hint or "")
        assert not caught.value.transient
        assert "hidden-word" not in shown(caught)
        assert "hidden-word" not in "".join(traceback.format_exception(caught.value))
    store.close()


def test_no_credentials_at_all_are_an_error(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    store = open_store(s3.address, {"endpoint_url": s3.endpoint})
    with pytest.raises(StoreError, match="no credentials were found"):
        store.read("a")
    store.close()


def test_a_bucket_that_is_missing_is_an_error(s3: S3) -> None:
    store = open_store("s3://no-such-bucket/a", s3.options)
    for call in (
        lambda: store.read("a"),
        lambda: store.replace("a", b"x"),
        lambda: store.names("a"),
        lambda: store.walk("a"),
    ):
        with pytest.raises(StoreError, match="there is no such bucket") as caught:
            call()
        assert "make the bucket" in (caught.value.hint or "")
        assert not caught.value.transient
    store.close()


@pytest.mark.usefixtures("s3")  # which is skipped where there is no server
def test_a_quota_that_is_reached_is_an_error(request: pytest.FixtureRequest) -> None:
    server: S3Server = request.getfixturevalue("s3_server")
    small = server.make_bucket(max_bytes=100_000)
    store = open_store(small.address, small.options)
    store.replace("a", bytes(60_000))
    with pytest.raises(StoreError, match="quota of the place is used up") as caught:
        store.replace("b", bytes(60_000))
    assert "make room" in (caught.value.hint or "")
    assert not caught.value.transient
    store.close()


def test_credentials_that_expire_are_named(store: Store, s3_proxy: FaultProxy) -> None:
    store.replace("a", b"x")
    s3_proxy.errors, s3_proxy.status, s3_proxy.code = 1.0, 400, "ExpiredToken"
    with pytest.raises(StoreError, match="the credentials have expired") as caught:
        store.replace("a", b"y")
    assert "renew" in (caught.value.hint or "")
    assert not caught.value.transient


def test_an_unknown_option_is_an_error_without_its_value(s3: S3) -> None:
    for options in (
        {"hidden_option": "hidden-word"},
        {"client_kwargs": {"hidden_option": "hidden-word"}},
        {"config_kwargs": {"hidden_option": "hidden-word"}},
        {"s3_additional_kwargs": {"hidden_option": "hidden-word"}},
    ):
        store = open_with(s3, **options)
        with pytest.raises(SettingsError, match="there is no option 'hidden_option'") as caught:
            store.read("a")
        assert "`options`" in (caught.value.hint or "")
        assert "hidden-word" not in shown(caught)
        store.close()


def test_requests_say_who_pays(s3: S3, s3_proxy: FaultProxy, tmp_path: Path) -> None:
    def demand(request: Request) -> Answer | None:
        is_said = request.headers.get("x-amz-request-payer") == "requester"
        return None if is_said else refusal(403, "AccessDenied")

    s3_proxy.rule = demand
    store = open_store(s3.address, {**s3.through(s3_proxy.port), "requester_pays": True})
    use_everything(store, tmp_path)
    store.close()


_KEYS = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "0123456789abcdef" * 2}


def test_reads_and_heads_have_the_key_that_writes_had(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umpteen.store.backends.s3._WHOLE_BYTES", MB)  # so that some go in parts
    store = open_with(s3, s3_additional_kwargs=_KEYS)
    content = os.urandom(9 * MB)
    assert store.create("a", b"x")
    assert not store.create("a", b"y")
    store.replace("large", content)
    assert store.read("a") == store.read_tail("a", 1) == b"x"
    assert store.fetch("large", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == content
    other = open_store(s3.address, s3.options)
    with pytest.raises(StoreError, match=r"InvalidRequest|InvalidArgument|400"):
        other.read("a")
    for each in (store, other):
        each.close()


def test_copies_have_the_key_of_their_source(s3: S3, s3_proxy: FaultProxy) -> None:
    copies: list[Request] = []

    def copy(request: Request) -> Answer | None:
        if "x-amz-copy-source" not in request.headers:
            return None
        copies.append(request)
        return Answer(200, "<CopyObjectResult><ETag>x</ETag></CopyObjectResult>")

    s3_proxy.rule = copy  # as this server cannot do that
    store = open_store(s3.address, {**s3.through(s3_proxy.port), "s3_additional_kwargs": _KEYS})
    store.replace("a", b"x")
    store.move("a", "b")
    (made,) = copies
    for side in ("", "copy-source-"):
        assert f"x-amz-{side}server-side-encryption-customer-key" in made.headers
    store.close()


def test_a_server_without_conditions_is_told_from_one_that_fails(
    store: Store, s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    def refuse(request: Request) -> Answer | None:
        is_one = "if-none-match" in request.headers
        return refusal(501, "NotImplemented", "A header you provided …") if is_one else None

    s3_proxy.rule = refuse
    began_s = time.monotonic()
    assert not store.has_exclusive_create
    use_everything(store, tmp_path)
    assert time.monotonic() - began_s < 10


def test_what_is_not_implemented_is_not_tried_again(store: Store, s3_proxy: FaultProxy) -> None:
    s3_proxy.rule = lambda _: refusal(501, "NotImplemented", "Encryption is for others")
    began_s = time.monotonic()
    for call in (lambda: store.replace("a", b"x"), lambda: store.create("a", b"x")):
        with pytest.raises(StoreError, match="NotImplemented: Encryption is for others") as caught:
            call()
        assert not caught.value.transient
    assert time.monotonic() - began_s < 5


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, "<html><body>Sign in</body></html>", "text/html; charset=utf-8"),
        Answer(200, "<!DOCTYPE html><html><br>Sign in", "text/html"),
        Answer(404, "<html>", "text/html"),
        Answer(405, "<html>", "text/html"),
        Answer(200, '{"status": "ok"}', "application/json"),
    ],
)
def test_another_server_is_told_from_a_damaged_job(
    store: Store, s3_proxy: FaultProxy, answer: Answer, tmp_path: Path
) -> None:
    s3_proxy.rule = lambda _: answer
    began_s = time.monotonic()
    for call in (
        lambda: store.read("a"),
        lambda: store.read_tail("a", 10),
        lambda: store.fetch("a", str(tmp_path / "copy")),
        lambda: store.names("a"),
        lambda: store.walk(""),
        lambda: store.create("a", b"x"),
    ):
        with pytest.raises(StoreError, match="no S3 server") as caught:
            call()
        assert "endpoint" in (caught.value.hint or "")
    assert time.monotonic() - began_s < 5
    assert not (tmp_path / "copy").exists()


def test_a_server_may_call_its_empty_answers_pages(store: Store, s3_proxy: FaultProxy) -> None:
    headers = f'ETag: "{"0" * 32}"\r\nx-amzn-requestid: 1\r\n'  # as moto does
    s3_proxy.rule = lambda _: Answer(200, "", "text/html; charset=utf-8", headers)
    store.replace("a", b"x")
    assert s3_proxy.count() == {"PUT": 1}


def test_web_pages_may_be_results(s3: S3, store: Store) -> None:
    from botocore.session import Session

    client = Session().create_client(
        "s3",
        endpoint_url=s3.endpoint,
        region_name="us-east-1",
        aws_access_key_id=s3.key,
        aws_secret_access_key=s3.secret,
    )
    page = {"Bucket": s3.bucket, "ContentType": "text/html", "Body": b"<html>"}
    client.put_object(**page, Key="results/job/page.html")
    client.put_object(**page, Key="results/job/page")
    client.close()
    assert store.read("page.html") == store.read("page") == b"<html>"


def test_a_page_of_a_proxy_that_is_overloaded_passes(store: Store, s3_proxy: FaultProxy) -> None:
    answers = [Answer(502, "<html>Bad gateway</html>", "text/html")] * 2
    s3_proxy.rule = lambda _: answers.pop() if answers else None
    assert store.read("a") is None
    assert not answers


def test_what_is_not_known_is_told_in_the_words_of_the_server(
    store: Store, s3_proxy: FaultProxy
) -> None:
    s3_proxy.rule = lambda _: refusal(409, "NewCode", "Not on\na \u202eFriday" + "y" * 999)
    with pytest.raises(StoreError, match=r"the server answered NewCode: Not on a .*…") as caught:
        store.replace("a", b"x")
    assert "\u202e" not in caught.value.message
    assert len(caught.value.message) < 400


def test_checksums_are_sent_where_the_environment_says_so(
    s3: S3, s3_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def demand(request: Request) -> Answer | None:
        if request.method != "PUT" or "x-amz-checksum-crc32" in request.headers:
            return None
        if "x-amz-trailer" in request.headers:
            return None
        said = "Content-MD5 OR x-amz-checksum- HTTP header is required with Object Lock"
        return refusal(400, "InvalidRequest", said)

    s3_proxy.rule = demand
    store = open_store(s3.address, s3.through(s3_proxy.port))
    with pytest.raises(StoreError, match="Object Lock") as caught:
        store.create("a", b"x")
    assert "AWS_REQUEST_CHECKSUM_CALCULATION=when_supported" in (caught.value.hint or "")
    store.close()
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    use_and_close(s3, s3_proxy)
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION")
    (tmp_path / "config").write_text("[default]\nrequest_checksum_calculation = when_supported\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    use_and_close(s3, s3_proxy)


def use_and_close(s3: S3, proxy: FaultProxy) -> None:
    store = open_store(s3.address, s3.through(proxy.port))
    store.create(f"a/{os.urandom(4).hex()}", b"x")
    store.close()


def test_where_nothing_may_be_removed_one_file_is_left(s3: S3, s3_proxy: FaultProxy) -> None:
    def refuse(request: Request) -> Answer | None:
        return refusal(403, "AccessDenied") if request.method == "DELETE" else None

    s3_proxy.rule = refuse
    for _ in range(3):
        store = open_store(s3.address, s3.through(s3_proxy.port))
        with pytest.raises(StoreError, match="access denied"):
            store.create("a", b"x")
        assert len(store.walk("")) == 1
        store.close()


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("127.0.0.1:1", "Invalid endpoint"),
        ("ftp://127.0.0.1", "not a valid URI"),
        ("http://127.0.0.1:port", "not a valid URI"),
    ],
)
def test_an_endpoint_that_can_be_none_is_input(s3: S3, endpoint: str, words: str) -> None:
    store = open_with(s3, endpoint_url=endpoint)
    with pytest.raises(SettingsError, match=words) as caught:
        store.read("a")
    assert "http://HOST:PORT" in (caught.value.hint or "")
    store.close()


def test_options_that_are_no_mapping_are_input(s3: S3) -> None:
    store = open_with(s3, config_kwargs=5)
    with pytest.raises(SettingsError, match="cannot be used"):
        store.read("a")
    store.close()


def test_an_endpoint_with_a_path_is_named_where_no_bucket_is_found(s3: S3) -> None:
    store = open_with(s3, endpoint_url=f"{s3.endpoint}/some/path")
    with pytest.raises(StoreError) as caught:
        store.names("a")
    assert "the endpoint has a path" in (caught.value.hint or "")
    store.close()


def test_tls_to_a_server_that_has_none_is_told(s3: S3) -> None:
    store = open_with(s3, endpoint_url=s3.endpoint.replace("http:", "https:"))
    with pytest.raises(StoreError, match="does not speak TLS"):
        store.names("a")
    store.close()


def test_options_of_other_places_are_input_too(sftp: Sftp) -> None:
    for options, words in (
        ({"hidden_option": "hidden-word"}, "there is no option 'hidden_option'"),
        ({"read_timeout": "hidden-word"}, "read_timeout .* no number"),
        ({"port": "hidden-word"}, "port .* no number"),
    ):
        with pytest.raises(SettingsError, match=words) as caught:
            open_store(sftp.address, {**sftp.options, **options}).read("a")
        assert "hidden-word" not in shown(caught)


@pytest.mark.parametrize(
    ("scheme", "package", "extra"), [("gs", "gcsfs", "gs"), ("sfs", "saturnfs", "saturn")]
)
def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, scheme: str, package: str, extra: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else name)
    said = f"results at {scheme}:// need the package {package}"
    with pytest.raises(SettingsError, match=said) as caught:
        open_store(f"{scheme}://bucket/a", {})
    assert caught.value.hint == f"pip install 'umpteen[{extra}]'"


# --- SFTP -------------------------------------------------------------------------------------


@pytest.fixture
def sftp_proxy(sftp: Sftp) -> Iterator[FaultProxy]:
    """A proxy before the SFTP server."""
    with FaultProxy(sftp.port) as proxy:
        yield proxy


def open_through(sftp: Sftp, proxy: FaultProxy, **options: Any) -> Store:
    address = sftp.address.replace(f":{sftp.port}/", f":{proxy.port}/")
    known = {"host_key_alias": f"[127.0.0.1]:{sftp.port}"}
    return open_store(address, {**sftp.options, **known, **options})


def test_sftp_connection_that_was_lost_is_made_again(
    sftp: Sftp, sftp_proxy: FaultProxy, tmp_path: Path
) -> None:
    store = open_through(sftp, sftp_proxy)
    assert store.read("a") is None
    sftp_proxy.reset = 0.005
    use_everything(store, tmp_path)
    store.close()


def test_what_a_lost_sftp_connection_has_left_is_removed(
    sftp: Sftp, sftp_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, lost = sftp_backend._rename, list[str]()

    async def lose(channel: Any, old: str, new: str) -> None:
        sftp_proxy.reset = 0.0 if lost else 1.0
        lost.append(old)
        try:
            await channel.stat(old)
        finally:
            sftp_proxy.reset = 0.0
        await rename(channel, old, new)

    monkeypatch.setattr(sftp_backend, "_rename", lose)
    store = open_through(sftp, sftp_proxy)
    store.replace("a", b"x")
    assert len(lost) == 2
    assert list(store.walk("")) == [("a", 1)]
    store.close()


def test_sftp_server_that_falls_silent_is_an_error_in_time(
    sftp: Sftp, sftp_proxy: FaultProxy
) -> None:
    store = open_through(sftp, sftp_proxy, read_timeout=0.4, connect_timeout=0.4)
    store.replace("a", b"x")
    sftp_proxy.blackhole = True
    began_s = time.monotonic()
    with pytest.raises(StoreError) as caught:
        store.read("a")
    assert time.monotonic() - began_s < 30
    assert caught.value.transient
    sftp_proxy.blackhole = False
    assert store.read("a") == b"x"
    store.close()


def test_sftp_login_that_is_refused_is_named(sftp: Sftp, tmp_path: Path) -> None:
    import asyncssh

    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(tmp_path / "other"))
    store = open_store(sftp.address, {**sftp.options, "client_keys": [str(tmp_path / "other")]})
    with pytest.raises(StoreError, match="refused the login") as caught:
        store.read("a")
    assert "must work without a password" in (caught.value.hint or "")
    store.close()


def test_sftp_host_that_is_not_known_is_refused(sftp: Sftp, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    store = open_store(sftp.address, {**sftp.options, "known_hosts": str(tmp_path / "empty")})
    with pytest.raises(StoreError, match="key of the host is not known") as caught:
        store.read("a")
    assert "known_hosts" in (caught.value.hint or "")
    store.close()


# --- what is large ----------------------------------------------------------------------------


def test_large_files_go_in_parts_and_little_memory(
    s3: S3, s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    program = f"""
import resource
from umpteen.store.address import open_store
store = open_store({s3.address!r}, {s3.through(s3_proxy.port)!r})
store.replace("small", b"x")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.replace("a", (b"%c" % (33 + n % 90) * {MB} for n in range(200)))
store.create("b", (b"%c" % (33 + n % 90) * {MB} for n in range(200)))
assert store.fetch("a", {str(tmp_path / "copy")!r})
store.put("c", {str(tmp_path / "copy")!r})
assert store.read("c", 150 * {MB} - 1, 2) == store.read("b", 150 * {MB} - 1, 2) != None
big = [(name, 200 * {MB}) for name in "abc"]
assert sorted(store.walk("")) == [*big, ("small", 1)]
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert int(done.stdout) < 60, "MB more than before"
    assert s3_proxy.count()["PUT"] > 50
