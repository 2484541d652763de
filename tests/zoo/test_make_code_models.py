"""Training the small transformers, at toy size."""

import json

import pytest
import torch
from click.testing import CliRunner
from transformers.utils import logging

from bbox.code.program import Program, Programs
from bbox.targets import load
from bbox.zoo import make_code_models
from bbox.zoo.make_code_models import LENGTH, SPECIAL, _blocks, _mask, make_tokenizer

CODES = [f"def f{i}(value):\n    return value + {i}\n" for i in range(40)]


def test_tokenizer():
    tokenizer = make_tokenizer(CODES, 300)
    assert tokenizer.convert_ids_to_tokens(range(5)) == list(SPECIAL)
    single, pair = tokenizer("a = 1")["input_ids"], tokenizer("a", "b")["input_ids"]
    assert single[0] == 0 and single[-1] == 2 and pair.count(2) == 3
    assert tokenizer.decode(tokenizer(CODES[3], add_special_tokens=False)["input_ids"]) == CODES[3]
    assert tokenizer.get_vocab() == make_tokenizer(CODES, 300).get_vocab()


def test_blocks_and_masks():
    tokenizer = make_tokenizer(CODES, 300)
    blocks = _blocks(tokenizer, CODES * 20)
    assert blocks.shape[1] == LENGTH and (blocks[:, 0] == 0).all() and not (blocks == 1).any()
    torch.manual_seed(0)
    hidden, asked = _mask(blocks, len(tokenizer))
    assert torch.equal(hidden[~asked], blocks[~asked]) and not asked[blocks < len(SPECIAL)].any()
    changed = (hidden == SPECIAL.index("<mask>"))[asked].float().mean()
    assert 0.7 < changed < 0.9 and 0.1 < asked.float().mean() < 0.2


@pytest.fixture
def toy(monkeypatch):
    """120 functions, and no bars of transformers."""
    logging.disable_progress_bar()
    split = make_code_models.split_projects(20, 4)
    monkeypatch.setattr(make_code_models, "split_projects", lambda functions: split)


def test_command(toy, tmp_path):
    options = ["--hidden", "32", "--layers", "1", "--vocabulary", "400", "--epochs", "1"]
    for name in ("one", "two"):
        done = CliRunner().invoke(make_code_models.main, ["--out", str(tmp_path / name), *options])
        assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "one" / "card.json").read_text())["functions"] == 120
    target = load(f"hf-code:{tmp_path / 'one' / 'classifier'}", device="cpu")
    assert target.class_names == make_code_models.split_projects(0).classes and target.max_length == LENGTH
    assert target(Programs([Program(CODES[0], "python")])).shape == (1, 6)
    weights = [(tmp_path / name / "classifier" / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
