"""Executors by name, and the one that needs nobody."""

import pytest

from fettle.core.errors import InputError, KnobError, MissingError, UnknownName
from fettle.search import Setting
from fettle.search.executors import EXECUTORS, executor, opened
from fettle.search.executors.local import Local


def test_the_folder_is_the_registry():
    assert EXECUTORS.names() == ["local", "ray"]


def test_this_process_needs_no_crew(recorder):
    assert executor("local") == Local()
    for setting in (Setting(), Setting(executor=Local())):
        with opened(setting, recorder) as crew:
            assert crew is None


def test_a_crew_is_let_go_whatever_happens(crew, recorder, monkeypatch):
    monkeypatch.setattr(Local, "crew", lambda self, say: crew)
    with pytest.raises(KeyboardInterrupt), opened(Setting(executor=Local()), recorder):
        raise KeyboardInterrupt
    assert crew.closed


@pytest.mark.parametrize("text", ["ray://10.0.0.5:6379", 'ray(address="10.0.0.5:6379")'])
def test_a_cluster_by_its_address(text):
    pytest.importorskip("ray")
    assert executor(text).values() == {"address": "10.0.0.5:6379", "tag": "target", "tries": 3}


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("rya", UnknownName, "unknown executor `rya`; did you mean `ray`"),
        ("rya://host", UnknownName, "unknown executor `rya`"),
        ("local://host", InputError, "`local` has no address, got `local://host`: give `local`"),
        ("local(threads=2)", KnobError, "threads"),
        ("local(", InputError, "`executor` expects `local`, `ray`.*got `local(`"),
        ("", InputError, "`executor` expects `local`, `ray`.*got ``"),
    ],
)
def test_a_wrong_name_is_said_so(text, error, says):
    with pytest.raises(error, match=says.replace("(", r"\(")):
        executor(text)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "127.0.0.1", "127.0.0.1:99999", "[::1]:9"])
def test_nobody_at_the_address_is_said_at_once(address):
    pytest.importorskip("ray")
    with pytest.raises(MissingError, match=r"no Ray cluster answers at .*; to mend it: `ray start"):
        executor(f"ray://{address}").crew(lambda line: None)
