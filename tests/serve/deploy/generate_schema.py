"""Write `inference_service.json`: the schema of KServe's InferenceService, as far as it is used.

    python -m tests.serve.deploy.generate_schema KSERVE KUBERNETES

KSERVE is the unpacked wheel `kserve` 0.21.0, whose models are generated from the OpenAPI schema of
the CRD: their fields and types are read off their text. KUBERNETES is a folder of Kubernetes' own
schemas, `kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict` in the wheel
`kubernetes-validate` 1.37.0. Both are under the Apache License 2.0. Types that no manifest of ours
has are left as objects of any content; descriptions are left out.
"""

import ast
import json
import re
import sys
from pathlib import Path

OWN = {
    "V1beta1InferenceServiceSpec": "v1beta1_inference_service_spec",
    "V1beta1PredictorSpec": "v1beta1_predictor_spec",
}
KUBERNETES = {
    "V1Container": "io.k8s.api.core.v1.Container",
    "V1PodSecurityContext": "io.k8s.api.core.v1.PodSecurityContext",
    "V1Volume": "io.k8s.api.core.v1.Volume",
    "V1ObjectMeta": "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
}
PLAIN = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "object": {},
}
VOLUMES = {"name", "emptyDir", "configMap", "secret", "persistentVolumeClaim"}
LEFT_OUT = {"description", "$schema", "$id"}
HERE = Path(__file__).parent


def of_kserve(folder, module):
    """Return the schema of one of KServe's models."""
    tree = ast.parse((folder / "kserve" / "models" / f"{module}.py").read_text())
    found = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and node.value.keys
        and isinstance(node.targets[0], ast.Name)
    }  # fmt: skip
    names, types = found["attribute_map"], found["openapi_types"]
    fields = {names[field]: of_type(kind) for field, kind in types.items()}
    return {"type": "object", "properties": fields, "additionalProperties": False}


def of_type(kind):
    """Return the schema of a type as the models write it: `str`, `list[V1Container]` …"""
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        return {"type": "array", "items": of_type(inner[1])}
    if inner := re.fullmatch(r"dict\(str, (.+)\)", kind):
        return {"type": "object", "additionalProperties": of_type(inner[1])}
    if kind in PLAIN:
        return PLAIN[kind]
    known = kind if kind in OWN else KUBERNETES.get(kind)
    return {"$ref": f"#/$defs/{known}"} if known else {"type": "object"}


def bare(schema):
    """Return a schema of Kubernetes without words, its references pointing into one file."""
    if isinstance(schema, list):
        return [bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: value
        for key, value in schema.items()
        if (key not in LEFT_OUT or isinstance(value, dict)) and not key.startswith("x-")
    }
    if "$ref" in kept:
        return {"$ref": "#/$defs/" + kept["$ref"].rpartition("/")[2]}
    return {key: bare(value) for key, value in kept.items()}


def references(schema):
    """Yield the names of the definitions that a schema refers to."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].rpartition("/")[2]
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def closure(definitions, names):
    """Return the definitions called `names` and those they need; none takes unknown fields."""
    found, waiting = {}, list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        schema = bare(definitions[name])
        if name.endswith(".Volume"):
            schema["properties"] = {k: v for k, v in schema["properties"].items() if k in VOLUMES}
        if "properties" in schema:
            schema["additionalProperties"] = False
        found[name] = schema
        waiting += references(schema)
    return found


def main(kserve, kubernetes):
    definitions = json.loads((kubernetes / "_definitions.json").read_text())["$defs"]
    own = {name: of_kserve(kserve, module) for name, module in OWN.items()}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Made by generate_schema.py from kserve 0.21.0 (The KServe Authors) and"
        " kubernetes-validate 1.37.0 (Will Thames, The Kubernetes Authors), both under the Apache"
        " License 2.0; descriptions and unused types are left out.",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"const": "serving.kserve.io/v1beta1"},
            "kind": {"const": "InferenceService"},
            "metadata": of_type("V1ObjectMeta"),
            "spec": {**of_type("V1beta1InferenceServiceSpec"), "required": ["predictor"]},
        },
        "$defs": {**own, **closure(definitions, KUBERNETES.values())},
    }
    text = json.dumps(schema, separators=(",", ":"), sort_keys=True)
    (HERE / "inference_service.json").write_text(text + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
