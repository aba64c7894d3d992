"""What `options` and the environment make of the client for S3. Nothing is asked of any server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore import UNSIGNED
from botocore.exceptions import ProfileNotFound

from umpteen.errors import SettingsError
from umpteen.store.backends.faults import WrongOptionsError
from umpteen.store.backends.s3_client import S3Client


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment of AWS but a region."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def look(options: dict[str, Any], see: Callable[[S3Client, Any], Any]) -> Any:
    """What can be seen of the client that these options make."""

    async def look() -> Any:
        client = S3Client(options)
        try:
            return see(client, await client._client.get())
        finally:
            await client.close()

    return asyncio.run(look())


def see_login(_: S3Client, client: Any) -> tuple[str, ...]:
    found = client._request_signer._credentials
    return (found.access_key, found.secret_key, found.token) if found else ()


def see_place(_: S3Client, client: Any) -> tuple[str, str]:
    return client.meta.endpoint_url, client.meta.region_name


def see_config(name: str) -> Callable[[S3Client, Any], Any]:
    return lambda _, client: getattr(client.meta.config, name)


@pytest.mark.parametrize(
    ("options", "login"),
    [
        ({"key": "k", "secret": "s"}, ("k", "s", None)),
        ({"key": "k", "secret": "s", "token": "t"}, ("k", "s", "t")),
        ({"username": "k", "password": "s"}, ("k", "s", None)),
        (
            {"client_kwargs": {"aws_access_key_id": "k", "aws_secret_access_key": "s"}},
            ("k", "s", None),
        ),
        (
            {"key": "k", "secret": "s", "client_kwargs": {"aws_access_key_id": "other"}},
            ("k", "s", None),
        ),
        ({}, ()),
    ],
)
def test_credentials_are_those_of_the_options(
    options: dict[str, Any], login: tuple[str, ...]
) -> None:
    assert look(options, see_login) == login


def test_credentials_may_be_of_a_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[profile lab]\naws_access_key_id = k\naws_secret_access_key = s\nregion = us-west-2\n"
    )
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert look({"profile": "lab"}, see_login) == ("k", "s", None)
    assert look({"profile": "lab"}, see_place)[1] == "us-west-2"
    with pytest.raises(ProfileNotFound):
        look({"profile": "none"}, see_login)


def test_who_is_anonymous_signs_nothing() -> None:
    options = {"anon": True, "key": "k", "secret": "s"}
    assert look(options, see_login) == ()
    assert look(options, see_config("signature_version")) is UNSIGNED


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({}, ("https://s3.eu-west-1.amazonaws.com", "eu-west-1")),
        ({"use_ssl": False}, ("http://s3.eu-west-1.amazonaws.com", "eu-west-1")),
        ({"endpoint_url": "http://h:1"}, ("http://h:1", "eu-west-1")),
        ({"client_kwargs": {"endpoint_url": "http://h:1"}}, ("http://h:1", "eu-west-1")),
        (
            {"endpoint_url": "http://h:1", "client_kwargs": {"endpoint_url": "http://other:1"}},
            ("http://h:1", "eu-west-1"),
        ),
        (
            {"client_kwargs": {"region_name": "eu-north-1"}},
            ("https://s3.eu-north-1.amazonaws.com", "eu-north-1"),
        ),
    ],
)
def test_endpoint_and_region_are_those_of_the_options(
    options: dict[str, Any], place: tuple[str, str]
) -> None:
    assert look(options, see_place) == place


def test_what_fsspec_is_configured_with_is_an_option_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.config import conf

    monkeypatch.setitem(conf, "s3", {"endpoint_url": "http://h:1", "key": "k", "secret": "s"})
    assert look({}, see_place)[0] == "http://h:1"
    assert look({"key": "own"}, see_login) == ("own", "s", None)


def test_limits_are_ours_unless_options_say_otherwise() -> None:
    assert look({}, see_config("connect_timeout")) == 5
    assert look({"read_timeout": 0.5}, see_config("read_timeout")) == 0.5
    assert look({"config_kwargs": {"read_timeout": 7}}, see_config("read_timeout")) == 7
    assert look({}, see_config("retries"))["total_max_attempts"] == 1
    with pytest.raises(SettingsError, match="read_timeout"):
        S3Client({"read_timeout": "soon"})


def test_checksums_are_sent_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    see = see_config("request_checksum_calculation")
    assert look({}, see) == "when_required"
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    assert look({}, see) == "when_supported"


def test_options_of_caches_and_splits_have_no_effect() -> None:
    unused = {"cache_regions": True, "default_block_size": 5, "use_listings_cache": False}
    assert look(unused, see_place) == look({}, see_place)


def test_what_is_added_goes_to_the_requests_that_know_it() -> None:
    key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k"}
    options = {"s3_additional_kwargs": {**key, "StorageClass": "COLD"}, "requester_pays": True}
    added = look(options, lambda client, _: client._added)
    assert added["get_object"] == {**key, "RequestPayer": "requester"}
    assert added["put_object"] == {**added["get_object"], "StorageClass": "COLD"}
    assert added["copy_object"].keys() == {
        *added["put_object"], "CopySourceSSECustomerAlgorithm", "CopySourceSSECustomerKey",
    }  # fmt: skip
    assert added["list_objects_v2"] == {"RequestPayer": "requester"}
    assert look({}, lambda client, _: client._added["put_object"]) == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden": "secret-word"}, "there is no option 'hidden'"),
        ({"s3_additional_kwargs": {"hidden": "secret-word"}}, "there is no option 'hidden'"),
        ({"client_kwargs": {"hidden": "secret-word"}}, "there is no option 'hidden'"),
        ({"key": "k", "username": "k"}, "not both"),
        ({"client_kwargs": 5}, "mapping"),
    ],
)
def test_options_that_cannot_be_are_named_without_their_value(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(WrongOptionsError, match=words) as caught:
        look(options, see_place)
    assert "secret-word" not in str(caught.value)
    assert caught.value.fault.is_input
