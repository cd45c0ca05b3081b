"""The example as its docstring tells it, with fewer epochs."""

import json
from pathlib import Path

from fettle.cli import main

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_model.py"


def test_the_example_trains_and_quantizes(tmp_path, capsys):
    data, out = f"{EXAMPLE}:data", tmp_path / "own"
    train = ["train", "--model", f"{EXAMPLE}:net", "--data", data, "--epochs", "8",
             "--optimizer", "adamw", "--lr", "0.005", "--out", str(out), "--json"]  # fmt: skip
    assert main(train) == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["metric"]["value"] > 0.85
    compress = ["compress", "--model", str(out / "model"), "--data", data, "-t", "quantize.static",
                "--max-drop", "0.05", "--seconds", "1", "--out", str(tmp_path / "int8"),
                "--json"]  # fmt: skip
    assert main(compress) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["verdict"] == "pass"
    assert result["best"]["precision"] == "int8"
    assert result["baseline"]["metric"]["value"] == trained["metric"]["value"]
