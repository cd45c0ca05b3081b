"""A whole server with something riding along, asked by the client that people use."""

import contextlib
import json
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from tests.serve.http.test_infer import asking
from tests.serve.http.whole import Served, serving

from fettle.monitor.capsule import Capsule
from fettle.monitor.log import open_log
from fettle.monitor.replay import replay
from fettle.serve.rollout.settings import RolloutSettings

http = pytest.importorskip("tritonclient.http", reason="the real client of the protocol")
ALL = {"shadow_sample": 1.0, "shadow_busy": 1.0}
TOKEN = "c" * 32


@contextlib.contextmanager
def riding(proven, wanted, **settings):
    inputs, outputs = proven.golden()
    with (
        serving([f"m={proven.path}"], RolloutSettings(**wanted), **settings) as run,
        asking(run) as client,
    ):
        yield Served(run, client, inputs, outputs)


def ask(served, count, first=0):
    """Let as many callers ask, each with a key of its own; return whether each was told right."""
    array, expected = served.inputs[served.name], next(iter(served.outputs.values()))
    right = []
    for number in range(first, first + count):
        row = number % len(array)
        tensor = http.InferInput(served.name, list(array[:1].shape), "FP32")
        tensor.set_data_from_numpy(np.ascontiguousarray(array[row : row + 1]))
        headers = {"fettle-key": f"user-{number}"}
        found = served.client.infer("m", [tensor], request_id=f"r{number}", headers=headers)
        scores = found.as_numpy(next(iter(served.outputs)))
        right.append(bool(np.allclose(scores, expected[row : row + 1], atol=1e-3)))
    return right


def status(served, **headers):
    return served.post("/v2/rollout", b"", method="GET", **headers).json


def until(what, seconds=120.0):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return found


def test_a_shadow_tells_how_far_it_agrees(proven, twin, tmp_path):
    wanted = {"shadow": str(twin.path), **ALL}
    with riding(proven, wanted, log=tmp_path / "p.db") as served:
        assert all(ask(served, 40))
        told = until(lambda: status(served)["shadow"]["done"] == 40 and status(served))
        metrics = served.get("/metrics").body.decode()
    (compared,) = told["shadow"]["compared"]
    assert (compared["n"], compared["failed"]) == (40, 0)
    assert compared["disagreement"]["estimate"] == 0.0
    # no difference among 40: (ln 20 + ½ ln 40π) / 40
    assert 0.08 < compared["accuracy_loss_at_most"] < 0.16
    assert f'fettle_shadow_accuracy_loss_bound{{model="m",answered="{compared["answered"]}"' in (
        metrics
    )
    rows = list(open_log(tmp_path / "p.db").rows())
    assert {r.id: r.agreement for r in rows if r.route == "shadow"} == {
        f"r{number}": 1.0 for number in range(40)
    }
    assert {(r.route, r.agreement) for r in rows} == {("only", None), ("shadow", 1.0)}
    assert len({r.sha for r in rows}) == 2


def test_a_shadow_that_hangs_delays_nobody(proven, twin):
    go = threading.Event()

    def hang(inputs):
        go.wait(60)
        raise RuntimeError("it never came back")

    with riding(proven, {"shadow": str(twin.path), **ALL}) as served:
        rollout = served.run.server.app.handlers._riding
        model = rollout.arms["shadow"].repository.find("m").model
        session = model.session
        object.__setattr__(model, "session", SimpleNamespace(run=hang, close=lambda: None))
        assert all(ask(served, 100))  # were one to wait for it, all would wait for ever
        told = status(served)["shadow"]
        assert told["done"] == 0
        assert told["dropped"] >= 100 - 65
        assert served.get("/v2/health/ready").status == 200
        go.set()
        object.__setattr__(model, "session", session)


def test_what_a_shadow_fails_on_is_kept_to_be_replayed(proven, twin, tmp_path):
    def fail(inputs):
        raise RuntimeError("an operator that is missing")

    wanted = {"shadow": str(twin.path), **ALL}
    with riding(proven, wanted, log=tmp_path / "p.db", capsules=tmp_path / "kept") as served:
        model = served.run.server.app.handlers._riding.arms["shadow"].repository.find("m").model
        session = model.session
        object.__setattr__(model, "session", SimpleNamespace(run=fail, close=lambda: None))
        assert all(ask(served, 3))
        told = until(lambda: status(served)["shadow"]["done"] == 3 and status(served)["shadow"])
        object.__setattr__(model, "session", session)
    assert (told["failed"], told["compared"][0]["n"]) == (3, 0)
    assert told["compared"][0]["accuracy_loss_at_most"] is None
    capsule = Capsule.open(next((tmp_path / "kept").iterdir()))
    assert (capsule.prediction.route, capsule.prediction.sha) == ("shadow", told["bundle"])
    replayed = replay(capsule, {"model": twin.path, "shadow": proven.path})
    assert not replayed.failed  # the network itself is sound
    assert "bundle" not in replayed.changed
    assert replayed.differences[0].flips == 0
    rows = [row for row in open_log(tmp_path / "p.db").rows() if row.route == "shadow"]
    assert {(row.status, row.agreement) for row in rows} == {("RuntimeError", None)}


