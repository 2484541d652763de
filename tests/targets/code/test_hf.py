"""hf-code: against transformers' own forward, row by row."""

import pytest
import torch
from code_models import CODES, PAIRS, SINGLES, config, save_classifier, tokenizer, wide
from torch import nn
from transformers import RobertaForMaskedLM, RobertaForSequenceClassification, RobertaModel

from bbox.errors import InputError, UsageError
from bbox.targets import load
from bbox.targets.code.hf import _chunks


def test_single(tmp_path):
    names = {0: "left", 1: "middle", 2: "right"}
    model, words = save_classifier(tmp_path, num_labels=3, id2label=names)
    target = load(f"hf-code:{tmp_path}", device="cpu")
    with torch.no_grad():
        expected = torch.cat(
            [
                model(**words(code, return_tensors="pt", truncation=True, max_length=64)).logits.softmax(1)
                for code in CODES
            ]
        )
    torch.testing.assert_close(target(SINGLES), expected, atol=1e-6, rtol=0)
    assert expected.std(0).max() > 1e-3  # the rows do differ
    assert target.class_names == ("left", "middle", "right") and target.num_classes == 3
    assert target.max_length == 64 and target.takes == "code"


def test_pairs(tmp_path):
    model, words = save_classifier(tmp_path, num_labels=2)
    target = load(f"hf-code:{tmp_path}", options={"pairs": "true"}, device="cpu")
    with torch.no_grad():
        expected = torch.cat(
            [
                model(
                    **words(row.code, row.partner, return_tensors="pt", truncation=True, max_length=64)
                ).logits.softmax(1)
                for row in PAIRS
            ]
        )
    torch.testing.assert_close(target(PAIRS), expected, atol=1e-6, rtol=0)
    assert target.class_names is None
    with pytest.raises(InputError, match="reads pairs of programs, and the data hold single ones"):
        target(SINGLES)


def test_sigmoid(tmp_path):
    model, words = save_classifier(tmp_path, num_labels=1)
    target = load(f"hf-code:{tmp_path}", options={"max_length": 20}, device="cpu")
    with torch.no_grad():
        share = torch.cat(
            [
                model(**words(code, return_tensors="pt", truncation=True, max_length=20)).logits.sigmoid()
                for code in CODES
            ]
        )
    torch.testing.assert_close(target(SINGLES), torch.cat([1 - share, share], 1), atol=1e-6, rtol=0)
    with pytest.raises(UsageError, match="answers 1 logits, which is no head=softmax; give head=sigmoid"):
        load(f"hf-code:{tmp_path}", options={"head": "softmax"}, device="cpu")


def test_fingerprint(tmp_path):
    save_classifier(tmp_path, num_labels=2)
    spec = f"hf-code:{tmp_path}"
    prints = {load(spec, options=options, device="cpu").fingerprint() for options in ({}, {}, {"max_length": 9})}
    assert len(prints) == 2


def test_chunks_hold_every_row_once():
    lengths = [5, 500, 7, 480, 6, 400, 300]
    chunks = list(_chunks(lengths))
    assert sorted(place for chunk in chunks for place in chunk) == list(range(7))
    assert all(min(lengths[p] for p in chunk) >= 0.75 * max(lengths[p] for p in chunk) for chunk in chunks)


class Head(nn.Module):
    """As CodeXGLUE's scripts have it."""

    def __init__(self, hidden, classes, programs):
        super().__init__()
        self.dense = nn.Linear(hidden * programs, hidden)
        self.out_proj = nn.Linear(hidden, classes)


