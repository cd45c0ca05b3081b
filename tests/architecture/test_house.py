"""The house keeps its own rules: who may import whom, how long a file is, and no pickles."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fettle
from fettle.core.shelf import SHELVES

HOUSE = Path(fettle.__file__).parent
ROOT = HOUSE.parents[1]
FILES = sorted(HOUSE.rglob("*.py"))
NAMES = [str(path.relative_to(HOUSE)) for path in FILES]
LONGEST = 400
# CIFAR's own files are pickles: they are read by an unpickler that makes nothing but arrays.
READS_PICKLES = "tasks/sources/_pickled.py"
TORCHLESS = ("core", "graph", "runtimes", "measure", "report", "serve", "monitor", "tasks", "cli")
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}

BLOCK = """
import importlib, pkgutil, sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "torchao", "timm",
                                      "lightning_fabric", "torch_pruning"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, NoTorch())
"""


def run(code, *arguments):
    """Run `code` in a fresh interpreter in which torch can't be imported."""
    command = [sys.executable, "-c", BLOCK + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def trees():
    for path, name in zip(FILES, NAMES, strict=True):
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def calls(tree):
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def called(call):
    return ast.unparse(call.func)


def argument(call, name):
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def test_imports_point_down_only():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("room", TORCHLESS)
def test_the_production_half_imports_without_torch(room):
    code = f"""
package = importlib.import_module("fettle.{room}")
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.startswith(("fettle.runtimes.pytorch", "fettle.runtimes._torch_")):
        importlib.import_module(module.name)
print("torch" in sys.modules)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]


def test_the_blocker_blocks():
    done = run("import torch")
    assert done.returncode != 0
    assert "torch is blocked" in done.stderr


def test_the_public_api_is_quick_to_import():
    done = run("import fettle; print(sorted({'onnx', 'numpy', 'scipy'} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_can_be_had():
    assert all(getattr(fettle, name) is not None for name in fettle.__all__)
    assert set(fettle.__all__) == set(fettle._HOMES)
    with pytest.raises(AttributeError):
        fettle.no_such_name  # noqa: B018


@pytest.mark.parametrize(("path", "name"), list(zip(FILES, NAMES, strict=True)), ids=NAMES)
def test_a_file_reads_like_a_page(path, name):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_nothing_is_unpickled():
    """A module may catch `pickle.UnpicklingError`; only one may unpickle, with restrictions."""
    uses = {}
    for name, tree in trees():
        for node in ast.walk(tree):
            text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.ImportFrom) else ""
            words = text.removeprefix("from ").replace(".", " ").split()
            if words and words[0] in PICKLERS:
                uses.setdefault(name, set()).add(text)
    allowed = {"pickle.UnpicklingError"}
    assert uses.pop(READS_PICKLES) == {"pickle.Unpickler", *allowed}
    assert {use for found in uses.values() for use in found} <= allowed


def test_numpy_never_unpickles():
    found = [
        name
        for name, tree in trees()
        for call in calls(tree)
        if argument(call, "allow_pickle") not in (None, "False")
    ]
    assert found == []


def test_numpy_loads_say_so():
    loads = [
        (name, argument(call, "allow_pickle"))
        for name, tree in trees()
        for call in calls(tree)
        if called(call) in ("np.load", "numpy.load")
    ]
    assert loads
    assert {said for _, said in loads} == {"False"}


def test_torch_never_unpickles():
    found = [
        (name, called(call))
        for name, tree in trees()
        for call in calls(tree)
        if called(call) == "torch.save"
        or (called(call) == "torch.load" and argument(call, "weights_only") != "True")
    ]
    assert found == []


def test_nothing_is_evaluated_or_sent_to_a_shell():
    refused = {"eval", "exec", "os.system", "os.popen"}
    found = [
        (name, called(call))
        for name, tree in trees()
        for call in calls(tree)
        if called(call) in refused or argument(call, "shell") == "True"
    ]
    assert found == []


def test_no_machine_path_is_written_down():
    marks = ("/work/", "/home/", "/root/", "/Users/", "C:\\\\Users")
    found = [n for p, n in zip(FILES, NAMES, strict=True) if any(m in p.read_text() for m in marks)]
    assert found == []


def plugins():
    return [(shelf, name) for shelf in SHELVES for name in shelf.names()]


@pytest.mark.parametrize(("shelf", "name"), plugins(), ids=[n for _, n in plugins()])
def test_every_plugin_has_a_mirrored_test(shelf, name):
    room = shelf.package.split(".")[1]
    parts = name.removeprefix(shelf.prefix).split(".")
    stem, folders = parts[-1], [*shelf.package.split(".")[2:], *parts[:-1]]
    tests = [p.stem for p in (ROOT / "tests" / room).rglob("test_*.py")]
    # its own file, or one file for all of a folder of small ones, such as `test_sources.py`
    fitting = [t for t in tests if t.endswith(f"_{stem}") or t in {f"test_{f}" for f in folders}]
    assert fitting, f"tests/{room} has no test of `{name}`"
