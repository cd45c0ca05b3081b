"""The access log: JSON lines, and what happens when nobody reads them."""

import io
import json
import threading

from fettle.serve.http.access import Access, AccessLog

LINE = Access(1.5, "10.0.0.1:5", "GET", "/v2", 200, 0, 12, 0.12345, "r-1")


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_holds_what_an_operator_asks():
    stream = io.BytesIO()
    log = AccessLog(stream)
    log.add(LINE)
    log.add(LINE._replace(path="/\udcff" + "a" * 1000, status=404))
    log.close()
    first, second = rows(stream.getvalue())
    assert first == {"time": 1.5, "peer": "10.0.0.1:5", "method": "GET", "path": "/v2",
                     "status": 200, "taken": 0, "given": 12, "ms": 0.123, "id": "r-1"}  # fmt: skip
    assert len(second["path"]) < 520


class Stuck(io.BytesIO):
    """A pipe that nobody reads for a while."""

    def __init__(self):
        super().__init__()
        self.free, self.stuck = threading.Event(), threading.Event()

    def write(self, data):
        self.stuck.set()
        assert self.free.wait(10)
        return super().write(data)


def test_a_reader_that_hangs_costs_lines_and_no_time():
    stream = Stuck()
    log = AccessLog(stream, most=5)
    log.add(LINE)
    assert stream.stuck.wait(10)
    for _ in range(9):
        log.add(LINE)  # returns, though nothing is written
    assert log.dropped == 4
    stream.free.set()
    log.close()
    written = rows(stream.getvalue())
    assert len(written) == 7
    assert written[-1]["dropped"] == 4


def test_a_stream_that_is_closed_is_survived():
    stream = io.BytesIO()
    log = AccessLog(stream)
    stream.close()
    log.add(LINE)
    log.close()
    assert log.dropped >= 1
