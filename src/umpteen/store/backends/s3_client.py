"""The client that S3 is asked through, by what `options` and the environment say of it.

aiobotocore finds credentials, region and endpoint. The names of the options are those of
fsspec's s3://, which users know.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import time
from collections.abc import Mapping
from typing import Any

from umpteen.store.backends.faults import (
    CONNECT_S,
    READ_S,
    Fault,
    WrongOptionsError,
    read_number,
)
from umpteen.store.backends.loop import IN_FLIGHT, OpenOnce
from umpteen.store.backends.s3_errors import judge_s3, refuse_others
from umpteen.store.base import Options

__all__ = ["Answer", "S3Client"]

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
# Options and what botocore calls them, in `client_kwargs` too.
_CREDENTIALS = {
    "key": "aws_access_key_id",
    "secret": "aws_secret_access_key",
    "token": "aws_session_token",
}
_SAME = {"username": "key", "password": "secret"}
# Options that say how fsspec caches and splits files. A bucket's region is found without
# `cache_regions`, too.
_WITHOUT_EFFECT = (
    "cache_regions", "default_block_size", "default_cache_type", "default_fill_cache",
    "fixed_upload_size", "listings_expiry_time", "local_expiry_check", "max_concurrency",
    "max_paths", "use_listings_cache", "version_aware",
)  # fmt: skip


# What S3 answered to a request, by the names of its API.
Answer = Mapping[str, Any]


class S3Client:
    """Makes requests, each with all that the options add to those of its kind.

    Connects at the first one. Errors are WrongOptionsError, and those of botocore.
    """

    def __init__(self, options: Options) -> None:
        options = dict(options)
        self._config = {
            "connect_timeout": read_number(options, "connect_timeout", CONNECT_S),
            "read_timeout": read_number(options, "read_timeout", READ_S),
            "max_pool_connections": 2 * IN_FLIGHT,
            "retries": {"total_max_attempts": 1},  # trying again is ours
        }
        self._options = options
        self._client: OpenOnce[Any] = OpenOnce(self._open)
        self._closing = contextlib.AsyncExitStack()
        # What the options add to the arguments of each operation.
        self._added: dict[str, Options] = {}
        # When it was there first, on the monotonic clock: what it needs takes a second to load,
        # and more on a busy machine.
        self.ready_s = math.inf

    async def call(self, operation: str, **arguments: Any) -> Answer:
        """One request; what it answers."""
        client = self._client.opened or await self._client.get()
        if added := self._added[operation]:
            if "Metadata" in added and "Metadata" in arguments:
                arguments["Metadata"] = {**added["Metadata"], **arguments["Metadata"]}
            arguments = {**added, **arguments}
        answer: Answer = await getattr(client, operation)(**arguments)
        return answer

    def judge(self, error: Exception) -> Fault:
        """What an error of a request means."""
        client = self._client.opened
        return judge_s3(error, client.meta.endpoint_url if client else "")

    async def close(self) -> None:
        """Let go of connections."""
        self._client.forget()
        await self._closing.aclose()

    async def _open(self) -> Any:
        """The client; raises WrongOptionsError where the options allow none."""
        from botocore import exceptions

        wrong = (
            *(TypeError, ValueError, KeyError, exceptions.InvalidRegionError),
            *(exceptions.InvalidS3AddressingStyleError, exceptions.InvalidChecksumConfigError),
        )
        try:
            options = {**_read_fsspec_config(), **self._options}
            added = {**(options.pop("s3_additional_kwargs", None) or {})}
            payer = {"RequestPayer": "requester"} if options.pop("requester_pays", False) else {}
            client = await self._closing.enter_async_context(_create_client(options, self._config))
            self._added = _list_added(client, added, payer)
        except wrong as error:
            await self._closing.aclose()
            raise WrongOptionsError("s3", error) from error
        # Under this name it is before botocore's own look, which makes a 500 of what is no XML.
        client.meta.events.register_first("before-parse.*.*", refuse_others)
        self.ready_s = min(self.ready_s, time.monotonic())
        return client


def _create_client(options: Options, config: Options) -> Any:
    """A client that is still to be entered; raises TypeError for options that there are not."""
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession
    from botocore import UNSIGNED

    for name in _WITHOUT_EFFECT:
        options.pop(name, None)
    arguments = {
        "use_ssl": options.pop("use_ssl", True),
        **(options.pop("client_kwargs", None) or {}),
        **_take_credentials(options),
    }
    if endpoint := options.pop("endpoint_url", None):
        arguments["endpoint_url"] = endpoint
    config = {**config, **(options.pop("config_kwargs", None) or {})}
    if options.pop("anon", False):
        arguments = {k: v for k, v in arguments.items() if k not in _CREDENTIALS.values()}
        config["signature_version"] = UNSIGNED
    session = AioSession(**options)
    config = {**_choose_checksums(session), **config}
    return session.create_client("s3", config=AioConfig(**config), **arguments)


def _take_credentials(options: Options) -> dict[str, str]:
    """Key, secret and token, as botocore calls them, taken out of the options."""
    for other, name in _SAME.items():
        given = options.pop(other, None)
        if given and options.get(name):
            raise ValueError(f"Supply either {name} or {other}, not both")
        if given:
            options[name] = given
    taken = {called: options.pop(name, None) for name, called in _CREDENTIALS.items()}
    return {called: value for called, value in taken.items() if value is not None}


def _choose_checksums(session: Any) -> dict[str, str]:
    """When checksums are sent and looked at, where nobody has said so in the environment."""
    said = session.get_scoped_config()
    return {
        name: "when_required"
        for name, variable in _CHECKSUMS.items()
        if variable not in os.environ and name not in said
    }


def _list_added(client: Any, added: Options, payer: Options) -> dict[str, Options]:
    """What is added to each operation: what it knows of `added` and of who pays.

    Raises TypeError for what is to be added and fits none of them.
    """
    if not added and not payer:
        return {operation: {} for operation in _OPERATIONS}
    model, names = client.meta.service_model, client.meta.method_to_api_mapping
    known = {each: model.operation_model(names[each]).input_shape.members for each in _OPERATIONS}
    for name in added:
        if not any(name in members for members in known.values()):
            raise TypeError(f"s3_additional_kwargs: unexpected option '{name}'")
    keys = {name: value for name, value in added.items() if name.startswith("SSECustomer")}
    all_of_it = {**added, **payer, **{f"CopySource{name}": each for name, each in keys.items()}}
    return {
        operation: {name: value for name, value in all_of_it.items() if name in members}
        for operation, members in known.items()
    }


def _read_fsspec_config() -> Options:
    """What fsspec's own configuration says of s3://, where fsspec is installed."""
    if importlib.util.find_spec("fsspec") is None:
        return {}
    from fsspec.config import conf

    return {**conf.get("s3", {}), **conf.get("s3a", {})}
