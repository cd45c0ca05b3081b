import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated

import pytest

from fettle.core import shelf as shelves
from fettle.core.errors import KnobError, MissingError, UnknownName
from fettle.core.knobs import Range
from fettle.core.plugin import Plugin
from fettle.core.shelf import PASSES, RUNTIMES, SHELVES, TECHNIQUES, Shelf

PACKAGE = "borrowed_tools"


class Tool(Plugin):
    """A seam of our own."""


@dataclass(frozen=True, kw_only=True)
class Foreign(Plugin):
    size: Annotated[int, Range(1, 9), "how large"] = 3


@dataclass(frozen=True)
class Point:
    name: str
    group: str

    def load(self):
        return Foreign


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A package of plug-ins: one sound, one that needs what isn't there, one private, one other."""
    root = tmp_path / PACKAGE
    (root / "sub").mkdir(parents=True)
    sound = (
        "from dataclasses import dataclass\nfrom fettle.core.plugin import Plugin\n"
        "class Tool(Plugin): ...\n\n@dataclass(frozen=True, kw_only=True)\nclass {0}(Tool):\n"
        '    """A tool."""\n'
    )
    (root / "__init__.py").write_text("")
    (root / "sub" / "__init__.py").write_text("")
    (root / "sub" / "plane.py").write_text(sound.format("Plane"))
    (root / "lathe.py").write_text("import torchao_of_dreams\n" + sound.format("Lathe"))
    (root / "saw.py").write_text("import timm\n" + sound.format("Saw"))
    (root / "_hidden.py").write_text(sound.format("Hidden"))
    (root / "notes.py").write_text("class NotATool: ...\n# class Fake(Tool): only in a comment\n")
    monkeypatch.syspath_prepend(tmp_path)
    shelves._modules.cache_clear()
    yield Shelf("tool", PACKAGE, "Tool", "fettle.tools", prefix="my.")
    shelves._modules.cache_clear()
    for name in [n for n in sys.modules if n.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_the_folder_is_the_registry(folder):
    assert folder.names() == ["my.lathe", "my.saw", "my.sub.plane"]


def test_loading_one_imports_that_module_alone(folder):
    cls = folder.load("my.sub.plane")
    assert cls.name() == "my.sub.plane"
    assert f"{PACKAGE}.sub.plane" in sys.modules
    assert f"{PACKAGE}.lathe" not in sys.modules


def test_a_missing_package_is_named_with_its_mend(folder, monkeypatch):
    with pytest.raises(MissingError) as caught:
        folder.load("my.lathe")
    assert caught.value.exit_code == 3
    assert "torchao_of_dreams" in str(caught.value)
    assert caught.value.mend == "pip install torchao_of_dreams"
    monkeypatch.setitem(sys.modules, "timm", None)  # import then raises ModuleNotFoundError
    with pytest.raises(MissingError) as caught:
        folder.load("my.saw")
    assert caught.value.mend == "pip install 'fettle[vision]'"


def test_an_unknown_name_has_its_nearest(folder):
    with pytest.raises(UnknownName) as caught:
        folder.load("my.sub.plan")
    assert caught.value.nearest[0] == "my.sub.plane"
    assert "unknown tool `my.sub.plan`; did you mean `my.sub.plane`" in str(caught.value)
    with pytest.raises(UnknownName, match=r"known: my\.lathe, my\.saw, my\.sub\.plane"):
        folder.load("xyz")


def test_an_unknown_knob_has_the_known_ones(monkeypatch):
    with pytest.raises(KnobError, match=r"no knob `ratios`; its knobs: threads, precision"):
        RUNTIMES.make("onnxruntime", ratios=1)


def test_third_parties_add_theirs_by_entry_point(folder, monkeypatch):
    def points(*, group):
        return [Point("theirs", group)] if group == "fettle.tools" else []

    monkeypatch.setattr(shelves, "entry_points", points)
    assert folder.names() == ["my.lathe", "my.saw", "my.sub.plane", "theirs"]
    assert folder.make("theirs", size=5) == Foreign(size=5)
    assert folder.load("theirs").name() == "theirs"
    with pytest.raises(KnobError):
        folder.make("theirs", size=10)


def test_an_entry_point_does_not_hide_our_own(folder, monkeypatch):
    monkeypatch.setattr(shelves, "entry_points", lambda *, group: [Point("my.sub.plane", group)])
    assert folder.load("my.sub.plane") is not Foreign
    assert folder.names().count("my.sub.plane") == 1


def test_entry_points_are_read_from_installed_packages(folder, tmp_path):
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fettle.tools]\ntheirs = {PACKAGE}.sub.plane:Plane\n")
    importlib.invalidate_caches()
    assert "theirs" in folder.names()
    assert folder.load("theirs").__name__ == "Plane"


def test_a_package_that_does_not_exist_is_an_empty_shelf():
    assert Shelf("ghost", "fettle.no_such_room", "Ghost", "fettle.ghosts").names() == []


def test_listing_every_shelf_imports_no_engine_and_no_torch():
    code = (
        "import json, sys\nfrom fettle.core.shelf import SHELVES\n"
        "names = [shelf.names() for shelf in SHELVES]\n"
        "heavy = {'torch', 'onnxruntime', 'openvino', 'timm', 'onnx', 'sklearn', 'scipy'}\n"
        "print(json.dumps([names, sorted(heavy & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, heavy = json.loads(done.stdout)
    assert heavy == []
    assert [len(found) > 0 for found in names[:5]] == [True] * 5


def test_what_stands_on_our_shelves():
    assert {"distill.logits", "prune.channels", "quantize.static"} <= set(TECHNIQUES.names())
    assert "graph.lower_ort_x86" in PASSES.names()
    assert {"onnxruntime", "openvino", "pytorch"} <= set(RUNTIMES.names())
    assert len({shelf.kind for shelf in SHELVES}) == len(SHELVES)
    assert len({shelf.group for shelf in SHELVES}) == len(SHELVES)
