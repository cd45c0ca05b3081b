"""At least 200 malformed requests: each 4xx with an error, and the server none the worse."""

import os
import time

import psutil
import pytest
from tests.serve.http.malformed import corpus
from tests.serve.http.whole import INFER, Served, serving


@pytest.fixture(scope="module")
def served(proven, tmp_path_factory):
    inputs, outputs = proven.golden()
    log = tmp_path_factory.mktemp("log") / "p.db"
    with serving([f"m={proven.path}"], log=log, body_bytes=1 << 20, body_seconds=2) as run:
        yield Served(run, None, inputs, outputs)


def test_each_is_refused_and_told_why(served, caplog):
    requests = corpus(served.document())
    assert len({each.name for each in requests}) == len(requests) >= 200
    wrong = []
    for each in requests:
        response = served.post(INFER, each.body, **each.headers)
        if not 400 <= response.status < 500 or not response.error:
            wrong.append((each.name, response.status, response.body[:100]))
    assert wrong == []
    assert caplog.text == ""
    assert served.post(INFER, served.document()).status == 200


def test_memory_and_descriptors_are_back_where_they_were(served):
    process = psutil.Process(os.getpid())
    requests = corpus(served.document())

    def all_of_them():
        for each in requests:
            served.post(INFER, each.body, **each.headers)
        time.sleep(0.1)
        return process.memory_info().rss, process.num_fds()

    all_of_them()
    rss, descriptors = all_of_them()
    for _ in range(2):
        later, open_now = all_of_them()
    assert open_now <= descriptors + 2
    assert later - rss < 16 << 20


@pytest.mark.parametrize("cut", [0, 1, 10, 50])
def test_half_sent_bodies_are_given_up(served, cut):
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode()
    with served.run.connect() as sock:
        sock.sendall(head + b"{" * cut)
    assert served.post(INFER, served.document()).status == 200
