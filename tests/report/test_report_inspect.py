from __future__ import annotations

import pytest

from fettle.report import inspect_text


@pytest.fixture
def result():
    layer = {"name": "conv_1", "op": "Conv", "shape": [-1, 8, 4, 4], "precision": {"a": "int8"}}
    other = {"name": "n" * 60, "op": "Gemm", "shape": [], "precision": {"a": "f32", "b": "bf16"}}
    note = {"rule": "r", "severity": "float", "found": "one scale", "mend": "quantize both"}
    left = {"node": "fc", "op": "Gemm", "ms": None, "explanation": "for a reason"}
    changes = [{"op": op, "ms": 0.5} for op in ("Cast", "Cast", "Reorder")]
    return {
        "subject": "m.onnx",
        "parameters": 1234,
        "macs": None,
        "sparsity": 0.5,
        "size_bytes": 5000,
        "operators": {"Conv": 1, "Gemm": 1},
        "precisions": {"a": {"int8": 1, "f32": 1}, "b": {}},
        "layers": [layer, other],
        "unfused": {"a": {"meant": 3, "layers": [left], "conversions": changes}},
        "refused": {"c": "not installed"},
        "lint": [{**note, "node": f"node{i}"} for i in range(3)],
        "profile": {},
        "saturation": None,
        "trtexec": None,
    }


def test_short_first(result):
    assert inspect_text(result).splitlines() == [
        "subject     m.onnx",
        "parameters  1,234",
        "MACs        unknown (one example)",
        "sparsity    50.0%",
        "size        5,000 bytes",
        "operators   Conv 1, Gemm 1",
        "precision of what computes, as each engine runs it:",
        "  a            1 × int8, 1 × f32",
        "  b            the engine does not tell",
        "  c            refused: not installed",
        "left in float on a: 1 of 3 layers meant for int8",
        "  Gemm         fc: for a reason",
        "  conversions that run as layers of their own: 2 × Cast, 1 × Reorder, 1.50 ms",
        "TensorRT    3 × float",
        "  float: node0: one scale; quantize both",
        "  … and 2 like these; --layers shows all",
    ]


def test_layers_have_engines_as_columns(result):
    lines = inspect_text(result, with_layers=True).splitlines()
    assert [line.split() for line in lines[-3:]] == [
        ["layer", "operator", "shape", "a", "b"],
        ["conv_1", "Conv", "n×8×4×4", "int8", "–"],
        [f"…{'n' * 43}", "Gemm", "f32", "bf16"],
    ]
    assert "node2" in "\n".join(lines)


def test_nothing_left_in_float(result):
    result["unfused"] = {"a": {"meant": 3, "layers": [], "conversions": []}}
    assert "left in float on a: none of 3 layers meant for int8" in inspect_text(result)


def test_times_slowest_first(result):
    rows = [
        {"ms": ms, "share": ms / 4, "bound_ms": 0.5, "precision": "f32", "shape": [1, 2],
         "op": "Conv", "name": f"layer{ms}", "nodes": ["x"]}
        for ms in (1.0, 3.0)
    ]  # fmt: skip
    result["profile"] = {"a": {"total_ms": 4.2, "bound_ms": 1.0, "fraction": 0.25, "layers": rows}}
    lines = inspect_text(result).splitlines()
    assert lines[-4] == (
        "time on a: 4.20 ms a call, 1.00 ms of it bound by the processor (25%); slowest first:"
    )
    assert lines[-2].split() == ["3.00", "75%", "17%", "f32", "1×2", "Conv", "layer3.0", "=", "x"]
    assert lines[-1].split()[0] == "1.00"


def test_saturation_and_command_lines(result):
    result["saturation"] = {"warning": "half of it saturates"}
    result["trtexec"] = {"10.x": "trtexec --onnx=m.onnx"}
    text = inspect_text(result)
    assert "saturation  half of it saturates" in text
    assert text.endswith("TensorRT 10.x:\n  trtexec --onnx=m.onnx")
    assert "no sum of two products saturates" in inspect_text({**result, "saturation": {}})