def test_an_a_b_test_keeps_to_its_share_and_its_callers(proven, opposite, tmp_path):
    with riding(proven, {"ab": str(opposite.path), "split": 0.25}, log=tmp_path / "p.db") as served:
        first, again = ask(served, 120), ask(served, 120)
        told = status(served)["ab"]
    assert first == again
    wrong = first.count(False)
    assert 15 <= wrong <= 45  # 30 expected; 3 standard deviations are 14
    assert told["answered"] == {"a": 2 * (120 - wrong), "b": 2 * wrong}
    rows = list(open_log(tmp_path / "p.db").rows())
    assert {row.id for row in rows if row.route == "b"} == {
        f"r{number}" for number, right in enumerate(first) if not right
    }


def decided(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_canary_that_disagrees_is_rolled_back(proven, opposite, tmp_path):
    file = tmp_path / "decisions.jsonl"
    wanted = {"canary": str(opposite.path), "canary_steps": "0.2,0.5", "decisions": file, **ALL}
    with riding(proven, wanted) as served:
        ask(served, 60)
        until(lambda: status(served)["canary"]["state"] == "rolled back")
        assert all(ask(served, 30, first=60))
        told = status(served)
        refused = served.post("/v2/rollout/promote", {})
    assert [line["decision"] for line in decided(file)] == ["start", "rollback"]
    assert told["decisions"] == decided(file)
    found = told["decisions"][1]["evidence"]["disagreement"]
    assert found["low"] > found["limit"] == 0.05
    assert found["side"] == "above"
    assert refused.status == 409
    assert "rolled back" in refused.error


def test_a_canary_that_agrees_takes_over(proven, twin, tmp_path):
    file = tmp_path / "decisions.jsonl"
    wanted = {
        "canary": str(twin.path), "canary_steps": "0.5", "canary_least": 20, "decisions": file,
        "canary_disagreement": 0.2, "canary_errors": 0.25, **ALL,
    }  # fmt: skip
    with riding(proven, wanted, log=tmp_path / "p.db") as served:
        for start in range(0, 600, 100):
            assert all(ask(served, 100, first=start))
            if status(served)["canary"]["state"] == "complete":
                break
        until(lambda: status(served)["canary"]["state"] == "complete")
        ask(served, 20, first=1000)
    first, last = decided(file)
    assert (first["decision"], last["decision"]) == ("start", "complete")
    assert (last["before"], last["after"]) == (0.5, 1.0)
    assert all(row["side"] == "below" for row in last["evidence"].values())
    assert set(last["evidence"]) == {"disagreement", "errors"}
    rows = [row for row in open_log(tmp_path / "p.db").rows() if int(row.id[1:]) >= 1000]
    assert {row.route for row in rows if row.route != "shadow"} == {"canary"}


def test_a_person_decides_over_the_control_token_alone(proven, twin):
    wanted = {"canary": str(twin.path), "canary_steps": "0.1,0.5"}
    held = {"Authorization": f"Bearer {TOKEN}"}
    with riding(proven, wanted, control_tokens=(TOKEN,)) as served:
        for path in ("/v2/rollout/promote", "/v2/rollout/rollback"):
            assert served.post(path, {}).status == 401
        assert served.get("/v2/rollout").status == 401
        promoted = served.post("/v2/rollout/promote", {"reason": "asked for"}, **held).json
        assert (promoted["decision"], promoted["after"]) == ("promote", 0.5)
        assert promoted["reason"] == "by hand: asked for"
        for wrong in ({"reason": 5}, {"reason": "x" * 501}, []):
            assert served.post("/v2/rollout/rollback", wrong, **held).status == 400
        back = served.post("/v2/rollout/rollback", b"", **held).json
        assert (back["decision"], back["after"]) == ("rollback", 0.0)
        assert status(served, **held)["canary"]["state"] == "rolled back"


def test_without_a_canary_there_is_nothing_to_promote(proven):
    with serving([f"m={proven.path}"]) as run:
        served = Served(run, None, {}, {})
        assert served.get("/v2/rollout").json == {}
        refused = served.post("/v2/rollout/promote", {})
        assert (refused.status, "--canary" in refused.error) == (409, True)


def _failed(served):
    (found,) = served.get("/v2/models/m/stats").json["model_stats"]
    return found["inference_stats"]["fail"]["count"]


def test_bodies_that_can_not_be_read_have_their_rows(proven, tmp_path):
    with riding(proven, {}, log=tmp_path / "p.db") as served:
        infer = "/v2/models/m/infer"
        bodies = (b"{", served.document(datatype="INT8"), {**served.document(), "id": "mine"})
        assert [served.post(infer, body).status for body in bodies] == [400, 400, 200]
        long = {"fettle_key": "k" * 201}
        assert served.post(infer, {**served.document(), "id": "key"}, **long).status == 400
        assert served.post("/v2/models/other/infer", b"{").status == 404
        with served.run.connect() as sock:
            sock.sendall(
                b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{" % infer.encode()
            )
        until(lambda: _failed(served) == 4)
    rows = list(open_log(tmp_path / "p.db").rows())
    assert sorted(row.status for row in rows) == ["BadRequest"] * 3 + ["CancelledError", "ok"]
    assert {row.id for row in rows} >= {"mine", "key"}
    assert all(row.id and row.sha and row.error for row in rows if row.failed)
