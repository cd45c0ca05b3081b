"""What a user gets wrong: exit code 2, one line that says what and how to mend it."""

import json
import pickle
import re
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from fettle.search import sole_worker

COMPRESS = ["compress", "--model", "cifar:resnet8", "--data", "digits"]


@pytest.fixture
def compress(refused, tmp_path):
    """Refuse `fettle compress` with more options, before anything is written."""

    def run(*options, code=2, needles=()):
        out = tmp_path / "out"
        message = refused([*COMPRESS, *options, "--out", out], *needles, code=code)
        assert not list(out.glob("stages/*"))
        return message

    return run


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["compres"], ["unknown verb `compres`", "did you mean `compress`?"]),
        (["bnech", "x"], ["`bench`"]),
        (["frobnicate"], ["unknown verb", "compress"]),
        ([], ["VERB", "fettle --help"]),
        (["--frob"], ["VERB", "fettle --help"]),
        (["compress"], ["--model", "--data", "--out", "fettle compress --help"]),
        (["bench"], ["X", "fettle bench --help"]),
        (["report"], ["DIR"]),
        ([*COMPRESS, "--out"], ["--out", "expected one argument"]),
        ([*COMPRESS, "--max", "0.1", "--out", "x"], ["--max"]),  # options are never shortened
    ],
)
def test_verbs_and_options(refused, words, needles):
    refused(words, *needles)


@pytest.mark.parametrize(
    ("options", "needles"),
    [
        (["--model", "cifar:resnet9"], ["unknown model `cifar:resnet9`", "`cifar:resnet8`"]),
        (["--model", "cifra:resnet8"], ["unknown model family `cifra`", "`cifar:`"]),
        (["--model", "timm:resnet18x"], ["unknown model", "`timm:resnet18`"]),
        (["--model", "nowhere.py:net"], ["nowhere.py"]),
        (["--model", ""], ["unknown model family"]),
        (["--data", "digit"], ["unknown data source `digit`", "`digits`"]),
        (["--data", "cifar:x"], ["unknown data source `cifar`", "`cifar10`"]),
        (["--target", "openvno"], ["unknown runtime `openvno`", "`openvino`"]),
        (["--target", ","], ["--target"]),
        (["--target", "pytorch"], ["`pytorch`", "onnxruntime"]),
        (["-t", "prune.chanels"], ["unknown technique `prune.chanels`", "`prune.channels`"]),
        (["-t", "graph.lower_ort_x68"], ["unknown graph pass", "`graph.lower_ort_x86`"]),
        (["-t", "quantize.static @ openvno"], ["unknown runtime", "`openvino`"]),
        (["-t", "quantize.static @ pytorch"], ["`pytorch`", "onnxruntime"]),
        (["-t", "prune.channels(ration=0.5)"], ["no knob `ration`", "ratio"]),
        (["-t", "prune.channels(ratio=1.5)"], ["ratio", "0.95", "1.5"]),
        (["-t", "prune.channels(ratio='half')"], ["ratio", "float", "'half'"]),
        (["-t", "quantize.static(samples=0)"], ["samples", "from 1 to", "got 0"]),
        (["-t", "quantize.static(calibrator='best')"], ["'mse'", "'minmax'", "'best'"]),
        (["-t", "prune.channels(0.5)"], ["by name", "prune.channels(0.5)"]),
        (["-t", "prune.channels(ratio=0.5"], ["prune.channels(ratio=0.5"]),
        (["-t", "prune.channels(ratio=open('x'))"], ["don't parse"]),
        (["--teacher", "cifar:resnet20"], ["--teacher", "`distill.logits`"]),
        (["--teacher", "cifar:resnet20", "-t", "quantize.static"], ["`quantize.static`"]),
        (["--teacher-weights", "w.safetensors"], ["expects `--teacher`"]),
        (
            [*("--teacher", "cifar:resnet8") * 2, "--teacher-weights", "w", "-t", "distill.logits"],
            ["each of the 2 teachers", "got 1"],
        ),
        (["-t", "quantize.static >"], ["empty step"]),
        (["-t", "quantize.static @ openvino @ openvino"], ["one `@ runtime`"]),
        (["-t", "quantize.static @"], ["a runtime was expected"]),
        (["-t", "quantize.static > prune.channels"], ["can't follow", "quantization comes last"]),
        (["-t", "quantize.aware", "-t", "quantize.static"], ["can't follow"]),
        (["-t", "graph.lower_ort_x86 > prune.channels"], ["come last"]),
    ],
)
def test_names_recipes_and_knobs(compress, options, needles):
    compress(*options, needles=needles)


