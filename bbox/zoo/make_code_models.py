"""Train small transformers of code from scratch: ``python -m bbox.zoo.make_code_models --out DIR``.

The corpus is that of ``zoo:python-projects``: functions of the Python that is installed with bbox. ``DIR/mlm`` is a
masked language model (the objective of RoBERTa, Liu et al. 2019, section 4: dynamic masking over full blocks), which
proposes names as ``mlm:DIR/mlm``. ``DIR/classifier`` is the same encoder, fine-tuned to tell which project wrote a
function, a target as ``hf-code:DIR/classifier``. Both are what ``save_pretrained`` writes, with their tokenizer.

On one machine, with the same packages and options, a second run gives the same weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from bbox.files import refuse_taken
from bbox.zoo.python_projects import Split, split_projects

__all__ = ["main", "make_tokenizer", "train_classifier", "train_mlm"]

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
LENGTH = 256  # tokens that the models see at once
_BATCH = 16
_MASKED = 0.15


def make_tokenizer(codes: Sequence[str], vocabulary: int) -> Any:
    """A byte-level BPE of these programs, in RoBERTa's form (``<s> a </s>``, ``<s> a </s></s> b </s>``)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import AddedToken, PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    plain.train_from_iterator(codes, trainer)
    plain.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), SPECIAL, strict=False))
    mask = AddedToken("<mask>", lstrip=True, special=True)
    make: Any = PreTrainedTokenizerFast
    return make(
        tokenizer_object=plain, mask_token=mask, cls_token="<s>", sep_token="</s>", model_max_length=LENGTH, **names
    )


