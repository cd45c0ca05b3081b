from __future__ import annotations

import pytest

from fettle.report._guide import GUIDE, guide_row, step_names
from fettle.report._record import read_trial


@pytest.mark.parametrize(
    ("recipe", "precision", "runtime", "row"),
    [
        ("", "f32", "onnxruntime", None),
        ("@ openvino(precision='bf16')", "bf16", "openvino", "FP16"),
        ("graph.float16", "f32", "onnxruntime", "FP16"),
        ("quantize.static(method='entropy')", "int8", "onnxruntime", "INT8 PTQ"),
        ("graph.static_int8", "int8", "onnxruntime", "INT8 PTQ"),
        ("graph.fold > graph.static_int8 @ openvino", "int8", "openvino", "INT8 PTQ"),
        ("graph.dynamic_int8", "int8", "onnxruntime", None),
        ("quantize.aware", "int8", "openvino", "INT8 QAT"),
        ("quantize.aware", "int8", "tensorrt", "TensorRT INT8 (GPU)"),
        ("prune.magnitude > prune.channels(ratio=0.7)", "f32", "openvino", "pruning (70 %)"),
        ("distill.logits(student='a > quantize.aware')", "f32", "openvino", "distillation"),
        ("prune.channels > quantize.aware", "int8", "openvino", "all combined"),
        ("distill.logits > graph.static_int8", "int8", "openvino", "all combined"),
    ],
)
def test_each_recipe_answers_to_its_row(recipe, precision, runtime, row):
    trial = read_trial({"recipe": recipe, "precision": precision, "runtime": runtime})
    found = guide_row(trial)
    assert (found.name if found else None) == row


def test_step_names_ignore_what_stands_in_quotes():
    recipe = """distill.logits(student='a > b @ c', note="x > y") > prune.channels @ openvino"""
    assert step_names(recipe) == ["distill.logits", "prune.channels"]


def test_the_table_is_the_guides():
    shown = [(row.name, row.size_text, row.speed_text, row.drop_text) for row in GUIDE.values()]
    assert shown == [
        ("FP16", "50 %", "1.5× (GPU)", "< 0.1 pp"),
        ("INT8 PTQ", "25 %", "3–4×", "0.5–2 pp"),
        ("INT8 QAT", "25 %", "3–4×", "< 0.5 pp"),
        ("pruning (70 %)", "30 %", "2–3×", "1–3 pp"),
        ("distillation", "20–50 %", "2–5×", "2–5 pp"),
        ("TensorRT INT8 (GPU)", "25 %", "5–10×", "< 1 pp"),
        ("all combined", "–", "10× and more", "< 2 pp"),
    ]
