"""``onnx:PATH`` or a path ending in .onnx: a classifier run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from bbox.errors import InputError, TargetError, UsageError
from bbox.targets.base import Access
from bbox.targets.exported import Batched
from bbox.targets.foreign import LAYOUT, Foreign, choose_access, describe, foreign_target, model_file
from bbox.targets.frozen import pick_device
from bbox.targets.onnx_files import onnx_digest
from bbox.targets.options import Options
from bbox.targets.references import one_line
from bbox.targets.torch_module import TorchTarget

__all__ = ["OnnxModel", "load"]

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_INPUTS: dict[str, Any] = {**_FLOATS, "tensor(uint8)": np.uint8}
_LABELS = ("tensor(int64)", "tensor(int32)")
_MAPS = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")  # what sklearn-onnx makes by default
_QUIET = 4  # ONNX Runtime logs fatal errors only; what fails is raised anyway


class OnnxModel(Foreign):
    """A session of ONNX Runtime as a module.

    Args:
        session: of ``onnxruntime``.
        output: which of its outputs holds the answer.
    """

    def __init__(self, session: Any, output: Any, digest: str, *, hwc: bool, flat: bool, access: Access) -> None:
        super().__init__(digest, hwc=hwc, flat=flat, access=access)
        given = session.get_inputs()[0]
        self.session, self.output = session, output.name
        self.input, self.dtype = given.name, _INPUTS[given.type]

    def answer(self, rows: Tensor) -> Tensor:
        """See ``Foreign``; what the session answers, a list of maps as an array."""
        plain = rows.cpu().numpy()
        if self.dtype == np.uint8:
            plain = plain.round().clip(0, 255)
        (answer,) = self.session.run([self.output], {self.input: np.ascontiguousarray(plain, self.dtype)})
        if isinstance(answer, list):
            answer = np.array([[one[key] for key in sorted(one)] for one in answer], np.float32)
        if answer.ndim == 2 and answer.shape[1] == 1:
            if np.issubdtype(answer.dtype, np.floating):
                raise TargetError(f"output {self.output!r} is one number a row, expected one a class")
            answer = answer[:, 0]
        return torch.from_numpy(answer).to(rows.device)


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> TorchTarget:
    """Load an ONNX file with one input of images (or of flat rows) and scores or labels as an output.

    Options: ``output`` (a name or a number from 0), ``layout`` (``chw`` or ``hwc``; told by the input's shape where it
    can be), ``range`` (``0-1`` or ``0-255``), ``access`` (``labels`` hands out labels only), ``threads`` (as torch
    has), mean, std, size, num_classes and input_shape. A fixed batch is filled up, and the answers to the filling are
    thrown away. Files of weights are read from the model's own folder only, and no library of operators is loaded.

    Raises:
        UsageError: an option or the device is wrong.
        InputError: the file is missing, is no ONNX model, refers to files elsewhere, or does not take a batch of
            images.
    """
    del trust
    spec = reference if reference.lower().endswith(".onnx") else f"onnx:{reference}"
    read = Options(spec, options, ("output", "threads", *LAYOUT))
    path = model_file(Path(reference))
    digest = onnx_digest(path)
    chosen = _device(spec, device)
    session = _session(path, chosen, read.integer("threads", torch.get_num_threads()) or 1)
    given = _input(spec, session)
    sides = [side if isinstance(side, int) and side > 0 else None for side in given.shape]
    described = describe(read, bytes_only=given.type == "tensor(uint8)")
    layout = read.choice("layout", ("chw", "hwc")) or ("hwc" if _channels_last(sides) else "chw")
    output = _output(spec, session, read.text("output"))
    access = choose_access(read, "labels" if output.type in _LABELS else "scores")
    row = [sides[3], sides[1], sides[2]] if layout == "hwc" and len(sides) == 4 else sides[1:]
    if len(row) > 1 and None not in row and "size" not in described:
        described.setdefault("input_shape", tuple(row))
    if output.type in _FLOATS and len(output.shape) == 2 and isinstance(output.shape[1], int):
        if output.shape[1] < 2:
            raise InputError(f"{spec}: output {output.name!r} is one number a row, expected one a class")
        described.setdefault("num_classes", output.shape[1])
    model: nn.Module = OnnxModel(session, output, digest, hwc=layout == "hwc", flat=len(sides) == 2, access=access)
    if sides[0] is not None:
        model = Batched(model, low=sides[0], high=sides[0], dtype=torch.float32, keyword=None)
    return foreign_target(model, name=spec, access=access, device=chosen, described=described)


def _device(spec: str, device: str | None) -> torch.device:
    """Where the model runs: on CUDA only where ONNX Runtime has a provider for it."""
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    chosen = pick_device(device or (None if has_cuda else "cpu"))
    if chosen.type == "cuda" and not has_cuda:
        raise UsageError(f"{spec}: device={chosen}, and this ONNX Runtime is for the CPU; install onnxruntime-gpu")
    return chosen


def _session(path: Path, device: torch.device, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads leave cores to others
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:
        raise InputError(f"{path} does not load in ONNX Runtime: {one_line(error)[:300]}") from error


def _input(spec: str, session: Any) -> Any:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs)
        raise InputError(f"{spec} takes {len(inputs)} inputs ({names}), expected one batch of images")
    if inputs[0].type not in _INPUTS or len(inputs[0].shape) not in (2, 4, 5):
        raise InputError(
            f"{spec} takes {inputs[0].type} of shape {inputs[0].shape}, expected floats or uint8 as (examples, "
            "channels, height, width), (examples, height, width, channels) or (examples, numbers)"
        )
    return inputs[0]


def _output(spec: str, session: Any, asked: str | None) -> Any:
    """The output that was asked for, or the one that can be scores, or the one that can be labels."""
    outputs = session.get_outputs()
    names = ", ".join(f"{one.name} ({one.type} {one.shape})" for one in outputs)
    if asked is not None:
        by_name = {one.name: one for one in outputs} | {str(place): one for place, one in enumerate(outputs)}
        if asked not in by_name:
            raise UsageError(f"{spec} has no output {asked!r}; its outputs are {names}")
        outputs = [by_name[asked]]
    for types in ((*_FLOATS, *_MAPS), _LABELS):
        fitting = [one for one in outputs if one.type in types and len(one.shape or ()) in (0, 1, 2)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise UsageError(f"{spec} has {len(fitting)} outputs that may be scores; give output=NAME: {names}")
    raise InputError(f"{spec} answers {names}, expected (examples, classes) scores or (examples,) integer labels")


def _channels_last(sides: Sequence[int | None]) -> bool:
    return len(sides) == 4 and sides[3] in (1, 3) and sides[1] not in (1, 3)
