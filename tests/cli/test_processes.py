"""`python -m fettle` as a process: stdout, exit codes, Ctrl-C, and packages that are not there."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fettle.core.bundle import Bundle

TRAIN = ["train", "--model", "cifar:resnet8x0.5", "--data", "digits", "--epochs", "5000"]
QUICK = ["--seconds", "0.5", "--max-drop", "0.05", "--json"]
WITHOUT = """
import sys

missing = sys.argv.pop(1).split(",")

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *where):
        return None if name.split(".")[0] in missing else self.finder.find_spec(name, *where)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from fettle.cli import main
sys.exit(main())
"""
TORCH = "torch,torchvision,torchao,timm,torch_pruning,lightning_fabric,onnxscript,safetensors"


def test_stdout_holds_one_line_of_json(process):
    said = process("doctor", "--json")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("}\n")
    assert said.out.count("\n") == 1
    assert said.json["machine"]["threads"] >= 1


def test_the_exit_code_and_the_message_of_wrong_input(process):
    said = process("bench", "nothing.onnx", "--json")
    assert said.code == 2
    assert said.json == {"error": said.err.removeprefix("fettle: ").strip(), "exit_code": 2}
    assert "nothing.onnx" in said.err


def test_a_reader_that_left_is_no_error():
    words = [sys.executable, "-m", "fettle", "doctor"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


class Running:
    """A process under way, its stderr in a file."""

    def __init__(self, words, log):
        self.log = log
        self.stream = log.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fettle", *[str(w) for w in words]],
            stdout=subprocess.PIPE, stderr=self.stream, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def wait_for(self, happened, seconds=120):
        end = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=60)
        self.stream.close()
        return self.process.returncode, out, self.log.read_text()


@pytest.fixture
def running(tmp_path):
    """Start `fettle`; whatever still runs at the end is killed."""
    started = []

    def start(*words):
        started.append(Running(words, tmp_path / f"stderr{len(started)}"))
        return started[-1]

    yield start
    for run in started:
        run.process.kill()
        run.process.wait()
        run.process.stdout.close()
        run.stream.close()


def test_ctrl_c_and_the_same_command_continues(running, tmp_path):
    out = tmp_path / "out"
    first = running(*TRAIN, "--out", out, "--json")
    first.wait_for((out / "checkpoints" / "fit.safetensors").exists)
    code, stdout, stderr = first.interrupt()
    assert code == 130
    assert json.loads(stdout)["exit_code"] == 130
    assert "interrupted; the same command continues where it stopped" in stderr
    assert "Traceback" not in stderr
    assert not (out / "model").exists()

    second = running(*TRAIN, "--out", out)
    second.wait_for(lambda: "continuing at step" in second.log.read_text())
    code, stdout, stderr = second.interrupt()
    assert (code, stdout) == (130, "")
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_ctrl_c_in_a_study_leaves_nothing_half_made(running, tmp_path):
    out = tmp_path / "out"
    study = running(
        "compress", "--model", "cifar:resnet8x0.5", "--data", "digits", "--seconds", "500",
        "--target", "onnxruntime", "--out", out,
    )  # fmt: skip
    study.wait_for(lambda: list(out.glob("stages/*/stage.json")))
    code, stdout, stderr = study.interrupt()
    assert (code, stdout) == (130, "")
    assert stderr.splitlines()[-1].startswith("fettle: interrupted")
    assert "Traceback" not in stderr
    assert list(out.rglob("*.tmp")) == []
    assert not (out / "best").exists()


@pytest.mark.parametrize(
    ("missing", "words", "needles"),
    [
        (TORCH, ["compress", "--model", "cifar:resnet8", "--data", "digits", "--out", "x"],
         ["`torch`", "pip install 'fettle[torch]'"]),
        (TORCH, ["compress", "--model", "m.onnx", "--data", "digits", "-t", "quantize.static",
                 "--out", "x"], ["`quantize.static`", "pip install 'fettle[torch]'"]),
        (TORCH, ["train", "--model", "cifar:resnet8", "--data", "digits", "--out", "x"],
         ["`torch`", "pip install 'fettle[torch]'"]),
        (TORCH, ["export", "--model", "cifar:resnet8", "--out", "x.onnx"],
         ["`torch`", "pip install 'fettle[torch]'"]),
        (TORCH, ["demo", "--out", "x"], ["`torch`", "pip install 'fettle[torch]'"]),
        (TORCH, ["bench", "cifar:resnet8"], ["`torch`", "pip install 'fettle[torch]'"]),
    ],
)  # fmt: skip
def test_a_missing_package_names_its_install_line(process, tmp_path, missing, words, needles):
    refuses(process, tmp_path, missing, words, needles)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "words", "needles"),
    [
        ("torch_pruning", ["compress", "--model", "cifar:resnet8", "--data", "digits",
                           "-t", "prune.channels", "--out", "x"],
         ["`torch_pruning`", "pip install 'fettle[torch]'"]),
        ("lightning_fabric", ["train", "--model", "cifar:resnet8", "--data", "digits",
                              "--out", "x"], ["lightning", "pip install 'fettle[torch]'"]),
        ("onnxscript", ["export", "--model", "cifar:resnet8", "--out", "x.onnx"],
         ["onnxscript", "pip install 'fettle[torch]'"]),
        ("timm", ["bench", "timm:resnet18"], ["`timm`", "pip install 'fettle[vision]'"]),
    ],
)  # fmt: skip
def test_a_package_that_is_missing_beside_torch(process, tmp_path, missing, words, needles):
    refuses(process, tmp_path, missing, words, needles)


def refuses(process, tmp_path, missing, words, needles):
    words = [str(tmp_path / word) if word in ("x", "x.onnx") else word for word in words]
    said = process(missing, *words, code=WITHOUT)
    assert said.code == 3, said
    assert said.out == ""
    message = said.err.splitlines()[-1]
    assert message.startswith("fettle: ")
    assert [needle for needle in needles if needle not in message] == []


def test_doctor_names_what_is_missing(process):
    said = process(f"{TORCH},openvino", "doctor", "--json", code=WITHOUT)
    assert said.code == 0
    found = said.json
    assert found["runtimes"]["onnxruntime"]["works"]
    assert not found["runtimes"]["pytorch"]["works"]
    assert "pip install 'fettle[openvino]'" in found["runtimes"]["openvino"]["fault"]
    assert found["missing"]["torch"] == "pip install 'fettle[torch]'"


def test_an_onnx_file_is_bundled_benched_and_inspected_without_torch(
    process, linear_onnx, tmp_path
):
    out = tmp_path / "out"
    words = ["compress", "--model", linear_onnx, "--data", "digits", *QUICK, "--out", out]
    said = process(TORCH, *words, code=WITHOUT)
    assert said.code == 0, said.err
    assert said.json["verdict"] == "pass"
    assert said.json["best"]["speedup"]["vs_torch_eager"] is None
    assert Bundle.open(out / "best").model_path.read_bytes() == linear_onnx.read_bytes()
    inspected = process(TORCH, "inspect", out / "best", "--json", code=WITHOUT)
    assert inspected.code == 0, inspected.err
    assert inspected.json["macs"] == 640
    assert "pip install 'fettle[torch]'" in inspected.json["refused"]["pytorch"]
    benched = process(TORCH, "bench", out / "best", "--seconds", "0.3", "--no-memory", "--json",
                      code=WITHOUT)  # fmt: skip
    assert benched.code == 0, benched.err
    assert {row["runtime"] for row in benched.json["rows"]} >= {"onnxruntime", "openvino"}


@pytest.mark.slow
def test_without_openvino_the_other_runtime_does(process, linear_onnx, tmp_path):
    words = ["compress", "--model", linear_onnx, "--data", "digits", *QUICK, "--out", tmp_path]
    said = process("openvino", *words, code=WITHOUT)
    assert said.code == 0, said.err
    assert said.json["best"]["runtime"] == "onnxruntime"
    refused = [row for row in said.json["trials"] if row["refused"]]
    assert {row["runtime"] for row in refused} == {"openvino"}
    assert "pip install 'fettle[openvino]'" in refused[0]["refused"]
