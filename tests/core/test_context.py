from pathlib import Path

from fettle.core.context import Context
from fettle.core.progress import Silent
from fettle.core.recipe import Recipe
from fettle.core.shelf import TECHNIQUES


def test_by_default_it_is_seeded_silent_and_keeps_nothing():
    context = Context()
    assert context.seed == 0
    assert context.checkpoints is None
    assert context.teacher is None
    assert isinstance(context.progress, Silent)


def test_circumstances_are_neither_printed_nor_hashed():
    plain = TECHNIQUES.make("quantize.static")
    elsewhere = plain.within(Context(seed=7, checkpoints=Path("x")))
    assert elsewhere.context.seed == 7
    assert elsewhere == plain
    assert str(elsewhere) == str(plain)
    assert Recipe((elsewhere,)).hash() == Recipe((plain,)).hash()
