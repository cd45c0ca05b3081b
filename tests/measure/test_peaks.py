import json

import numpy as np
import pytest

from fettle.measure import _bandwidth, _products, peaks
from fettle.measure.peaks import Peak, Peaks, peaks_of, theoretical


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Small products and working sets, an own cache folder, and a count of measurements."""
    monkeypatch.setenv("FETTLE_CACHE", str(tmp_path))
    monkeypatch.setattr(_products, "_SIZES", ((16, 64),))
    monkeypatch.setattr(_products, "_CHANNELS", 32)
    monkeypatch.setattr(_products, "_SIDE", 8)
    monkeypatch.setattr(_bandwidth, "SIZES", (1 << 16, 1 << 18))
    monkeypatch.setattr(_bandwidth, "_AT_ONCE", 1 << 20)
    monkeypatch.setattr(peaks, "_SECONDS", 0.001)
    return tmp_path


def made(rate=1.0, threads=1):
    operations = {"f32": Peak(rate, "numpy", "x"), "int8": Peak(4 * rate, "openvino", "y")}
    return Peaks(threads, operations, ((1000, 50.0), (2000, 20.0)), {"f32": 2.0})


def test_every_precision_is_measured_and_cached(quick, monkeypatch):
    found = peaks_of(threads=1)
    assert {"f32", "int8"} <= set(found.operations)
    assert all(peak.rate > 0 for peak in found.operations.values())
    assert len(list((quick / "peaks").iterdir())) == 1
    monkeypatch.setattr(peaks, "_measured", lambda threads: pytest.fail("measured again"))
    assert peaks_of(threads=1) == found


def test_measuring_again_never_lowers_a_peak(quick, monkeypatch):
    for rate, want in ((2.0, 2.0), (1.0, 2.0), (3.0, 3.0)):
        monkeypatch.setattr(peaks, "_measured", lambda threads, rate=rate: made(rate))
        assert peaks_of(1, again=True).operations["f32"].rate == want


def test_threads_have_their_own_entry(quick, monkeypatch):
    monkeypatch.setattr(peaks, "_measured", lambda threads: made(threads=threads))
    assert [peaks_of(n).threads for n in (1, 2, 1)] == [1, 2, 1]


@pytest.mark.parametrize("rubbish", ["", "{", "[]", '{"threads": 1}', '{"threads": null}'])
def test_a_spoilt_cache_is_measured_anew(quick, monkeypatch, rubbish):
    monkeypatch.setattr(peaks, "_measured", lambda threads: made())
    peaks_of(1)
    (file,) = (quick / "peaks").iterdir()
    file.write_text(rubbish)
    assert peaks_of(1) == made()
    assert Peaks.from_json(json.loads(file.read_text())) == made()


def test_a_cache_that_cannot_be_written_is_no_failure(quick, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FETTLE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(peaks, "_measured", lambda threads: made())
    assert peaks_of(1) == made()


def test_json_and_back():
    assert Peaks.from_json(json.loads(json.dumps(made().to_json()))) == made()


def test_rates():
    found = made(3.0)
    assert (found.rate("f32"), found.rate("int8")) == (3.0, 12.0)
    assert found.rate("f16") == 12.0  # unknown: nothing is faster than the fastest
    assert [found.read_rate(size) for size in (1, 1000, 1999, 2000, 10**9)] == [50, 50, 50, 20, 20]


def test_an_engine_that_is_missing_is_left_out(quick, monkeypatch):
    from fettle.runtimes.openvino import OpenVino

    monkeypatch.setattr(OpenVino, "supports", lambda self: "not here")
    found = peaks_of(1)
    assert {p.engine for p in found.operations.values()} <= {"numpy", "onnxruntime"}
    assert set(found.operations) == {"f32", "int8"}


@pytest.mark.parametrize("threads", [1, 2])
def test_every_product_does_what_it_counts(quick, threads):
    """Layers of known size; the integer ones must not have saturated to a constant."""
    together = 0
    for product in _products.products(threads):
        if product.engine == "numpy":
            continue
        _, callers, session, inputs = product.run.args
        together += callers > 1
        assert (callers > 1) == product.shape.endswith("at once")
        (out,) = session.run(inputs).values()
        assert np.isfinite(out).all()
        assert np.std(out.astype(np.float64)) > 0
        width = 32 * 9 * 32 * 64 if "conv" in product.shape else 16 * 64 * 64
        assert product.operations == callers * _products._LAYERS * 2 * width
    assert (together > 0) == (threads > 1)


def test_bandwidth_falls_with_the_working_set(quick):
    sizes, rates = zip(*_bandwidth.bandwidths(2), strict=True)
    assert sizes == (1 << 16, 1 << 18)
    assert rates[0] >= rates[1] > 0


def test_the_hint_grows_with_threads():
    one, four = theoretical(1), theoretical(4)
    assert all(four[name] == pytest.approx(4 * one[name]) for name in one)
