"""``hf-code:PATH_OR_ID``: a sequence classifier of transformers over source text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from bbox.code.program import Programs
from bbox.errors import InputError, UsageError
from bbox.options import read_option
from bbox.targets.code.base import CodeTarget
from bbox.targets.code.codexglue import TASKS, checkpoint_model
from bbox.targets.frozen import Frozen, digest, pick_device
from bbox.targets.options import Options
from bbox.targets.pretrained import pretrained, pretrained_model

__all__ = ["Head", "SequenceClassifier", "load", "names_of_classes"]

Head = Literal["softmax", "sigmoid"]

_LENGTH = 512
_TOKENS = 2**16  # tokens in one forward, padding included: about 1 GB of activations for a model of BERT's base size
_IDS = ("input_ids", "partner_ids")  # what is padded by the padding token; all else by 0
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class SequenceClassifier(CodeTarget):
    """A model of transformers with its tokenizer; answers probabilities.

    A program of more tokens than ``max_length`` is cut off there: what stands behind has no influence. Rows are sorted
    by length and run in chunks of about one length, since padding is masked but costs time.

    Args:
        model: takes ``input_ids`` and ``attention_mask``, answers something with ``logits``; moved to ``device``.
        tokenizer: of transformers, with a padding token.
        name: what the user would type to load it again.
        head: ``"softmax"`` over logits, or ``"sigmoid"`` of a single logit s, answered as [1 - s, s]: label 1 where
            s is above .5 (the head that CodeXGLUE trains for defects).
        max_length: tokens that the model sees of a program, special ones included; of a pair, of both together.
        pairs: whether rows are pairs, given to the tokenizer as text and text pair.
        each: whether the two programs of a pair are cut off and encoded one by one, as a list (code, partner).
        one_line: whether white space is made single blanks first, as CodeXGLUE does for defects and clones.
        language: the one language that it reads.
        device: default CUDA where there is one.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        name: str,
        head: Head = "softmax",
        max_length: int = _LENGTH,
        pairs: bool = False,
        each: bool = False,
        one_line: bool = False,
        language: str | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.name = name
        self.head = head
        self.max_length = max_length
        self.pairs = pairs
        self.each = each
        self.one_line = one_line
        self.language = language
        self.device = pick_device(device)
        self.tokenizer = tokenizer
        self.model = model.to(self.device)
        self._frozen = Frozen(self.model)
        config: Any = self.model.config
        labels = int(config.num_labels)
        if (head == "sigmoid") != (labels == 1):
            wanted = "sigmoid" if labels == 1 else "softmax"
            raise UsageError(f"{name} answers {labels} logits, which is no head={head}; give head={wanted}")
        self.num_classes = 2 if head == "sigmoid" else labels
        self.class_names = names_of_classes(config.id2label, self.num_classes)

    def __call__(self, rows: Programs) -> Tensor:
        """See ``CodeTarget``. Scores are probabilities, float32, on ``device``."""
        encoded = self.encode(self.sources(rows))
        scores = torch.empty(len(rows), self.num_classes or 0, device=self.device)
        with self._frozen(), torch.inference_mode():
            for places in _chunks([len(ids) for ids in encoded["input_ids"]]):
                batch = self.pad({key: [values[place] for place in places] for key, values in encoded.items()})
                scores[torch.tensor(places, device=self.device)] = self._probabilities(self.model(**batch).logits)
        return scores

    def fingerprint(self) -> str:
        """SHA-256 over weights, vocabulary and how programs are given."""
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        how = (self.head, self.max_length, self.pairs, self.each, self.one_line)
        return digest(self.model, vocabulary, *how, str(next(self.model.parameters()).dtype))

    def encode(self, sources: list[Any]) -> dict[str, list[list[int]]]:
        """What the tokenizer says of each row, by name; of pairs that are encoded one by one, ids and partner ids."""
        if self.one_line:
            sources = [_joined(source) for source in sources]
        cut = {"truncation": True, "max_length": self.max_length, "verbose": False}
        if not self.pairs:
            return dict(self.tokenizer(sources, **cut))
        codes, partners = [code for code, _ in sources], [partner for _, partner in sources]
        if not self.each:
            return dict(self.tokenizer(codes, partners, **cut))
        return {
            "input_ids": self.tokenizer(codes, **cut)["input_ids"],
            "partner_ids": self.tokenizer(partners, **cut)["input_ids"],
        }

    def pad(self, batch: dict[str, list[list[int]]]) -> dict[str, Tensor]:
        pad = self.tokenizer.pad_token_id
        return {
            key: pad_sequence(
                [torch.tensor(row) for row in rows], batch_first=True, padding_value=pad if key in _IDS else 0
            ).to(self.device)
            for key, rows in batch.items()
        }

    def _probabilities(self, logits: Tensor) -> Tensor:
        if self.head == "softmax":
            return logits.float().softmax(1)
        share = logits.float().reshape(-1, 1).sigmoid()
        return torch.cat([1 - share, share], 1)


