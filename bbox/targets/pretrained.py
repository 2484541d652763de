"""Loading what transformers saves, with errors of one line and nothing printed. transformers is imported when used."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bbox.errors import InputError, UsageError
from bbox.targets.references import one_line

__all__ = ["pretrained", "pretrained_model"]


def pretrained(auto: str, reference: str, *, spec: str, trust: bool = False) -> Any:
    """``transformers.AUTO.from_pretrained`` of a folder or a hub id.

    Args:
        auto: name of a class of transformers, for example ``AutoTokenizer``.
        spec: what the user typed, for messages.
        trust: allow the code that a model may bring.

    Raises:
        UsageError: no such folder and no hub id, or the hub does not have it or is out of reach.
        InputError: the folder holds no such thing, or what cannot be read.
    """
    return _load(auto, reference, spec, trust_remote_code=trust)


def pretrained_model(
    reference: str, *, spec: str, trust: bool = False, optional: str = "", auto: str = "AutoModel", hint: str = ""
) -> nn.Module:
    """``AutoModel``, or another class of transformers, in float32 and eval mode, without gradients.

    Every weight is from the file.

    Float32 always: a search by differences of scores is as exact as the forward is.

    Args:
        auto: the class of transformers.
        optional: name of a child that the file may lack, as that of a classifier lacks a pooling layer; it is
            ``None`` then.
        hint: what to say of a file that lacks weights.

    Raises:
        UsageError, InputError: as ``pretrained``; and a file that lacks weights, which transformers would draw at
            random.
    """
    with torch.random.fork_rng(devices=[]):
        model, found = _load(
            auto,
            reference,
            spec,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=trust,
        )
    missing = sorted(found["missing_keys"])
    if optional and any(key.startswith(f"{optional}.") for key in missing):
        setattr(model, optional, None)
        missing = [key for key in missing if not key.startswith(f"{optional}.")]
    if missing:
        lacks = f"{spec}: the file lacks {len(missing)} weights of the model, for example {missing[0]!r}"
        raise InputError(f"{lacks}; {hint}" if hint else lacks)
    plain: nn.Module = model.eval().requires_grad_(False)
    return plain


def _load(auto: str, reference: str, spec: str, **options: Any) -> Any:
    path = Path(reference).expanduser()
    folder = path.exists()
    if not folder and not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", reference):
        raise UsageError(f"{spec}: no such folder; expected a folder of save_pretrained, or a hub id as owner/name")
    import transformers

    with _quiet():
        try:
            return getattr(transformers, auto).from_pretrained(str(path) if folder else reference, **options)
        except Exception as error:
            reason = one_line(error)[:200]
            if folder:
                raise InputError(f"{spec}: {auto} cannot read that folder ({reason})") from error
            raise UsageError(
                f"{spec}: no such folder, and the hub has no such model or cannot be reached from here "
                f"(no network?); download it elsewhere and give its folder ({reason})"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging as logs

    chat: Any = logs
    level, bar = chat.get_verbosity(), chat.is_progress_bar_enabled()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    chat.set_verbosity(logging.CRITICAL)
    chat.disable_progress_bar()
    hub.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        chat.set_verbosity(level)
        hub.setLevel(hub_level)
        if bar:
            chat.enable_progress_bar()
