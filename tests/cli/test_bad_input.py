"""Whatever is wrong: one clear line on stderr, the right exit code, and nothing lost."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.conftest import Ended

USAGE, TARGET, REFUSED = 2, 3, 4

MODELS = """
import torch

def good(rows):
    return torch.stack([0.5 - rows[:, 0, 0, 0], rows[:, 0, 0, 0] - 0.5], 1)

def three_axes(rows):
    return rows

def a_dict(rows):
    return {"answer": 0}

def wrong_count(rows):
    return torch.zeros(len(rows) + 1, 3)

def raises(rows):
    raise RuntimeError("no such layer\\nsecond line")

calls = 0

def dies_later(rows):
    global calls
    calls += len(rows)
    if calls > 300:
        raise ConnectionError("the server went away")
    return good(rows)

not_callable = 3

def module_needs_argument(width):
    return torch.nn.Linear(width, 2)
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with every kind of bad file."""
    rng = np.random.default_rng(0)
    good = rng.random((3, 1, 28, 28), dtype=np.float32)
    (tmp_path / "models_here.py").write_text(textwrap.dedent(MODELS))
    np.savez(tmp_path / "good.npz", inputs=good, labels=(good[:, 0, 0, 0] > 0.5).astype(np.int64))
    np.savez(tmp_path / "to255.npz", inputs=good * 255, labels=np.array([0, 1, 1]))
    np.savez(tmp_path / "label99.npz", inputs=good, labels=np.array([0, 1, 99]))
    np.savez(tmp_path / "short.npz", inputs=good, labels=np.array([0, 1]))
    np.savez(tmp_path / "negative.npz", inputs=good, labels=np.array([0, -1, 1]))
    np.savez(tmp_path / "color.npz", inputs=rng.random((3, 3, 28, 28), dtype=np.float32), labels=np.array([0, 1, 1]))
    np.savez(tmp_path / "size.npz", inputs=rng.random((3, 1, 20, 28), dtype=np.float32), labels=np.array([0, 1, 1]))
    np.savez(tmp_path / "flat.npz", inputs=good.reshape(3, -1), labels=np.array([0, 1, 1]))
    np.savez(tmp_path / "nothing.npz", inputs=good[:0], labels=np.array([], dtype=np.int64))
    np.savez(tmp_path / "names.npz", some=good)
    bad = good.copy()
    bad[1, 0, 3, 3] = np.nan
    np.savez(tmp_path / "nan.npz", inputs=bad, labels=np.array([0, 1, 1]))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 but not a zip file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed" / "0").mkdir(parents=True)
    Image.new("L", (28, 28)).save(tmp_path / "mixed" / "0" / "a.png")
    Image.new("L", (30, 28)).save(tmp_path / "mixed" / "0" / "b.png")
    (tmp_path / "torn" / "0").mkdir(parents=True)
    (tmp_path / "torn" / "0" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (tmp_path / "model.pt2").write_bytes(b"not an archive")
    torch.save(torch.nn.Flatten(), tmp_path / "whole.pt")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("years of work")
    return tmp_path


GOOD = ("--target", "python:models_here:good", "--data", "good.npz")

CASES: dict[str, tuple[tuple[str, ...], int, str]] = {
    # the command line itself
    "unknown command": (("atack", "cgba"), USAGE, "did you mean 'attack'"),
    "no attack named": (("attack",), USAGE, "name an attack"),
    "unknown attack": (("attack", "cgab"), USAGE, "did you mean 'cgba'"),
    "unknown foolbox attack": (("attack", "foolbox:HopSkipJump"), USAGE, "did you mean 'HopSkipJumpAttack'"),
    "foolbox attack with gradients": (("attack", "foolbox:L2DeepFoolAttack", *GOOD), USAGE, "gradient"),
    "unknown option": (("attack", "cgba", "--bugdet", "10"), USAGE, "--budget"),
    "option without value": (("attack", "cgba", "--budget"), USAGE, "requires an argument"),
    "word for a number": (("attack", "cgba", "--budget", "many"), USAGE, "not a valid integer"),
    "no budget": (("attack", "cgba", "--budget", "0"), USAGE, "budget is 0"),
    "negative budget": (("attack", "cgba", "--budget", "-5"), USAGE, "budget is -5"),
    "no run-wide budget": (("attack", "cgba", "--max-queries", "0"), USAGE, "max_queries is 0"),
    "negative limit": (("attack", "cgba", "--limit", "-1"), USAGE, "limit is -1"),
    "linf": (("attack", "cgba", "--norm", "linf"), USAGE, "linf"),
    "unknown norm": (("attack", "cgba", "--norm", "l7"), USAGE, "l7"),
    "epsilon of zero": (("attack", "cgba", "--epsilon", "0"), USAGE, "epsilon is 0"),
    "epsilon not a number": (("attack", "cgba", "--epsilon", "nan"), USAGE, "epsilon is nan"),
    "checkpoint of zero": (("attack", "cgba", "--checkpoint", "0"), USAGE, "checkpoint is 0"),
    "indices that are none": (("attack", "cgba", "--indices", "3,x"), USAGE, "'x'"),
    "indices backwards": (("attack", "cgba", "--indices", "9-3"), USAGE, "backwards"),
    "index beyond the data": (("attack", "cgba", "--indices", "100000"), USAGE, "100000"),
    "index twice": (("attack", "cgba", "--indices", "3,3"), USAGE, "twice"),
    "attack option not a number": (("attack", "cgba", "--step", "wide"), USAGE, "step"),
    "attack option out of range": (("attack", "cgba", "--step", "-1"), USAGE, "step is -1"),
    "attack option infinite": (("attack", "cgba", "--step", "inf"), USAGE, "step"),
    "unknown preset": (("attack", "cgba", "--preset", "papr"), USAGE, "paper"),
    "unknown start": (("attack", "cgba", "--start", "middle"), USAGE, "'middle'"),
    "set without value": (("attack", "cgba", "--set", "width"), USAGE, "KEY=VALUE"),
    "unknown set": (("attack", "cgba", *GOOD, "--set", "widht=3"), USAGE, "widht"),
    "target class not a class": (("attack", "cgba", "--target-class", "cat"), USAGE, "'cat'"),
    "target class beyond": (("attack", "cgba", "--target-class", "10"), USAGE, "10"),
    "quantize of 7 bits": (("attack", "cgba", "--quantize", "7bit"), USAGE, "8bit"),
    "unknown device": (("attack", "cgba", "--device", "tpu"), USAGE, "tpu"),
    "no such start image": (("attack", "cgba", "--start-from", "nowhere.png"), REFUSED, "nowhere.png"),
    "unknown kind in list": (("list", "models"), USAGE, "models"),
    # targets
    "unknown kind of target": (("attack", "cgba", "--target", "torhc:a.b:c"), USAGE, "did you mean 'torch'"),
    "unknown zoo target": (("attack", "cgba", "--target", "zoo:digit"), USAGE, "did you mean 'digits'"),
    "module that is not there": (("attack", "cgba", "--target", "torch:no_such:thing"), USAGE, "no_such"),
    "function that is not there": (("attack", "cgba", "--target", "python:models_here:god"), USAGE, "god"),
    "target that is a number": (("attack", "cgba", "--target", "python:models_here:not_callable"), USAGE, "callable"),
    "factory that lacks an argument": (("attack", "cgba", "--target", "torch:models_here:module_needs_argument"), USAGE, "width"),
    "weights that are not there": (("attack", "cgba", "--target", "torchvision:resnet18", "--set", "weights=no.pt"), REFUSED, "no.pt"),
    "weights of another model": (("attack", "cgba", "--target", "torchvision:resnet18", "--set", "weights=other.pt"), REFUSED, "other.pt"),
    "no weights given": (("attack", "cgba", "--target", "torchvision:resnet18"), USAGE, "weights"),
    "a pickle without trust": (("attack", "cgba", "--target", "whole.pt"), REFUSED, "--trust"),
    "a broken archive": (("attack", "cgba", "--target", "model.pt2"), REFUSED, "model.pt2"),
    "target that answers a dict": (("attack", "cgba", "--target", "python:models_here:a_dict", "--data", "good.npz"), REFUSED, "dict"),
    "target that answers images": (("attack", "cgba", "--target", "python:models_here:three_axes", "--data", "good.npz"), REFUSED, "three_axes"),
    "target that answers too many": (("attack", "cgba", "--target", "python:models_here:wrong_count", "--data", "good.npz"), REFUSED, "wrong_count"),
    "target that raises": (("attack", "cgba", "--target", "python:models_here:raises", "--data", "good.npz"), REFUSED, "no such layer"),
    "target that dies on the way": (("attack", "cgba", "--target", "python:models_here:dies_later", "--data", "good.npz", "--max-batch", "8", "--threads", "1"), TARGET, "went away"),
    # data
    "data that is not there": (("attack", "cgba", "--data", "nowhere"), REFUSED, "nowhere"),
    "unknown zoo data": (("attack", "cgba", "--data", "zoo:digitz"), USAGE, "did you mean"),
    "empty folder": (("attack", "cgba", "--data", "empty"), REFUSED, "empty"),
    "images of two sizes": (("attack", "cgba", "--data", "mixed"), REFUSED, "--image-size"),
    "a torn image": (("attack", "cgba", "--data", "torn"), REFUSED, "a.png"),
    "a broken archive of data": (("attack", "cgba", "--data", "broken.npz"), REFUSED, "broken.npz"),
    "arrays of unknown names": (("attack", "cgba", "--data", "names.npz"), REFUSED, "some"),
    "pixels to 255": (("attack", "cgba", "--data", "to255.npz"), REFUSED, "divide by 255"),
    "a pixel that is nan": (("attack", "cgba", "--data", "nan.npz"), REFUSED, "finite"),
    "too few labels": (("attack", "cgba", "--data", "short.npz"), REFUSED, "3 images but 2 labels"),
    "a negative label": (("attack", "cgba", "--data", "negative.npz"), REFUSED, "-1"),
    "a label beyond the classes": (("attack", "cgba", "--data", "label99.npz"), REFUSED, "99"),
    "images of another channel count": (("attack", "cgba", "--data", "color.npz"), REFUSED, "(3, 28, 28)"),
    "images of another size": (("attack", "cgba", "--data", "size.npz"), REFUSED, "--image-size"),
    "images that are flat": (("attack", "cgba", "--data", "flat.npz"), REFUSED, "(3, 784)"),
    "no images": (("attack", "cgba", "--data", "nothing.npz"), REFUSED, "no images"),
    # run folders
    "out that is in use": (("attack", "cgba", "--out", "used"), USAGE, "used exists"),
    "out that is a file": (("attack", "cgba", "--out", "good.npz"), USAGE, "good.npz exists"),
    "resume of nothing": (("attack", "--resume", "nowhere"), REFUSED, "not a run folder"),
    "resume of another folder": (("attack", "--resume", "used"), REFUSED, "not a run folder"),
    "show of nothing": (("show", "nowhere"), REFUSED, "not a run folder"),
    "validate of a bad target": (("validate", "cgba", "--target", "zoo:digit"), USAGE, "did you mean"),
    "validate of a bad option": (("validate", "cgba", "--option", "stepp=1"), USAGE, "did you mean 'step'"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_the_right_code(name: str, bbox: Callable[..., Ended], files: Path) -> None:
    words, code, needle = CASES[name]
    before = {p: p.read_bytes() for p in files.rglob("*") if p.is_file()}
    ended = bbox(*words)
    lines = [line for line in ended.err.splitlines() if line.startswith("bbox: ")]
    assert ended.code == code, ended.err
    assert len(lines) == 1, ended.err
    assert needle in lines[0]
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert {p: p.read_bytes() for p in before} == before


def test_a_run_folder_in_use_is_left_as_it_was(bbox: Callable[..., Ended], files: Path) -> None:
    first = bbox("attack", "cgba", *GOOD, "--budget", "20", "--out", "run", "--quiet", "--no-report")
    assert first.code == 0
    before = {p: p.read_bytes() for p in (files / "run").rglob("*") if p.is_file()}
    again = bbox("attack", "cgba", *GOOD, "--budget", "30", "--out", "run")
    assert again.code == USAGE
    assert {p: p.read_bytes() for p in (files / "run").rglob("*") if p.is_file()} == before


def test_a_dead_target_keeps_the_run(bbox: Callable[..., Ended], files: Path) -> None:
    dies = ("--target", "python:models_here:dies_later", "--data", "good.npz", "--max-batch", "8", "--threads", "1")
    assert bbox("attack", "cgba", *dies, "--out", "run").code == TARGET
    shown = bbox("show", "run")
    assert shown.code == 0
    assert "not complete" in shown.err
