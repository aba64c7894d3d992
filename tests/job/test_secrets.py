"""Which options others may read."""

from __future__ import annotations

from typing import Any

import pytest

from umpteen.job.secrets import split_secrets


@pytest.mark.parametrize(
    "name",
    ["key", "secret", "token", "aws_access_key_id", "aws_secret_access_key", "SSECustomerKey",
     "account_key", "connection_string", "sas_token", "client_secret", "password", "passphrase",
     "env_vars", "auth", "headers", "cookies", "pass_phrase", "key_content", "pwd", "creds", "sas",
     "connectionString", "conn_str", "encryption_key", "shared_key", "pkey"],
)  # fmt: skip
def test_secret_is_left_out_however_deep(name: str) -> None:
    assert split_secrets({name: "x", "anon": False}) == ({"anon": False}, [name])
    kept, left_out = split_secrets({"a": {"b": {name: "x", "c": 1}}})
    assert (kept, left_out) == ({"a": {"b": {"c": 1}}}, [f"a.b.{name}"])


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint_url": "https://s3.lab:8080/x", "requester_pays": True, "profile": "lab"},
        {"s3_additional_kwargs": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "my"}},
        {"client_kwargs": {"region_name": "eu-1"}, "known_hosts": "~/.ssh/known_hosts", "port": 2},
        {"client_keys": ["~/.ssh/lab"], "username": "me"},
    ],
)
def test_what_is_no_secret_is_kept(options: dict[str, Any]) -> None:
    assert split_secrets(options) == (options, [])


@pytest.mark.parametrize(
    "value",
    ["http://user:pw@proxy:8080", "https://token@host/x", "https://h/x?sig=s", "https://h/?a=1&sig=s",
     "-----BEGIN OPENSSH PRIVATE KEY-----", {"password": "x"}],
)  # fmt: skip
def test_value_that_is_secret_is_left_out_wherever_it_stands(value: Any) -> None:
    assert split_secrets({"a": {"b": [value]}, "c": [1]}) == ({"a": {}, "c": [1]}, ["a.b"])


def test_name_of_a_user_is_left_out_with_its_password() -> None:
    assert split_secrets({"username": "me", "password": "x"}) == ({}, ["password", "username"])
