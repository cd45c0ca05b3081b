"""What is found out before a search begins; the command line's tests show the messages."""

import math
from types import SimpleNamespace

import pytest

from fettle.core.errors import DataError, InputError, KnobError, ModelError, UnknownName
from fettle.search import Setting, Source
from fettle.search._beforehand import check_data, check_folder, check_teachers, check_wish
from fettle.search.journal import Journal
from fettle.search.optimize import Wish
from fettle.testing import TinyTask

TASK = TinyTask()


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_a_limit_is_a_number_of_seconds(seconds):
    with pytest.raises(KnobError, match="seconds above 0"):
        check_wish(Wish(seconds=seconds))


@pytest.mark.parametrize("where", ["only", "skip"])
def test_names_are_known(where):
    with pytest.raises(UnknownName, match=r"did you mean `prune`"):
        check_wish(Wish(**{where: ("prunee",)}))
    check_wish(Wish(**{where: ("prune", "quantize.static", "graph.")}))


def test_something_must_be_left():
    with pytest.raises(InputError, match="nothing to try"):
        check_wish(Wish(only=("quantize.static",), skip=("quantize",)))
    check_wish(Wish(only=("quantize",), skip=("quantize.static",)))
    check_wish(Wish(skip=("prune", "distill", "quantize", "graph")))  # engines are still compared


@pytest.mark.parametrize("only", ["prune", "quantize", "quantize.static"])
def test_for_an_onnx_file_something_that_works_on_it_must_be_left(only):
    check_wish(Wish(only=(only,)))
    check_wish(Wish(only=(only, "graph.float16")), on_graph=True)
    with pytest.raises(InputError, match=f"`{only}`.*ONNX file, which is `graph`.*the torch model"):
        check_wish(Wish(only=(only,)), on_graph=True)


def test_sound_data_is_let_through():
    check_data(TASK)


def test_splits_are_filled_and_apart():
    empty = SimpleNamespace(size=lambda split: int(split != "test"))
    with pytest.raises(DataError, match=r"no examples left in `test`.*for the verdict"):
        check_data(empty)
    same = SimpleNamespace(size=lambda split: 5, fingerprint=lambda split: split == "train")
    with pytest.raises(DataError, match="same examples as `calibrate`"):
        check_data(same)


def test_no_training_data_is_no_fault():
    check_data(SimpleNamespace(size=lambda s: int(s != "train"), fingerprint=lambda split: split))


def test_a_folder_belongs_to_a_model_and_its_data(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    mine = Source("cifar:resnet8"), Setting(data="digits")
    check_folder(tmp_path, journal, *mine)
    journal.write("start", model="cifar:resnet8", data="digits")
    check_folder(tmp_path, journal, *mine)
    check_folder(tmp_path, journal, mine[0], Setting())  # data that has no name
    with pytest.raises(InputError, match="study of the model `cifar:resnet8`"):
        check_folder(tmp_path, journal, Source("cifar:resnet20"), mine[1])
    with pytest.raises(InputError, match="study of the data `digits`"):
        check_folder(tmp_path, journal, mine[0], Setting(data="rows:digits"))


def test_teachers_are_asked_once_the_model_itself_is_not(workshop, linear):
    own = workshop().source
    check_teachers(workshop(teacher=own))
    check_teachers(workshop(teacher=[own, Source("cifar:resnet8")]))
    with pytest.raises(UnknownName, match="resnet9"):
        check_teachers(workshop(teacher=[own, Source("cifar:resnet9")]))
    with pytest.raises(ModelError, match="none"):
        check_teachers(workshop(teacher=Source("cifar:resnet8", weights="gone.safetensors")))
