import io
import sys

import pytest

from fettle.core import progress
from fettle.core.progress import Lines, Live, Silent, reporter
from fettle.testing import Recorder


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work(reporter, total=3):
    reporter.say("start [bold]")
    with reporter.bar("train", total) as bar:
        for step in range(total):
            bar.step(f"loss {step}")


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("kind", [Silent, Lines, Live])
def test_nothing_ever_goes_to_stdout(kind, capsys):
    work(kind())
    out, err = capsys.readouterr()
    assert out == ""
    assert (err == "") is (kind is Silent)


def test_lines_come_now_and_then(capsys, clock):
    with Lines(every_seconds=5).bar("train", 10, done=2) as bar:
        bar.step("a")
        clock[0] += 6
        bar.step("b")
        bar.step("c", amount=2)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["  train: 4/10 b (18 s left)", "  train: 6/10 c (6 s left)"]


def test_a_bar_without_news_is_not_printed_twice(capsys, clock):
    with Lines(every_seconds=0).bar("train", 1) as bar:
        clock[0] += 2.5
        bar.step()
    assert capsys.readouterr().err.splitlines() == ["  train: 1/1  (2.5 s)"]


def test_a_bar_of_nothing_ends(capsys):
    with Lines().bar("train", 0):
        pass
    assert "train: 0/0" in capsys.readouterr().err


def test_lines_are_text_not_markup(capsys):
    Live().say("[bold]prune[/bold] [1/3]")
    assert "[bold]prune[/bold] [1/3]" in capsys.readouterr().err


def test_live_on_a_terminal_and_lines_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(reporter(), Live)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(reporter(), Lines)


def test_a_live_bar_shows_title_count_and_note(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    work(Live(), total=2)
    shown = terminal.getvalue()
    for part in ("train", "2/2", "loss 1"):
        assert part in shown


def test_the_recorder_keeps_everything():
    recorder = Recorder()
    work(recorder)
    assert recorder.lines == ["start [bold]"]
    bar = recorder.bars[0]
    assert (bar.title, bar.total, bar.done, bar.notes[-1]) == ("train", 3, 3, "loss 2")
