"""The map from paths to handlers: what there is, by which method, and for whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from fettle.serve.errors import NotFound, WrongMethod

Audience = Literal["anyone", "callers", "control"]
_MODELS = "/v2/models/"
_REPOSITORY = "/v2/repository/models/"


@dataclass(frozen=True)
class Route:
    """A path's answer to one method.

    Attributes:
        handler: name of the method of `Handlers`.
        audience: anyone, callers who may ask for predictions, or those who control the server.
        summary: what it does, for the description.
        body: whether it takes one.
    """

    handler: str
    audience: Audience
    summary: str
    body: bool = False


class Found(NamedTuple):
    """A route, and what its path names."""

    route: Route
    name: str
    version: str | None


_MODEL = {
    "": {"GET": Route("model", "callers", "Inputs, outputs and versions of a model")},
    "/ready": {"GET": Route("model_ready", "anyone", "Whether a model answers")},
    "/infer": {"POST": Route("infer", "callers", "Ask a model for a prediction", body=True)},
    "/config": {"GET": Route("configuration", "callers", "A model's configuration, as Triton's")},
    "/stats": {"GET": Route("statistics", "callers", "What a model has done so far")},
}
ROUTES: dict[str, dict[str, Route]] = {
    "/": {"GET": Route("front", "anyone", "Where to find what")},
    "/dashboard": {"GET": Route("dashboard", "control", "A page on how the models do")},
    "/v2": {"GET": Route("server", "anyone", "Name, version and extensions of the server")},
    "/v2/health/live": {"GET": Route("live", "anyone", "Whether the server runs")},
    "/v2/health/ready": {"GET": Route("ready", "anyone", "Whether all its models answer")},
    "/v2/models/stats": {"GET": Route("statistics", "callers", "What all models have done")},
    **{f"{_MODELS}{{name}}{rest}": methods for rest, methods in _MODEL.items()},
    **{f"{_MODELS}{{name}}/versions/{{version}}{rest}": m for rest, m in _MODEL.items()},
    f"{_MODELS}{{name}}/feedback": {
        "POST": Route("feedback", "callers", "Tell what was right for a request", body=True)
    },
    "/v2/repository/index": {
        "POST": Route("index", "control", "All models, with their states", body=True)
    },
    f"{_REPOSITORY}{{name}}/load": {
        "POST": Route("load", "control", "Load a model, or load it anew", body=True)
    },
    f"{_REPOSITORY}{{name}}/unload": {
        "POST": Route("unload", "control", "Stop answering for a model", body=True)
    },
    "/v2/rollout": {
        "GET": Route("rollout", "control", "What rides along with the models, and what was decided")
    },
    "/v2/rollout/promote": {
        "POST": Route("promote", "control", "Take the canary to its next step", body=True)
    },
    "/v2/rollout/rollback": {
        "POST": Route("rollback", "control", "Take the canary back", body=True)
    },
    "/metrics": {"GET": Route("metrics", "control", "Numbers for Prometheus")},
    "/openapi.json": {"GET": Route("description", "anyone", "This description")},
}


def find(method: str, path: str) -> Found:
    """Return the route of a path, and the model that the path names.

    Raises:
        NotFound: there is no such path.
        WrongMethod: it answers other methods.
    """
    place, name, version = template(path)
    methods = ROUTES.get(place)
    if methods is None:
        raise NotFound("no such path; GET /openapi.json tells those there are")
    route = methods.get("GET" if method == "HEAD" else method)
    if route is None:
        allowed = [*methods, *(["HEAD"] if "GET" in methods else [])]
        raise WrongMethod(f"{' or '.join(methods)} was expected here, got {method}", allowed)
    return Found(route, name, version)


def template(path: str) -> tuple[str, str, str | None]:
    """Return a path without what it names, and the model and version that it names."""
    if path in ROUTES:
        return path, "", None
    if path.startswith(_MODELS):
        name, slash, rest = path[len(_MODELS) :].partition("/")
        if rest.startswith("versions/"):
            version, more, rest = rest.removeprefix("versions/").partition("/")
            return f"{_MODELS}{{name}}/versions/{{version}}{more}{rest}", name, version
        return f"{_MODELS}{{name}}{slash}{rest}", name, None
    if path.startswith(_REPOSITORY):
        name, slash, rest = path[len(_REPOSITORY) :].partition("/")
        return f"{_REPOSITORY}{{name}}{slash}{rest}", name, None
    return path, "", None