@pytest.mark.parametrize(
    ("options", "needles"),
    [
        (["--max-drop", "-0.1"], ["max_drop", "-0.1"]),
        (["--max-drop", "1"], ["max_drop"]),
        (["--max-drop", "nan"], ["max_drop", "nan"]),
        (["--max-drop", "1%"], ["--max-drop", "1%"]),
        (["--confidence", "0.5"], ["confidence", "0.5"]),
        (["--confidence", "95"], ["confidence", "95"]),
        (["--batch", "0"], ["--batch", "from 1", "`0`"]),
        (["--batch", "-3"], ["--batch", "from 1", "`-3`"]),
        (["--batch", "1.5"], ["--batch", "`1.5`"]),
        (["--batch", "²"], ["--batch", "`²`"]),
        (["--threads", "-1"], ["--threads", "from 0"]),
        (["--threads", "5000"], ["threads", "1024"]),
        (["--seed", "-1"], ["--seed", "from 0"]),
        (["--seed", str(2**70)], ["--seed"]),
        (["--seconds", "0"], ["--seconds", "above 0"]),
        (["--seconds", "inf"], ["--seconds", "above 0"]),
        (["--seconds", "long"], ["--seconds", "`long`"]),
    ],
)
def test_numbers(compress, options, needles):
    compress(*options, needles=needles)


@pytest.mark.parametrize(
    ("options", "needles"),
    [
        (["--batch", "0"], ["1,8,64", "`0`"]),
        (["--batch", "1,,8"], ["1,8,64"]),
        (["--threads", "-1"], ["`--threads`", "positive"]),
        (["--runtime", "onnxrutime"], ["unknown runtime", "`onnxruntime`"]),
        (["--runtime", ""], ["a runtime was expected"]),
        (["--runtime", "onnxruntime(precision='f8')"], ["precision", "'f32'"]),
        (["--seconds", "nan"], ["--seconds", "above 0"]),
    ],
)
def test_bench_options(refused, linear_onnx, options, needles):
    refused(["bench", linear_onnx, *options], *needles)


def test_a_batch_that_no_memory_holds(refused, linear_onnx, tmp_path):
    refused(
        ["bench", linear_onnx, "--runtime", "onnxruntime", "--batch", str(10**14)],
        "out of memory",
        "smaller batch",
    )


@pytest.mark.parametrize(
    ("options", "needles"),
    [
        (["--epochs", "-1"], ["epochs", "from 0"]),
        (["--epochs", "1.5"], ["--epochs", "1.5"]),
        (["--lr", "nan"], ["lr"]),
        (["--precision", "8"], ["--precision", "bf16-mixed"]),
        (["--devices", "0"], ["devices", "from 1"]),
    ],
)
def test_train_options(refused, tmp_path, options, needles):
    words = ["train", "--model", "cifar:resnet8", "--data", "digits", "--out", tmp_path / "out"]
    refused([*words, *options], *needles)


def archive(x=None, y=None, **others):
    arrays = {"x": np.zeros((60, 8, 8), np.uint8) if x is None else x,
              "y": np.arange(60) % 3 if y is None else y}  # fmt: skip
    return {**arrays, **others}


WITH_NAN = np.full((60, 5), np.nan, np.float32)


