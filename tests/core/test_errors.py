import inspect
import re

import pytest

from fettle.core import errors
from fettle.core.errors import FettleError, MissingError, UnknownName, nearest


def classes():
    members = inspect.getmembers(errors, inspect.isclass)
    return {name: cls for name, cls in members if issubclass(cls, FettleError)}


def drawn():
    """Read the tree in the docstring: (name, parent, exit code) of every line."""
    found, path = [], []
    for line in inspect.getdoc(errors).splitlines():
        match = re.fullmatch(r"([│├└─ ]*)([A-Z]\w+)\s+(\d|exit code)(?:\s.*)?", line)
        if not match:
            continue
        depth = len(match[1]) // 4
        path = [*path[:depth], match[2]]
        found.append((match[2], path[-2] if depth else None, match[3]))
    return found


def test_the_tree_in_the_docstring_is_the_tree_of_classes():
    tree = {name: parent for name, parent, _ in drawn()}
    assert tree == {
        name: cls.__base__.__name__ if cls is not FettleError else None
        for name, cls in classes().items()
    }


def test_the_exit_codes_in_the_docstring_are_those_of_the_classes():
    codes = {name: int(code) for name, _, code in drawn() if code.isdigit()}
    assert codes == {n: c.exit_code for n, c in classes().items() if c is not FettleError}


def test_every_class_says_what_it_is():
    assert all(inspect.getdoc(cls) for cls in classes().values())


def test_a_missing_thing_carries_its_mend():
    error = MissingError("the runtime `openvino`", "pip install 'fettle[openvino]'")
    assert error.mend == "pip install 'fettle[openvino]'"
    assert str(error) == "the runtime `openvino`; to mend it: pip install 'fettle[openvino]'"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Resnet20", ["resnet20"]), ("quantise", ["quantize"]), ("zzz", []), ("", [])],
)
def test_nearest(name, expected):
    assert nearest(name, ["resnet20", "quantize", "mobilenet"]) == expected


def test_nearest_shows_names_as_they_are_written():
    assert nearest("fashionmnist", ["FashionMNIST", "CIFAR10"]) == ["FashionMNIST"]


def test_an_unknown_name_lists_a_dozen_at_most():
    text = str(UnknownName("model", "?", [f"name{i:02}" for i in range(30)]))
    assert "name11, …" in text
    assert "name12" not in text
    assert str(UnknownName("model", "?", [])) == "unknown model `?`; known: none"
