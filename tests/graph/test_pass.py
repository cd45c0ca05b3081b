from dataclasses import dataclass

import onnx_ir as ir
import pytest

from fettle.graph import GraphPass


@dataclass(frozen=True, kw_only=True)
class Rename(GraphPass):
    """Breaks the rule of a pass: the interface is the same."""

    what: object = None

    def apply(self, model, task):
        values = {"input": model.graph.inputs, "output": model.graph.outputs}
        if self.what in values:
            values[self.what][0].name = "other"
        if self.what == "type":
            model.graph.outputs[0].dtype = ir.DataType.DOUBLE
        return model


@pytest.mark.parametrize("what", ["input", "output", "type"])
def test_a_pass_that_changes_the_interface_is_our_own_mistake(build, what):
    with pytest.raises(AssertionError, match="changed the model's inputs or outputs"):
        Rename(what=what)(build([("Relu", ["x"], ["y"])]).ir)


def test_a_pass_that_keeps_it_returns_the_model(build):
    model = build([("Relu", ["x"], ["y"])]).ir
    assert Rename()(model) is model
