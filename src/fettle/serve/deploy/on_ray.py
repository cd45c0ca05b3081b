"""The application that Ray Serve runs: replicas with the handlers of `fettle serve`.

`serve.yaml`, which `fettle deploy ray` writes, names `application` and hands it `args`. Ray's proxy
takes the connections and shares requests out; each replica batches what it is given.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fettle.core.errors import InputError, MissingError
from fettle.serve.deploy.ray import DEPLOYMENT
from fettle.serve.deploy.replica import Replica
from fettle.serve.settings import Settings

_BEHIND_A_PROXY: dict[str, Any] = {"host": "0.0.0.0", "insecure": True}  # noqa: S104 - Ray listens
_NOT_HERE = frozenset(
    {"host", "port", "grpc_port", "log", "capsules", "redact", "certificate", "key", "insecure"}
    | {"tokens", "control_tokens", "access_log", "watch_seconds"}
)
_INSTALL = "pip install 'fettle[ray-serve]'"
_TOKENS = {"token_env": "tokens", "control_token_env": "control_tokens"}


class Fettle:
    """A replica, in an actor."""

    def __init__(self, args: dict[str, Any]) -> None:
        self._replica = Replica([f"{args['name']}={Path(args['bundle'])}"], settings_of(args))

    def __serve_build_asgi_app__(self) -> Replica:
        return self._replica

    def check_health(self) -> None:
        """Return if the models answer; Ray replaces a replica whose check raises."""
        self._replica.check()


def application(args: dict[str, Any]) -> Any:
    """Return what `serve run` deploys.

    Args:
        args: `bundle`, a folder as the replicas see it; `name` of the model; `settings`, options of
            `fettle serve`; `token_env` and `control_token_env`, environment variables that hold the
            tokens of those who may ask, and of those who may load and read metrics.

    Raises:
        InputError: an argument that is missing, that isn't one, or that is out of its bounds.
        MissingError: Ray Serve isn't here.
    """
    try:
        from ray import serve
    except ModuleNotFoundError as error:
        raise MissingError(f"Ray Serve needs the package `{error.name}`", _INSTALL) from error
    missing = {"bundle", "name"} - args.keys()
    if missing:
        raise InputError(f"`args` expects {' and '.join(sorted(missing))} in serve.yaml")
    settings_of({key: value for key, value in args.items() if key not in _TOKENS})  # told at once
    deployment: Any = serve.deployment(name=DEPLOYMENT)(serve.ingress()(Fettle))
    return deployment.bind(args)


def settings_of(args: Mapping[str, Any]) -> Settings:
    """Return the settings of a replica.

    Raises:
        InputError: an option that a replica doesn't have, or an empty environment variable.
        KnobError: an option out of its bounds.
    """
    given = dict(args.get("settings") or {})
    known = {field.name for field in dataclasses.fields(Settings)} - _NOT_HERE
    for name in given:
        if name not in known:
            raise InputError(
                f"`settings` of a replica has no `{name}`; it has {', '.join(sorted(known))}"
            )
    for key, field in _TOKENS.items():
        if key in args:
            given[field] = _tokens(args[key])
    return Settings(**_BEHIND_A_PROXY, **given)


def _tokens(variable: str) -> tuple[str, ...]:
    tokens = tuple(os.environ.get(variable, "").split())
    if not tokens:
        raise InputError(f"the environment variable {variable} expects tokens, and is empty")
    return tokens
