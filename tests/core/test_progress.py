import io
import sys
import threading

import pytest

from fettle.core import progress
from fettle.core.progress import Lines, Live, Silent, board, reporter
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


def test_a_terminal_that_can_not_be_drawn_on_gets_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(reporter(), Lines)


@pytest.fixture
def live(monkeypatch):
    """Open a live view on a terminal of its own; return both."""

    def opened():
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        return Live(), terminal

    return opened


def test_a_live_view_has_no_thread_of_its_own(live):
    view, _ = live()
    before = threading.active_count()
    with view.board(lambda: "standing"), view.bar("train", 3) as bar:
        bar.step()
        assert threading.active_count() == before


def test_nothing_is_drawn_between_two_reports(live, clock):
    view, terminal = live()
    with view.bar("timing", 9) as bar:
        clock[0] += 1
        bar.step()
        shown = terminal.getvalue()
        clock[0] += 60
        assert terminal.getvalue() == shown
        bar.step()
        assert terminal.getvalue() != shown


def test_reports_in_quick_succession_are_drawn_once(live, clock):
    view, terminal = live()
    with view.bar("train", 900) as bar:
        clock[0] += 1
        bar.step()
        shown = terminal.getvalue()
        for _ in range(800):
            bar.step()
        assert terminal.getvalue() == shown
    assert "801/900" in terminal.getvalue()


def test_a_board_is_drawn_anew_above_the_bars(live, clock):
    view, terminal = live()
    standing = ["nothing yet"]
    with board(view, lambda: standing[0]), view.bar("train", 2) as bar:
        clock[0] += 1
        bar.step()
        standing[0] = "4.2 times"
        clock[0] += 1
        bar.step()
        shown = terminal.getvalue()
    assert shown.index("nothing yet") < shown.index("4.2 times") < shown.rindex("train")
    assert "\x1b[?25h" in terminal.getvalue()  # the cursor is shown again


def test_bars_within_bars_share_one_view(live, clock):
    view, terminal = live()
    with view.bar("outer", 2) as outer, view.bar("inner", 5) as inner:
        clock[0] += 1
        inner.step()
        clock[0] += 1
        outer.step()
    assert "1/2" in terminal.getvalue()
    assert "1/5" in terminal.getvalue()


def test_an_interrupt_closes_the_view(live):
    view, terminal = live()
    with pytest.raises(KeyboardInterrupt), view.board(lambda: "standing"):
        raise KeyboardInterrupt
    view.say("after")
    assert terminal.getvalue().rstrip().endswith("after")
    with view.bar("train", 1) as bar:
        bar.step()


@pytest.mark.parametrize("kind", [Silent, Lines, Recorder])
def test_a_board_is_for_terminals(kind, capsys):
    with board(kind(), lambda: pytest.fail("drawn")):
        pass
    assert capsys.readouterr().err == ""
