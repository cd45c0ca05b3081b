"""Our description of the interface: complete, closed in itself, and true of the routes."""

import json
import re

import pytest

from fettle.serve.http.openapi import describe
from fettle.serve.http.routes import ROUTES


@pytest.fixture(scope="module")
def described():
    return json.loads(json.dumps(describe()))


def test_every_route_is_described_once(described):
    found = {(p, m.upper()) for p, methods in described["paths"].items() for m in methods}
    assert found == {(path, method) for path, methods in ROUTES.items() for method in methods}
    ids = [
        each["operationId"] for methods in described["paths"].values() for each in methods.values()
    ]
    assert len(ids) == len(set(ids))


def test_what_a_path_names_is_a_parameter(described):
    for path, methods in described["paths"].items():
        for operation in methods.values():
            named = [each["name"] for each in operation.get("parameters", [])]
            assert named == re.findall(r"\{(\w+)\}", path)


def test_references_lead_somewhere(described):
    schemas = described["components"]["schemas"]
    found = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)))
    assert found
    assert found <= set(schemas)


def test_each_refusal_is_described_as_an_error(described):
    for methods in described["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if status != "200":
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Error"}
