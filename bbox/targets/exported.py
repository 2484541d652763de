"""``pt2:PATH`` or a path ending in .pt2: an archive of ``torch.export.save``."""

from __future__ import annotations

import importlib
import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from bbox.errors import InputError
from bbox.targets.frozen import pick_device
from bbox.targets.options import PREPROCESSING, Options
from bbox.targets.pt2_scan import scan
from bbox.targets.references import one_line
from bbox.targets.torch_module import TorchTarget

__all__ = ["Batched", "exported_target", "load"]


class Batched(nn.Module):
    """An exported module that is given only batches of sizes that it was exported for.

    Rows go in chunks of at most ``high``. A chunk below ``low`` is padded with copies of its last row, and
    the
    answers to the padding are thrown away: they are computed, but they are no queries of the user and no
    ledger counts them.

    Shapes:
        rows: (n, channels, height, width).
        returns: (n, classes).
    """

    def __init__(
        self, module: nn.Module, *, low: int, high: int | None, dtype: torch.dtype, keyword: str | None
    ) -> None:
        super().__init__()
        self.module = module
        self.low, self.high, self.dtype, self.keyword = low, high, dtype, keyword

    def forward(self, rows: Tensor) -> Tensor:
        """Answers to rows, in their order."""
        chunks = torch.split(rows.to(self.dtype), self.high or max(len(rows), 1))
        return torch.cat([self._ask(chunk)[: len(chunk)] for chunk in chunks])

    def _ask(self, chunk: Tensor) -> Tensor:
        lacking = self.low - len(chunk)
        if lacking > 0:
            chunk = torch.cat([chunk, chunk[-1:].expand(lacking, *chunk.shape[1:])])
        answer = self.module(chunk) if self.keyword is None else self.module(**{self.keyword: chunk})
        scores = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", answer)
        if not isinstance(scores, Tensor):
            raise InputError(f"the exported model answers {type(answer).__name__}; export one that answers scores")
        return scores


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> TorchTarget:
    """Load an archive of ``torch.export.save`` with a fixed or a dynamic batch.

    Options: mean, std, size, num_classes, input_shape; the last two are read from the archive where it has
        them.

    Raises:
        UsageError: an option or the device is wrong.
        InputError: the file is missing or no such archive, could run code when loaded (and ``trust`` is not
            set), or the model does not take one batch of images.
    """
    path = Path(reference)
    read = Options(reference, options, PREPROCESSING)
    if not path.is_file():
        raise InputError(f"{reference}: no such file")
    if trust:
        warnings.warn(f"--trust: {reference} is loaded unchecked and can run code that was put in it", stacklevel=3)
    else:
        scan(path)
    program = _read(path)
    described: dict[str, Any] = read.preprocessing()
    name = reference if reference.lower().endswith(".pt2") else f"pt2:{reference}"
    return exported_target(program, name=name, device=device, **described)


def exported_target(
    program: ExportedProgram, *, name: str, device: str | torch.device | None = None, **preprocessing: Any
) -> TorchTarget:
    """An exported program as a target.

    Raises:
        InputError: the program does not take one batch of images, or was exported in training mode.
    """
    signature = program.graph_signature
    if len(signature.user_inputs) != 1:
        raise InputError(f"{name} takes {len(signature.user_inputs)} inputs, expected one batch of images")
    training = _trains(program)
    if training is not None:
        raise InputError(f"{name} was exported in training mode ({training}); call .eval() before exporting")
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    rows = values.get(str(signature.user_inputs[0]))
    if not isinstance(rows, Tensor) or rows.ndim not in (4, 5) or not rows.is_floating_point():
        what = f"{tuple(rows.shape)} {rows.dtype}" if isinstance(rows, Tensor) else type(rows).__name__
        raise InputError(
            f"{name} takes {what}, expected float images (examples, channels, height, width) "
            "or motions (examples, axes, frames, joints, bodies)"
        )
    if preprocessing.get("size") is None and preprocessing.get("input_shape") is None:
        row = [side if isinstance(side, int) else None for side in rows.shape[1:]]
        preprocessing["input_shape"] = None if None in row else tuple(row)
    if preprocessing.get("num_classes") is None and len(signature.user_outputs) == 1:
        scores = values.get(str(signature.user_outputs[0]))
        if isinstance(scores, Tensor) and scores.ndim == 2 and isinstance(scores.shape[1], int):
            preprocessing["num_classes"] = scores.shape[1]
    low, high = _batch_range(program, rows)
    chosen = pick_device(device)
    on = next(
        (t.device for t in (*program.state_dict.values(), *program.constants.values()) if isinstance(t, Tensor)),
        None,
    )
    if on is not None and on != chosen:
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, chosen)
    keywords = program.call_spec.in_spec
    keyword = None if keywords is None or keywords.children()[0].num_leaves else keywords.children()[1].context[0]
    # The batch is checked here, so the guards of the archive, which are code as text, are not compiled.
    module = program.module(check_guards=False)
    batched = Batched(module, low=low, high=high, dtype=rows.dtype, keyword=keyword)
    return TorchTarget(batched, name=name, device=chosen, **preprocessing)


def _trains(program: ExportedProgram) -> str | None:
    """What in the graph acts as it does in training: a batch norm that learns, or dropout that drops."""
    changed = program.graph_signature.buffers_to_mutate
    if changed:
        return f"it changes {next(iter(changed.values()))}"
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        given = {argument.name: value for argument, value in zip(schema.arguments, node.args, strict=False)}
        given.update(node.kwargs)
        # A batch norm without running statistics uses those of the batch in every mode.
        learns = given.get("training") is True and given.get("running_mean", True) is not None
        if learns or given.get("train") is True:
            return f"its {node.name} trains"
    return None


def _batch_range(program: ExportedProgram, rows: Tensor) -> tuple[int, int | None]:
    """The smallest and the largest batch that the program takes; ``None`` for no largest."""
    batch: Any = rows.shape[0]
    if isinstance(batch, int):
        return batch, batch
    allowed = program.range_constraints.get(batch.node.expr)
    if allowed is None:
        return 1, None
    high = float(allowed.upper)
    return max(int(allowed.lower), 1), int(high) if math.isfinite(high) and high < 2**31 else None


def _read(path: Path) -> ExportedProgram:
    """``torch.export.load`` with its own traceback kept off stderr and its cause told in one line."""
    logger, causes = logging.getLogger("torch.export"), list[BaseException]()

    def keep(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            causes.append(record.exc_info[1])
        return False

    logger.addFilter(keep)
    try:
        try:
            return torch.export.load(path)
        except Exception as error:
            # A model of transformers answers a class that torch knows only once transformers is imported.
            if "transformers.modeling_outputs" not in str(causes[-1] if causes else error):
                raise
            importlib.import_module("transformers.modeling_outputs")
            return torch.export.load(path)
    except Exception as error:
        raise InputError(
            f"{path} does not load with torch.export.load: {one_line(causes[-1] if causes else error)}"
        ) from error
    finally:
        logger.removeFilter(keep)
