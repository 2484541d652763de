"""A masked language model of transformers: what it predicts in a place, and how it reads one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bbox.code.program import Program
from bbox.code.substitutes.words import words
from bbox.errors import InputError
from bbox.targets import pretrained as loading

__all__ = ["Encoded", "MaskedLM", "Place"]

_PREDICTED = 4  # windows in one forward with the head: 512 tokens by 50,265 words in float32 are 0.1 GB each

Place = tuple[int, int]  # the first token of an occurrence, and how many it has


@dataclass(frozen=True)
class Encoded:
    """The sub-tokens of a program.

    Attributes:
        ids: without special tokens.
        places: the sub-tokens of each word, by its byte offsets in the program.
    """

    ids: list[int]
    places: dict[tuple[int, int], Place]


class MaskedLM:
    """A masked language model with a byte-level BPE tokenizer (the RoBERTa family: CodeBERT, GraphCodeBERT).

    Args:
        reference: a folder of ``save_pretrained``, or a hub id.
        head: whether it must predict; without, it only reads (``states``).
        batch: rows of one forward.

    Attributes:
        length: sub-tokens that it reads at once, special ones not counted.
        rows_read: rows that have gone through the model so far.

    Raises:
        UsageError, InputError: see ``bbox.targets.pretrained``; and a file that lacks the weights of the head.
    """

    def __init__(
        self, reference: str, *, spec: str, device: torch.device | None = None, head: bool = True, batch: int = 64
    ) -> None:
        self.reference, self.batch, self.rows_read = reference, batch, 0
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer: Any = loading.pretrained("AutoTokenizer", reference, spec=spec)
        model: Any = _with_head(reference, spec) if head else _reader(reference, spec)
        self.model: Any = model.to(self.device)
        base: Any = self.model.base_model
        self.base = base
        needed = ("cls_token_id", "sep_token_id", "mask_token_id", "pad_token_id")
        lacking = [name for name in needed if getattr(self.tokenizer, name, None) is None]
        if lacking:
            raise InputError(f"{spec}: the tokenizer has no {lacking[0]}; a masked language model is expected")
        if self._ids([" name"]) == self._ids(["name"]):
            raise InputError(f"{spec}: the tokenizer does not tell where a word starts; byte-level BPE is expected")
        # RoBERTa numbers positions from the padding's number on.
        padding = getattr(base.embeddings, "padding_idx", None)
        positions = self.model.config.max_position_embeddings - (0 if padding is None else padding + 1)
        self.length = min(positions, self.tokenizer.model_max_length) - 2

    def encode(self, program: Program) -> Encoded:
        """Split a program as CodeBERT was pretrained on it: tokens joined by single spaces, then BPE."""
        found = words(program)
        ids: list[int] = []
        places = {}
        for word, pieces in zip(found, self._ids([f" {word.text}" for word in found]), strict=True):
            places[word.start, word.end] = (len(ids), len(pieces))
            ids += pieces
        return Encoded(ids, places)

    def window(self, encoded: Encoded, place: Place) -> int | None:
        """Where the window starts that an occurrence is read in; ``None`` where it is too long for any.

        Windows start every half length and each occurrence gets the one it stands most in the middle of, so that
        occurrences share windows and each has at least a quarter of the length on both sides, where there is as much.
        """
        first, count = place
        half = self.length // 2
        if count > half:
            return None
        start = round((first + count / 2 - self.length / 2) / half) * half
        return int(max(0, min(start, len(encoded.ids) - self.length)))

    def predict(self, rows: Sequence[list[int]], places: Sequence[Place], of: Sequence[int], top: int) -> list[Tensor]:
        """The likeliest ids in each place, best first: of occurrence i in row ``of[i]``. Shapes: (sub-tokens, top)."""
        found: list[Tensor] = [torch.empty(0)] * len(places)
        for begin in range(0, len(rows), _PREDICTED):
            logits = self._forward(self.model, rows[begin : begin + _PREDICTED]).logits
            for number, (first, count) in enumerate(places):
                if begin <= of[number] < begin + _PREDICTED:
                    here = logits[of[number] - begin, 1 + first : 1 + first + count]
                    found[number] = here.topk(min(top, here.shape[-1])).indices.cpu()
        return found

    def log_likelihood(self, rows: Sequence[list[int]], places: Sequence[int]) -> Tensor:
        """Log probability of the token in one place of each row, that place being masked. Shapes: (rows,) float64."""
        found = []
        for begin in range(0, len(rows), _PREDICTED):
            chunk, at = rows[begin : begin + _PREDICTED], places[begin : begin + _PREDICTED]
            masked = [[*r[:p], self.tokenizer.mask_token_id, *r[p + 1 :]] for r, p in zip(chunk, at, strict=True)]
            lines = torch.arange(len(chunk), device=self.device)
            logits = self._forward(self.model, masked).logits[lines, torch.tensor(at, device=self.device) + 1]
            truth = torch.tensor([r[p] for r, p in zip(chunk, at, strict=True)], device=self.device)
            found.append(logits.double().log_softmax(-1)[lines, truth].cpu())
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)

    def states(self, rows: Sequence[list[int]], places: Sequence[Place]) -> list[Tensor]:
        """Contextual embeddings of one place in each row. Shapes: (sub-tokens, width) each, on the device."""
        found = []
        for begin in range(0, len(rows), self.batch):
            hidden = self._forward(self.base, rows[begin : begin + self.batch]).last_hidden_state
            for line, (first, count) in zip(hidden, places[begin : begin + self.batch], strict=True):
                found.append(line[1 + first : 1 + first + count])
        return found

    def text(self, ids: Iterable[int]) -> str:
        """What these sub-tokens say, with a leading space where a word starts."""
        said: str = self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        return said

    def fingerprint(self) -> str:
        """A digest of the weights and the vocabulary."""
        digest = hashlib.sha256(repr(sorted(self.tokenizer.get_vocab().items())).encode("utf-8", "surrogatepass"))
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.contiguous().cpu().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    @torch.no_grad()
    def _forward(self, model: Any, rows: Sequence[list[int]]) -> Any:
        self.rows_read += len(rows)
        width = max(map(len, rows)) + 2
        ids = torch.full((len(rows), width), self.tokenizer.pad_token_id)
        for line, row in zip(ids, rows, strict=True):
            line[: len(row) + 2] = torch.tensor([self.tokenizer.cls_token_id, *row, self.tokenizer.sep_token_id])
        lengths = torch.tensor([len(row) + 2 for row in rows])
        mask = (torch.arange(width) < lengths[:, None]).long()
        return model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device))


def _with_head(reference: str, spec: str) -> Any:
    hint = "take one that was trained to fill masks"
    return loading.pretrained_model(reference, spec=spec, auto="AutoModelForMaskedLM", hint=hint)


def _reader(reference: str, spec: str) -> Any:
    return loading.pretrained_model(reference, spec=spec, optional="pooler")