def train_mlm(tokenizer: Any, codes: Sequence[str], *, epochs: int, hidden: int, layers: int, device: str) -> Any:
    """A masked language model of these programs, packed into full blocks of tokens."""
    from transformers import RobertaConfig, RobertaForMaskedLM

    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 32),
        intermediate_size=4 * hidden,
        max_position_embeddings=LENGTH + 2,
        type_vocab_size=1,
    )
    model: Any = RobertaForMaskedLM(config)
    model = model.to(device).train()
    blocks = _blocks(tokenizer, codes)
    steps = epochs * -(-len(blocks) // _BATCH)
    optimizer, schedule = _optimizer(model, 2e-3, steps)
    for rows in _epochs(len(blocks), epochs):
        ids = blocks[rows]
        hidden_ids, asked = _mask(ids, len(tokenizer))
        states = model.roberta(hidden_ids.to(device))[0][asked.to(device)]
        loss = F.cross_entropy(model.lm_head(states), ids[asked].to(device))
        _step(loss, model, optimizer, schedule)
    return model.eval()


@torch.no_grad()
def mlm_accuracy(model: Any, tokenizer: Any, codes: Sequence[str]) -> float:
    """The share of masked tokens that the model's first guess is."""
    device = model.device
    right = total = 0
    blocks = _blocks(tokenizer, codes)
    for ids in (blocks[start : start + _BATCH] for start in range(0, len(blocks), _BATCH)):
        hidden_ids, asked = _mask(ids, len(tokenizer))
        states = model.roberta(hidden_ids.to(device))[0][asked.to(device)]
        right += int((model.lm_head(states).argmax(1).cpu() == ids[asked]).sum())
        total += int(asked.sum())
    return right / total


def train_classifier(tokenizer: Any, encoder: Any, split: Split, *, epochs: int, device: str) -> Any:
    """A classifier of the split's functions that starts from an encoder's weights."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig.from_dict(encoder.config.to_dict())
    config.id2label = dict(enumerate(split.classes))
    config.label2id = {name: label for label, name in enumerate(split.classes)}
    model: Any = RobertaForSequenceClassification(config)
    model.roberta.load_state_dict(encoder.roberta.state_dict())
    model = model.to(device).train()
    ids = [_tokens(tokenizer, function.code) for function, _ in split.training]
    labels = torch.tensor([label for _, label in split.training])
    optimizer, schedule = _optimizer(model, 5e-4, epochs * -(-len(ids) // _BATCH))
    for rows in _epochs(len(ids), epochs, lengths=torch.tensor([len(row) for row in ids])):
        batch = _padded([ids[row] for row in rows.tolist()]).to(device)
        loss = F.cross_entropy(model(batch, attention_mask=batch != 1).logits, labels[rows].to(device))
        _step(loss, model, optimizer, schedule)
    return model.eval()


@torch.no_grad()
def accuracy(model: Any, tokenizer: Any, split: Split) -> float:
    """The share of held-out functions that the classifier gets right."""
    right = 0
    for start in range(0, len(split.held_out), _BATCH):
        part = split.held_out[start : start + _BATCH]
        batch = _padded([_tokens(tokenizer, function.code) for function, _ in part]).to(model.device)
        guess = model(batch, attention_mask=batch != 1).logits.argmax(1).cpu()
        right += int((guess == torch.tensor([label for _, label in part])).sum())
    return right / len(split.held_out)


def _blocks(tokenizer: Any, codes: Sequence[str]) -> Tensor:
    """Programs packed end to end. Shapes: (blocks, LENGTH) int64."""
    stream = [2]
    for start in range(0, len(codes), 1000):
        for ids in tokenizer(list(codes[start : start + 1000]), add_special_tokens=False, verbose=False)["input_ids"]:
            stream += [*ids, 2]
    inside = LENGTH - 1
    whole = torch.tensor(stream[: max(1, len(stream) // inside) * inside]).reshape(-1, min(inside, len(stream)))
    return F.pad(whole, (1, 0), value=0)


def _mask(ids: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """15% of the tokens: of these 80% hidden, 10% another token, 10% left (Devlin et al. 2019, section 3.1)."""
    asked = (torch.rand(ids.shape) < _MASKED) & (ids >= len(SPECIAL))
    what = torch.rand(ids.shape)
    hidden = torch.where(asked & (what < 0.8), SPECIAL.index("<mask>"), ids)
    random = torch.randint(len(SPECIAL), vocabulary, ids.shape)
    return torch.where(asked & (what >= 0.8) & (what < 0.9), random, hidden), asked


def _epochs(count: int, epochs: int, lengths: Tensor | None = None) -> Iterator[Tensor]:
    """Batches of rows, shuffled anew each epoch; with lengths, rows of one batch are of about one length."""
    for _ in range(epochs):
        order = torch.randperm(count)
        if lengths is not None:
            order = order[(lengths[order].float() * (1 + 0.1 * torch.rand(count))).argsort()]
        batches = [order[start : start + _BATCH] for start in range(0, count, _BATCH)]
        yield from (batches[place] for place in torch.randperm(len(batches)).tolist())


def _tokens(tokenizer: Any, code: str) -> list[int]:
    ids: list[int] = tokenizer(code, truncation=True, max_length=LENGTH)["input_ids"]
    return ids


def _padded(rows: list[list[int]]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=1)


def _optimizer(model: Any, rate: float, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(steps, 2), pct_start=0.06)


def _step(loss: Tensor, model: Any, optimizer: torch.optim.Optimizer, schedule: Any) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder for mlm/ and classifier/.")
@click.option("--functions", default=4000, show_default=True, help="Functions of each project, at most.")
@click.option("--epochs", default=2, show_default=True, help="Epochs of the masked language model.")
@click.option("--classifier-epochs", default=2, show_default=True, help="Epochs of the classifier.")
@click.option("--vocabulary", default=8192, show_default=True, help="Tokens of the BPE.")
@click.option("--hidden", default=128, show_default=True, help="Width.")
@click.option("--layers", default=2, show_default=True, help="Depth.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(
    out: Path,
    functions: int,
    epochs: int,
    classifier_epochs: int,
    vocabulary: int,
    hidden: int,
    layers: int,
    device: str,
    seed: int,
) -> None:
    """Train both models and write them with their accuracy."""
    refuse_taken(out, resumes=False)
    torch.set_num_threads(1)  # the order of summation, and with it the rounding, depends on the threads
    torch.manual_seed(seed)
    split = split_projects(functions)
    # In the order of the projects a block would be of one project, and so would a small corpus of the BPE.
    order = torch.randperm(len(split.training)).tolist()
    codes = [split.training[place][0].code for place in order]
    held_out = [function.code for function, _ in split.held_out]
    tokenizer = make_tokenizer(codes, vocabulary)
    out.mkdir(parents=True, exist_ok=True)

    mlm = train_mlm(tokenizer, codes, epochs=epochs, hidden=hidden, layers=layers, device=device)
    card: dict[str, object] = {
        "functions": len(codes),
        "parameters": sum(weight.numel() for weight in mlm.parameters()),
        "masked tokens right, held-out functions": mlm_accuracy(mlm, tokenizer, held_out),
    }
    for saved in (mlm, tokenizer):
        saved.save_pretrained(out / "mlm")
    classifier = train_classifier(tokenizer, mlm, split, epochs=classifier_epochs, device=device)
    card["project right, held-out functions"] = accuracy(classifier, tokenizer, split)
    for saved in (classifier, tokenizer):
        saved.save_pretrained(out / "classifier")
    text = json.dumps(card, indent=2) + "\n"
    (out / "card.json").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
