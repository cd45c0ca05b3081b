import pytest

from fettle.core.errors import DataError, ModelError
from fettle.core.usercode import find_function

CODE = "def build(n=3):\n    return n\n\nnumber = 4\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def test_finds_a_function_in_a_file(file):
    assert find_function(f"{file}:build", ModelError)(5) == 5


def test_finds_a_function_in_a_module():
    import json

    assert find_function("json:dumps", ModelError) is json.dumps
    assert find_function("os.path:join", ModelError)("a", "b") == "a/b"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{file}:built", "has no function `built`; it has: build"),
        ("{file}:number", "has no function `number`"),
        ("{folder}/none.py:build", "there is none"),
        ("{folder}/bad.py:build", "raised ZeroDivisionError"),
        ("{folder}/broken.py:build", "raised SyntaxError"),
        ("no.such.module:build", "can't be imported (ModuleNotFoundError"),
        ("json", "expected `path/file.py:function`"),
        (":build", "expected `path/file.py:function`"),
        ("json:", "expected `path/file.py:function`"),
        ("{folder}/mine.py", "expected `path/file.py:function`"),
    ],
)
@pytest.mark.parametrize("error", [ModelError, DataError])
def test_what_is_wrong_is_the_callers_error(file, spec, words, error):
    (file.parent / "bad.py").write_text("1 / 0\n")
    (file.parent / "broken.py").write_text("def build(:\n")
    with pytest.raises(error) as caught:
        find_function(spec.format(file=file, folder=file.parent), error)
    assert words in str(caught.value)
