"""``magika:raw`` and ``magika:policy``: Google's Magika, the content-type classifier, as its package ships it.

Fratantonio et al., "Magika: AI-Powered Content-Type Detection" (ICSE 2025). The network reads the first and the last
1024 bytes of a file. Two targets: ``raw`` is the network's softmax over its labels; ``policy`` is what a user of the
package gets, ``output.label`` after thresholds and overwriting, a label only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbox.code.program import Programs
from bbox.errors import UsageError
from bbox.targets.base import Access
from bbox.targets.code.base import CodeTarget
from bbox.targets.options import Options
from bbox.targets.references import one_line

__all__ = ["MagikaPolicy", "MagikaRaw", "load"]


class MagikaRaw(CodeTarget):
    """The probabilities that Magika's network gives its labels, 214 in its model standard_v3_3.

    The package answers programs of fewer than 8 bytes by a rule of its own; here they are given to the network padded.
    """

    name = "magika:raw"
    access: Access = "scores"

    def __init__(self) -> None:
        self.magika, self.session = _magika()
        self.class_names = tuple(str(label) for label in self.magika._model_config.target_labels_space)
        self.num_classes = len(self.class_names)

    def __call__(self, rows: Programs) -> Tensor:
        """See ``CodeTarget``."""
        scores = [self._probabilities(code.encode()) for code in self.sources(rows)]
        return torch.from_numpy(np.stack(scores)) if scores else torch.empty(0, self.num_classes or 0)

    def fingerprint(self) -> str:
        """SHA-256 over the model file, its configuration and the target's name."""
        total = hashlib.sha256(self.name.encode())
        for path in (self.magika._model_path, self.magika._model_config_path):
            total.update(path.read_bytes())
        return total.hexdigest()

    def _probabilities(self, content: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
        # One program at a time. Measured with onnxruntime 1.32 on one thread: a program takes 9 ms alone and 10 ms
        # among 128, where its probabilities move by up to 8e-4: an answer would depend on its neighbours for no gain.
        config = self.magika._model_config
        start, end = config.beg_size, config.end_size
        read = np.full((1, start + end), config.padding_token, dtype=np.int32)
        head = content[: config.block_size].lstrip()[:start]
        tail = content[-config.block_size :].rstrip()[-end:]
        read[0, : len(head)] = np.frombuffer(head, np.uint8)
        read[0, start + end - len(tail) :] = np.frombuffer(tail, np.uint8)
        scores: np.ndarray[Any, np.dtype[np.float32]] = self.session.run(["target_label"], {"bytes": read})[0][0]
        return scores


class MagikaPolicy(MagikaRaw):
    """The label that Magika's public API answers for each program, of all that it can answer. Labels only."""

    name = "magika:policy"
    access: Access = "labels"

    def __init__(self) -> None:
        super().__init__()
        self.class_names = tuple(str(label) for label in self.magika.get_output_content_types())
        self.num_classes = len(self.class_names)
        self._place = {name: place for place, name in enumerate(self.class_names)}

    def __call__(self, rows: Programs) -> Tensor:
        """See ``CodeTarget``."""
        return torch.tensor([self._label(code.encode()) for code in self.sources(rows)], dtype=torch.int64)

    def _label(self, content: bytes) -> int:
        config = self.magika._model_config
        if len(content[: config.block_size].lstrip()) < config.min_file_size_for_dl:
            return self._place[str(self.magika.identify_bytes(content).output.label)]  # a rule, without the network
        scores = self._probabilities(content)
        best = int(scores.argmax())
        label, _ = self.magika._get_output_label_from_dl_label_and_score(
            config.target_labels_space[best], float(scores[best])
        )
        return self._place[str(label)]


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> MagikaRaw:
    """Load ``raw`` or ``policy``; no options. It runs on the CPU, with as many threads as torch.

    Raises:
        UsageError: the reference is another word, an option was given, or the package is not installed or too new.
    """
    del trust, device
    kinds = {"raw": MagikaRaw, "policy": MagikaPolicy}
    if reference not in kinds:
        raise UsageError(f"magika:{reference} is unknown, expected magika:raw or magika:policy")
    Options(f"magika:{reference}", options, ())
    return kinds[reference]()


def _magika() -> tuple[Any, Any]:
    try:
        import onnxruntime
        from magika import Magika
    except ImportError as error:
        raise UsageError(f"magika needs a package: pip install 'bbox-toolkit[magika]' ({error})") from error
    found: Any = Magika()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()  # the package's own session takes every core
    try:
        session = onnxruntime.InferenceSession(found._model_path, settings, providers=["CPUExecutionProvider"])
        config = found._model_config
        known = config.mid_size == 0 and not config.use_inputs_at_offsets
    except AttributeError as error:
        raise UsageError(f"this version of magika is not known, 1.0.3 is ({one_line(error)})") from error
    if not known:
        raise UsageError("this version of magika reads more of a file than its start and end; 1.0.3 is known")
    return found, session
