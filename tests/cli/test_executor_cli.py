"""`--executor`: who does the stages of a study, as a user asks for it."""

import pytest

WORDS = {
    "compress": ["--model", "cifar:resnet8x0.5", "--data", "digits", "-t", "graph.float16"],
    "optimize": ["--model", "cifar:resnet8x0.5", "--data", "digits", "--time-limit", "60s"],
}


@pytest.mark.parametrize("verb", list(WORDS))
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rya", "unknown executor `rya`; did you mean `ray`?"),
        ("local://host:1", "the executor `local` has no address"),
        ("ray(tries=0)", "tries"),
        ("ray(", "such as `ray(tag='orin')`, got `ray(`"),
    ],
)
def test_a_wrong_executor_is_said_before_anything_is_begun(fettle, tmp_path, verb, text, says):
    said = fettle(verb, *WORDS[verb], "--executor", text, "--out", str(tmp_path / "out"))
    assert said.code == 2
    assert says in said.err
    assert not (tmp_path / "out" / "journal.jsonl").exists()


@pytest.mark.parametrize("verb", list(WORDS))
def test_a_cluster_that_is_not_there_is_something_missing(fettle, tmp_path, verb):
    pytest.importorskip("ray")
    words = [*WORDS[verb], "--executor", "ray://127.0.0.1:9", "--json"]
    said = fettle(verb, *words, "--out", str(tmp_path / "out"))
    assert said.code == 3
    assert "no Ray cluster answers at `127.0.0.1:9`" in said.json["error"]