class Wrapper(nn.Module):
    """The state that those scripts save; forward with everything padded to one length, as they do."""

    def __init__(self, encoder, hidden, classes, programs):
        super().__init__()
        self.encoder = encoder
        self.classifier = Head(hidden, classes, programs)
        self.programs = programs

    def forward(self, ids):
        states = self.encoder(
            ids.view(-1, ids.shape[1] // self.programs),
            attention_mask=ids.view(-1, ids.shape[1] // self.programs).ne(1),
        )[0][:, 0]
        hidden = torch.tanh(self.classifier.dense(states.reshape(len(ids), -1)))
        return self.classifier.out_proj(hidden)


def padded(words, code, length, join):
    text = " ".join(code.split()) if join else code
    ids = [0, *words.convert_tokens_to_ids(words.tokenize(text)[: length - 2]), 2]
    return ids + [1] * (length - len(ids))


@pytest.fixture
def folder(tmp_path):
    """Configuration and tokenizer alone."""
    words = tokenizer()
    words.save_pretrained(tmp_path)
    config(len(words)).save_pretrained(tmp_path)
    return tmp_path, words


def test_defect_checkpoint(folder):
    path, words = folder
    inner = wide(RobertaForSequenceClassification(config(len(words), num_labels=1)))
    torch.save({f"module.encoder.{key}": value for key, value in inner.state_dict().items()}, path / "model.bin")
    target = load(f"hf-code:{path}", options={"checkpoint": str(path / "model.bin"), "task": "defect"}, device="cpu")
    ids = torch.tensor([padded(words, code, 64, join=True) for code in CODES])
    with torch.no_grad():
        share = inner(ids, attention_mask=ids.ne(1)).logits.sigmoid()
    torch.testing.assert_close(target(SINGLES), torch.cat([1 - share, share], 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("task", "classes", "programs"), [("clone", 2, 2), ("authorship", 5, 1)])
def test_wrapped_checkpoint(folder, task, classes, programs):
    path, words = folder
    wrapper = wide(Wrapper(RobertaModel(config(len(words))), 16, classes, programs))
    torch.save(wrapper.state_dict(), path / "model.bin")
    target = load(f"hf-code:{path}", options={"checkpoint": str(path / "model.bin"), "task": task}, device="cpu")
    rows = PAIRS if programs == 2 else SINGLES
    ids = torch.tensor(
        [
            [token for part in (row.code, row.partner)[:programs] for token in padded(words, part, 64, programs == 2)]
            for row in rows
        ]
    )
    with torch.no_grad():
        expected = wrapper(ids).softmax(1)
    assert target.pairs == (programs == 2) and target.num_classes == classes
    torch.testing.assert_close(target(rows), expected, atol=1e-6, rtol=0)
    wrong = {"clone": "authorship", "authorship": "defect"}[task]
    with pytest.raises(InputError, match=f"is no checkpoint of task={wrong}: its head has {classes} classes"):
        load(f"hf-code:{path}", options={"checkpoint": str(path / "model.bin"), "task": wrong}, device="cpu")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"task": "defect"}, UsageError, "checkpoint=FILE and task=.* go together"),
        ({"task": "clone", "checkpoint": "x", "pairs": "true"}, UsageError, "task=clone says pairs itself"),
        ({"task": "defect", "checkpoint": "gone.bin"}, InputError, "gone.bin: no such file"),
        ({"max_length": 65}, UsageError, "max_length=65, and the model takes 64 tokens"),
        ({"max_lenght": 9}, UsageError, "no option 'max_lenght'; did you mean 'max_length'"),
        ({"dtype": "float16"}, UsageError, "dtype=float16 is for CUDA, and the device is cpu"),
        ({"pairs": "maybe"}, UsageError, "pairs is 'maybe', expected true or false"),
    ],
)
def test_refused_options(tmp_path, options, error, message):
    save_classifier(tmp_path, num_labels=2)
    with pytest.raises(error, match=message):
        load(f"hf-code:{tmp_path}", options=options, device="cpu")


def test_refused_files(folder):
    path, words = folder
    RobertaForMaskedLM(config(len(words))).save_pretrained(path)
    with pytest.raises(InputError, match=r"lacks \d+ weights of the model, for example 'classifier.*not trained"):
        load(f"hf-code:{path}", device="cpu")
    given = {"checkpoint": str(path / "model.bin"), "task": "authorship"}
    torch.save({"weights": len}, path / "model.bin")  # a pickle with a function in it
    with pytest.raises(InputError, match=r"model.bin is no plain file of tensors"):
        load(f"hf-code:{path}", options=given, device="cpu")
    torch.save({"weights": torch.zeros(2)}, path / "model.bin")
    with pytest.raises(InputError, match=r"has no classifier.out_proj.weight"):
        load(f"hf-code:{path}", options=given, device="cpu")
    with pytest.raises(UsageError, match="no such folder"):
        load("hf-code:./gone", device="cpu")