@pytest.mark.parametrize(
    ("arrays", "needles"),
    [
        (archive(x=WITH_NAN), ["`x`", "300 values", "NaN"]),
        (archive(y=np.arange(60) % 3 - 1), ["labels 0 … 1", "got -1"]),
        (archive(y=np.zeros((60, 3))), ["`y`", "argmax"]),
        (archive(y=np.arange(59) % 3), ["60 examples", "59"]),
        (archive(x=np.zeros(60)), ["`x`", "(n, …)"]),
        (archive(x=np.full((60, 8, 8), 300)), ["0 … 255", "300"]),
        (archive(x=np.zeros((0, 8, 8)), y=np.zeros(0)), ["empty"]),
        (archive(x=np.zeros((5, 8, 8), np.uint8), y=np.arange(5) % 2), ["at least 20"]),
        ({"a": np.zeros(3)}, ["`x` expects examples", "got [3]"]),
        (archive(y=np.array([{"a": 1}] * 60, dtype=object)), ["no sound .npz", "without objects"]),
    ],
)
def test_unsound_data(compress, tmp_path, arrays, needles):
    np.savez(tmp_path / "d.npz", **arrays)
    compress("--data", f"npz:{tmp_path / 'd.npz'}", needles=needles)


@pytest.mark.parametrize("how", ["missing", "truncated", "text", "folder"])
def test_damaged_data(compress, tmp_path, how):
    path = tmp_path / "d.npz"
    np.savez(path, **archive())
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    if how == "text":
        path.write_text("x, y")
    if how in ("missing", "folder"):
        path.unlink()
    if how == "folder":
        path.mkdir()
    compress("--data", f"npz:{path}", needles=[str(path)])


def test_labels_that_the_model_has_no_outputs_for(refused, make_linear, tmp_path):
    make_linear(tmp_path / "four.onnx", classes=4)
    words = ["compress", "--model", tmp_path / "four.onnx", "--data", "digits", "--seconds", "0.3"]
    refused([*words, "--out", tmp_path / "out"], "10", "4")


def test_data_of_another_shape_than_the_graph_takes(refused, linear_onnx, tmp_path):
    words = ["compress", "--model", linear_onnx, "--data", "noise:3x32x32:10"]
    refused([*words, "--out", tmp_path / "out"], "[-1, 1, 8, 8]", "3, 32, 32")


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
@pytest.mark.parametrize("kind", ["raw", "torch"])
def test_a_pickle_in_place_of_weights(compress, tmp_path, name, kind):
    path = tmp_path / name
    if kind == "raw":
        path.write_bytes(pickle.dumps(Evil(), protocol=2))  # the one that torch writes
    else:
        torch.save({"state_dict": Evil()}, path)
    compress("--weights", path, needles=[str(path)])


@pytest.mark.parametrize(
    ("name", "content", "needle"),
    [
        ("w.safetensors", None, "there is none"),
        ("w.safetensors", b"", "no sound safetensors"),
        ("w.safetensors", b"\xff" * 64, "no sound safetensors"),
        ("w.npz", b"x", ".safetensors"),
    ],
)
def test_damaged_weights(compress, tmp_path, name, content, needle):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    compress("--weights", tmp_path / name, needles=[needle, name])


def test_weights_of_another_model(compress, tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    compress("--weights", tmp_path / "w.safetensors", needles=["not of this model", "missing"])


def test_user_code_that_raises(compress, tmp_path):
    (tmp_path / "mine.py").write_text("def net():\n    return 1 / 0\n\nx = 1\n")
    mine = tmp_path / "mine.py"
    compress("--model", f"{mine}:net", needles=["ZeroDivisionError", "mend"])
    compress("--model", f"{mine}:nett", needles=["no function `nett`", "net"])
    compress("--data", f"{mine}:net", needles=["ZeroDivisionError", "mend"])


@pytest.mark.parametrize("verb", ["compress", "bench", "inspect"])
@pytest.mark.parametrize("fault", ["missing", "garbage", "empty", "truncated", "escapes"])
def test_onnx_files_that_are_none(refused, make_linear, tmp_path, verb, fault):
    path = tmp_path / "models" / "m.onnx"
    path.parent.mkdir()
    make_linear(path, save_as_external_data=fault == "escapes", location="w.bin", size_threshold=0)
    needles = [str(path)]
    if fault == "missing":
        path.unlink()
    if fault == "garbage":
        path.write_bytes(b"not a graph at all, \xff\xfe\x00")
    if fault == "empty":
        path.write_bytes(b"")
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    if fault == "escapes":
        point_outside(path)
        (tmp_path / "w.bin").write_bytes((path.parent / "w.bin").read_bytes())
        needles += ["../w.bin", "outside"]
    words = {
        "compress": ["compress", "--model", path, "--data", "digits", "--out", tmp_path / "out"],
        "bench": ["bench", path],
        "inspect": ["inspect", path],
    }
    refused(words[verb], *needles)


def point_outside(path):
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../w.bin"
    path.write_bytes(model.SerializeToString())


def test_an_onnx_file_given_to_what_works_on_torch_modules(refused, linear_onnx, tmp_path):
    words = ["compress", "--model", linear_onnx, "--data", "digits", "--out", tmp_path / "out"]
    refused([*words, "-t", "prune.channels"], "`prune.channels`", "torch module", "leave it out")
    refused([*words, "--weights", "w.safetensors"], "own weights")
    for verb in ("export", "train"):
        out = tmp_path / "x.onnx"
        refused([verb, "--model", linear_onnx, "--data", "digits", "--out", out], "torch module")


def test_an_input_of_another_shape(refused, tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["pixels"], ["y"])],
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 192])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    words = ["compress", "--model", tmp_path / "m.onnx", "--data", "digits"]
    refused([*words, "--out", tmp_path / "out"], "pixels", "[-1, 3, 8, 8]")


