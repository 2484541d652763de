"""Checkpoints that the scripts of CodeXGLUE and of ALERT save: the state of a small wrapper around RoBERTa.

Lu et al., "CodeXGLUE" (NeurIPS 2021 data sets); the victims of Yang et al., "Natural Attack for Pre-trained Models of
Code" (ICSE 2022), section 4.2, are of this form. Only the CodeBERT kind: GraphCodeBERT's wrappers take data flow too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from bbox.errors import InputError
from bbox.targets.references import one_line

__all__ = ["TASKS", "checkpoint_model"]

TASKS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "defect": {"head": "sigmoid", "one_line": True},
        "clone": {"head": "softmax", "one_line": True, "pairs": True, "each": True, "max_length": 400},
        "authorship": {"head": "softmax"},
    }
)
# What wrappers save besides weights, and the pooling layer of a RobertaModel that the head does not read.
_UNREAD = (".position_ids", ".token_type_ids", "encoder.pooler.dense.weight", "encoder.pooler.dense.bias")


class _Head(nn.Module):
    """Two layers over the first token's vector, or over those of both programs of a pair."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, hidden)
        self.out_proj = nn.Linear(hidden, classes)

    def forward(self, first: Tensor) -> Tensor:
        answer: Tensor = self.out_proj(torch.tanh(self.dense(first)))
        return answer


class _Wrapper(nn.Module):
    """An encoder without its pooling layer, and a head over one program or two."""

    def __init__(self, config: Any, *, pairs: bool, classes: int, pad: int) -> None:
        super().__init__()
        from transformers import AutoModel

        self.config = config
        self.pad = pad
        auto: Any = AutoModel
        self.encoder = auto.from_config(config)
        self.encoder.pooler = None
        self.classifier = _Head((1 + pairs) * config.hidden_size, config.hidden_size, classes)

    def forward(self, input_ids: Tensor, partner_ids: Tensor | None = None, **_: Tensor) -> Any:
        """Shapes: input_ids and partner_ids (n, length) each; returns (n, classes) logits."""
        from transformers.modeling_outputs import SequenceClassifierOutput

        programs = [input_ids] if partner_ids is None else [input_ids, partner_ids]
        first = [self.encoder(ids, attention_mask=(ids != self.pad).long())[0][:, 0] for ids in programs]
        return SequenceClassifierOutput(logits=self.classifier(torch.cat(first, 1)))


def checkpoint_model(config: Any, checkpoint: str, *, task: str, pad: int) -> nn.Module:
    """The model of a checkpoint, in eval mode, without gradients; classes are counted in the file.

    Raises:
        InputError: the file is missing or no plain state of tensors, or not that of a model of this task.
    """
    state = _read(checkpoint)
    inner = "encoder.classifier.out_proj.weight" in state
    output = state.get("encoder.classifier.out_proj.weight" if inner else "classifier.out_proj.weight")
    dense = state.get("encoder.classifier.dense.weight" if inner else "classifier.dense.weight")
    if output is None or dense is None:
        raise InputError(f"{checkpoint} has no classifier.out_proj.weight; it is no checkpoint of CodeXGLUE's wrapper")
    pairs, classes = dense.shape[1] == 2 * config.hidden_size, len(output)
    is_task = {"defect": inner and classes == 1, "clone": pairs, "authorship": not pairs and classes > 1}[task]
    if not is_task:
        shapes = f"{classes} classes over {'two programs' if pairs else 'one program'}"
        raise InputError(f"{checkpoint} is no checkpoint of task={task}: its head has {shapes}")
    config.num_labels = classes
    with torch.random.fork_rng(devices=[]):
        model = _Sequence(config) if inner else _Wrapper(config, pairs=pairs, classes=classes, pad=pad)
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(_UNREAD)}
    try:
        missing, unknown = model.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        raise InputError(f"{checkpoint} does not fit the configuration ({one_line(error)[:200]})") from error
    missing = [name for name in missing if not name.endswith(_UNREAD)]
    if missing or unknown:
        what = f"lacks {missing[0]!r}" if missing else f"has an unknown {unknown[0]!r}"
        raise InputError(f"{checkpoint} {what}; the folder's configuration is of another model")
    return model.eval().requires_grad_(False)


class _Sequence(nn.Module):
    """A classifier of transformers under the name ``encoder``, as the wrapper for defects saves it."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        from transformers import AutoModelForSequenceClassification

        self.config = config
        auto: Any = AutoModelForSequenceClassification
        self.encoder = auto.from_config(config)

    def forward(self, **batch: Tensor) -> Any:
        return self.encoder(**batch)


def _read(checkpoint: str) -> dict[str, Tensor]:
    path = Path(checkpoint)
    if not path.is_file():
        raise InputError(f"{checkpoint}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{checkpoint} is no plain file of tensors ({one_line(error)[:200]})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{checkpoint} holds no state of tensors by name")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
