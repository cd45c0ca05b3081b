import pytest

from fettle.core.cache import cache_folder


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("FETTLE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ".cache/fettle"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/fettle"),
        ({"XDG_CACHE_HOME": ""}, ".cache/fettle"),
        ({"XDG_CACHE_HOME": "xdg", "FETTLE_CACHE": "own"}, "own"),
        ({"FETTLE_CACHE": ""}, ".cache/fettle"),
    ],
)
def test_the_users_own_choice_comes_first(given, expected, home, monkeypatch):
    for name, folder in given.items():
        monkeypatch.setenv(name, str(home / folder) if folder else "")
    assert cache_folder() == home / expected
    assert not cache_folder().exists()