@pytest.fixture
def bundle(finished, tmp_path):
    return shutil.copytree(finished / "best", tmp_path / "bundle")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


TAMPERING = {
    "flipped model": (lambda b: flip(b / "model.onnx"), "`model.onnx`"),
    "flipped golden": (lambda b: flip(b / "golden.npz"), "`golden.npz`"),
    "missing file": (lambda b: (b / "golden.npz").unlink(), "`golden.npz` is missing"),
    "extra file": (lambda b: (b / "run.sh").write_text("x"), "run.sh"),
    "no manifest": (lambda b: (b / "manifest.json").unlink(), "is no bundle"),
    "torn manifest": (lambda b: (b / "manifest.json").write_text('{"schema": 1'), "corrupted"),
    "list": (lambda b: (b / "manifest.json").write_text("[]"), "manifest.json"),
    "no file": (lambda b: [p.unlink() for p in b.iterdir()], "is no bundle"),
}


@pytest.mark.parametrize("verb", ["bench", "inspect"])
@pytest.mark.parametrize("how", TAMPERING)
def test_tampered_bundles(refused, bundle, verb, how):
    tamper, needle = TAMPERING[how]
    tamper(bundle)
    refused([verb, bundle], needle, "bundle")


@pytest.mark.parametrize("verb", ["bench", "inspect"])
def test_an_edited_number_in_a_manifest(refused, bundle, verb):
    file = bundle / "manifest.json"
    text = file.read_text()
    p50 = json.loads(text)["measurements"]["latency_ms"]["p50"]
    edited = re.sub(rf'("p50": ){re.escape(json.dumps(p50))}', r"\g<1>0.001", text)
    assert edited != text
    file.write_text(edited)
    refused([verb, bundle], "manifest.json")


def test_out_that_is_a_file(refused, tmp_path, linear_onnx):
    file = tmp_path / "file"
    file.write_text("mine")
    refused(["demo", "--out", file], "`--out` expects a folder", str(file))
    refused([*COMPRESS, "--out", file], "`--out` expects a folder", str(file))
    refused([*COMPRESS, "--out", file / "deeper"], str(file))
    refused(["train", *COMPRESS[1:], "--out", file], "`--out` expects a folder")
    refused(["export", *COMPRESS[1:], "--out", file / "m.onnx"], str(file))
    refused(["export", *COMPRESS[1:], "--out", tmp_path / "m.bin"], ".onnx")
    assert file.read_text() == "mine"


def test_two_in_one_folder(refused, tmp_path):
    with sole_worker(tmp_path / "out"):
        for verb in ("compress", "train"):
            words = [verb, *COMPRESS[1:], "--out", tmp_path / "out"]
            refused(words, "another fettle is working", "another `--out`")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"schema": 99}', "[" * 100_000])
def test_a_folder_without_a_sound_result(refused, tmp_path, content):
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    refused(["report", tmp_path], "result")