def load(reference: str, *, options: Mapping[str, object], trust: bool, device: str | None) -> SequenceClassifier:
    """Load a folder of ``save_pretrained``, or a hub id, with its tokenizer.

    Options: ``max_length`` (512 tokens, or what the model can take), ``pairs``, ``head`` (softmax or sigmoid),
    ``dtype`` (float32; float16 and bfloat16 on CUDA), ``language``. With ``checkpoint=FILE`` and ``task=defect``,
    ``clone`` or ``authorship``, the weights are those of a model that CodeXGLUE's or ALERT's scripts saved
    (``model.bin``), and the folder gives configuration and tokenizer alone.

    Raises:
        UsageError: no such folder or hub id, no network, or an option is wrong.
        InputError: the folder holds no such model, or a file is not readable.
    """
    spec = f"hf-code:{reference}"
    known = ("max_length", "pairs", "head", "dtype", "language", "checkpoint", "task")
    read = Options(spec, options, known)
    chosen = pick_device(device)
    dtype = _dtype(spec, read.choice("dtype", tuple(_DTYPES)), chosen)
    tokenizer = _with_padding(spec, pretrained("AutoTokenizer", reference, spec=spec, trust=trust))
    task = read.choice("task", tuple(TASKS))
    checkpoint = read.text("checkpoint")
    if (task is None) != (checkpoint is None):
        raise UsageError(f"{spec}: checkpoint=FILE and task={'|'.join(TASKS)} go together; one is missing")
    given: dict[str, Any] = {"head": read.choice("head", ("softmax", "sigmoid"))}
    given["pairs"] = None if options.get("pairs") is None else read_option(f"{spec}: pairs", bool, options["pairs"])
    if task is not None and checkpoint is not None:
        for option, value in given.items():
            if value is not None:
                raise UsageError(f"{spec}: task={task} says {option} itself; leave out {option}={options[option]}")
        config = pretrained("AutoConfig", reference, spec=spec, trust=trust)
        model: Any = checkpoint_model(config, checkpoint, task=task, pad=tokenizer.pad_token_id)
        settings = dict(TASKS[task])
    else:
        model = _classifier(reference, spec, trust)
        one = int(model.config.num_labels) == 1
        settings = {"head": given["head"] or ("sigmoid" if one else "softmax"), "pairs": bool(given["pairs"])}
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    longest = settings.pop("max_length", _LENGTH)
    return SequenceClassifier(
        model.to(dtype),
        tokenizer,
        name=spec,
        max_length=_length(spec, read.integer("max_length"), longest, tokenizer, model.config),
        language=read.text("language"),
        device=chosen,
        **settings,
    )


def _chunks(lengths: list[int]) -> Iterator[list[int]]:
    """Places by length, cut where padding would be more than a quarter of a row, or the chunk too large."""
    chunk: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        longest = lengths[chunk[0]] if chunk else 0
        if chunk and (lengths[place] < 0.75 * longest or longest * (len(chunk) + 1) > _TOKENS):
            yield chunk
            chunk = []
        chunk.append(place)
    if chunk:
        yield chunk


def _joined(source: str | tuple[str, str]) -> str | tuple[str, ...]:
    return " ".join(source.split()) if isinstance(source, str) else tuple(" ".join(part.split()) for part in source)


def _length(spec: str, asked: int | None, default: int, tokenizer: Any, config: Any) -> int:
    """Tokens that the model can take, or fewer where fewer are asked for."""
    positions = getattr(config, "max_position_embeddings", None) or 10**9
    if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
        positions -= int(config.pad_token_id) + 1  # RoBERTa counts positions from behind the padding token's
    limit = min(int(positions), int(tokenizer.model_max_length))
    if asked is not None and asked > limit:
        raise UsageError(f"{spec}: max_length={asked}, and the model takes {limit} tokens")
    return min(asked or default, limit)


def _dtype(spec: str, word: str | None, device: torch.device) -> torch.dtype:
    dtype = _DTYPES[word or "float32"]
    if dtype != torch.float32 and device.type != "cuda":
        raise UsageError(f"{spec}: dtype={word} is for CUDA, and the device is {device}; leave it out")
    return dtype


def _with_padding(spec: str, tokenizer: Any) -> Any:
    if tokenizer.pad_token is None:  # models that continue text have none; it is masked, so any token serves
        if tokenizer.eos_token is None:
            raise InputError(f"{spec}: the tokenizer has no padding token and none to take in its place")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _classifier(reference: str, spec: str, trust: bool) -> Any:
    return pretrained_model(
        reference,
        spec=spec,
        trust=trust,
        auto="AutoModelForSequenceClassification",
        hint="it is a model that was not trained to classify",
    )


def names_of_classes(id2label: Mapping[Any, str] | None, classes: int) -> tuple[str, ...] | None:
    names = tuple(str(name) for _, name in sorted((id2label or {}).items()))
    # transformers fills in LABEL_0, LABEL_1 where nobody named them.
    return names if len(set(names)) == classes and not names[0].startswith("LABEL_") else None
