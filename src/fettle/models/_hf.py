"""`hf:NAME`: text classifiers of transformers, as plain modules that take tensors in order.

`hf:bert-mini` is built from its published configuration with random weights and needs no network
(`SHAPES` lists the names); `hf:FOLDER` and `hf:owner/name` bring configuration and weights, from a
folder or the Hugging Face hub. Weights are read from safetensors alone, and no code of others runs.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fettle.core.errors import ModelError, UnknownName
from fettle.models._hf_hub import fetch, is_hub_name
from fettle.models._hf_shapes import ALIASES, SHAPES, shape_of
from fettle.models._origin import Origin

IDS, MASK, KINDS = "input_ids", "attention_mask", "token_type_ids"
_NAMES = (IDS, MASK, KINDS)
# What is added to the scores of padding: exp(−10,000) is 0, and float16 holds the number.
_MASKED = -10_000.0


class TextClassifier(nn.Module):
    """Token ids, and with them a mask and segment ids, in the order of `names`, to logits.

    The mask is turned into an addition to the attention scores here, (n, 1, 1, time), as BERT does
    it: what transformers makes of a mask of two axes exports to dozens of nodes that index.
    """

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(
        self, first: Tensor, second: Tensor | None = None, third: Tensor | None = None
    ) -> Tensor:
        """Return logits (n, classes) of up to three inputs (n, time)."""
        given = dict(zip(self.names, (first, second, third), strict=False))
        mask = given.pop(MASK, None)
        if mask is not None:
            scores = (1.0 - mask[:, None, None, :].to(self._dtype())) * _MASKED
            given[MASK] = scores  # (n, 1, 1, time)
        logits: Tensor = self.network(**given, return_dict=True).logits
        return logits

    def _dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.network.parameters()), torch.float32)


def build(name: str, origin: Origin) -> tuple[TextClassifier, Origin]:
    """Return the classifier called `name`, and its origin with the configuration it has.

    Raises:
        UnknownName: no shape is called so, and it is neither a folder nor a name of the hub.
        ModelError: it can't be built for the task's inputs and classes, or its weights are none.
        MissingError: the hub can't be reached.
    """
    names = _names(f"hf:{name}", origin)
    if origin.config is not None:
        network = _from_config(dict(origin.config))
    elif (shape := shape_of(name)) is not None:
        network = _from_config(_settings(shape[0], shape[1], origin))
    else:
        network = _pretrained(name, origin)
    _check(f"hf:{name}", network, names, origin)
    config = json.loads(network.config.to_json_string(use_diff=True))
    return TextClassifier(network, names), replace(origin, config=config)


def _names(spec: str, origin: Origin) -> tuple[str, ...]:
    """Return what the network calls the task's inputs."""
    if not origin.inputs and origin.image is None:
        return _NAMES[:2]
    names = tuple(entry.name for entry in origin.inputs)
    if len(names) == 1 and origin.takes_tokens:
        return (IDS,)
    tokens = all(entry.dtype.startswith("int") for entry in origin.inputs)
    if not tokens or IDS not in names or not set(names) <= set(_NAMES):
        got = ", ".join(f"{s.name} {s.dtype}{list(s.shape[1:])}" for s in origin.inputs)
        raise ModelError(
            f"`{spec}` takes token ids: integers named {', '.join(_NAMES)}, got"
            f" {got or f'an image {list(origin.image or ())}'}; give such data (`tokens:128`,"
            " `text:FILE.csv`, `npz:FILE`), or another model"
        )
    return names


def _settings(kind: str, settings: dict[str, Any], origin: Origin) -> dict[str, Any]:
    """Return a whole configuration: of the shape, for the task's classes and vocabulary."""
    own = {"num_labels": origin.classes or 2, "pad_token_id": 0}
    if origin.vocabulary:
        own["vocab_size"] = origin.vocabulary
    return {"model_type": kind, **settings, **own}


def _from_config(settings: dict[str, Any]) -> Any:
    with _transformers() as hf:
        kind = settings.pop("model_type", None)
        try:
            config = hf.AutoConfig.for_model(kind, **settings)
            return hf.AutoModelForSequenceClassification.from_config(
                config, attn_implementation="eager", trust_remote_code=False
            )
        except Exception as error:  # a configuration may hold anything
            raise ModelError(
                f"transformers can't build a `{kind}` classifier of this configuration"
                f" ({type(error).__name__}: {_first_line(error)})"
            ) from error


def _pretrained(name: str, origin: Origin) -> Any:
    folder = Path(name)
    if not folder.is_dir():
        if not is_hub_name(name):
            known = [f"hf:{k}" for k in (*SHAPES, *ALIASES)]
            raise UnknownName("model", f"hf:{name}", known)
        folder = fetch(name)
    classes = {} if origin.classes is None else {"num_labels": origin.classes}
    with _transformers() as hf:
        try:
            return hf.AutoModelForSequenceClassification.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                weights_only=True,
                dtype=torch.float32,
                attn_implementation="eager",
                **classes,
            )
        except Exception as error:  # files of others: whatever is wrong with them
            raise ModelError(
                f"`hf:{name}` is no text classifier of transformers that can be used here"
                f" ({type(error).__name__}: {_first_line(error)}); a `config.json` and"
                f" `model.safetensors` for {origin.classes or 'its'} classes were expected, and"
                " neither pickles nor code of its own are read"
            ) from error


def _check(spec: str, network: Any, names: tuple[str, ...], origin: Origin) -> None:
    """Refuse inputs that would make the network fail, or read past its tables."""
    taken = inspect.signature(network.forward).parameters
    strange = [name for name in names if name not in taken]
    config = network.config
    room = getattr(config, "max_position_embeddings", None) or 2**31
    length = max((entry.shape[1] for entry in origin.inputs), default=0)
    words = getattr(config, "vocab_size", None) or 2**31
    fault = ""
    if strange:
        fault = f"takes no `{strange[0]}`; leave it out of the data"
    elif length > room:
        fault = f"takes up to {room} tokens, the data has {length}; cut the texts shorter"
    elif origin.vocabulary > words:
        fault = (
            f"knows {words} token ids, the data has {origin.vocabulary}; use the tokenizer that"
            " the model was trained with"
        )
    if fault:
        raise ModelError(f"`{spec}` {fault}")


@contextmanager
def _transformers() -> Iterator[Any]:
    """Yield the package, quiet: no bars, and no advice about weights."""
    from fettle.models._torchvision import import_torchvision

    with suppress(ModuleNotFoundError):
        import_torchvision()  # transformers imports it where it is, and would die with it
    import transformers

    log: Any = transformers.utils.logging
    before, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    try:
        log.set_verbosity_error()
        log.disable_progress_bar()
        yield transformers
    finally:
        log.set_verbosity(before)
        if bars:
            log.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
