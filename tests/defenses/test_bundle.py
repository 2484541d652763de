"""Bundles: what was saved loads back as a target that answers the same; anything else is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import bbox
from bbox.defenses import bundle, make_defense
from bbox.defenses.base import Defense
from bbox.defenses.zo_ae_ds import ZOAEDS
from bbox.defenses.zo_ae_ds.networks import DENOISERS, Autoencoder, Purifier
from bbox.errors import InputError, UsageError
from tests.defenses.zo_ae_ds.boxes import images

DIGITS = bbox.data.load("zoo:digits").select(limit=6).inputs


def _purified() -> ZOAEDS:
    defense = ZOAEDS(dim=5, denoiser="dncnn")
    denoiser = DENOISERS["dncnn"](1)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    defense.purifier = Purifier(denoiser, Autoencoder((1, 28, 28), 5)).eval().requires_grad_(False)
    return defense


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    layers: list[tuple[str, Defense]] = [("zo-ae-ds", _purified()), ("coarsen", make_defense("coarsen", {"digits": 3}))]
    bundle.save(tmp_path / "run", layers, bbox.targets.load("zoo:digits"))
    return tmp_path / "run"


def test_a_bundle_loads_back_as_a_target_that_answers_the_same(saved: Path) -> None:
    _, layers = bundle.load_layers(saved)
    assert [name for name, _ in layers] == ["zo-ae-ds", "coarsen"]
    expected = bundle.wrap_all(bbox.targets.load("zoo:digits"), [defense for _, defense in layers])
    target = bbox.targets.load(f"defended:{saved}")
    assert torch.equal(target(DIGITS), expected(DIGITS))
    assert target.fingerprint() == expected.fingerprint()
    assert target.name == f"defended:{saved}"


def test_other_weights_have_another_fingerprint(tmp_path: Path) -> None:
    target = bbox.targets.load("zoo:digits")
    first, second = _purified(), _purified()
    assert second.purifier is not None
    next(second.purifier.parameters()).data += 1e-3
    assert first.wrap(target).fingerprint() != second.wrap(target).fingerprint()


def test_another_black_box_is_refused_unless_it_is_asked_for(saved: Path) -> None:
    content = json.loads((saved / "defense.json").read_text())
    content["target"]["fingerprint"] = "0" * 16
    (saved / "defense.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="not the black box that"):
        bbox.targets.load(f"defended:{saved}")
    assert bbox.targets.load(f"defended:{saved}", options={"same": "false"})(DIGITS).shape == (6, 10)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda run: (run / "defense.json").unlink(), "holds no defense.json"),
        (lambda run: (run / "defense.json").write_text("{"), "cannot be read"),
        (lambda run: (run / "defense.json").write_text("[]"), "not complete"),
        (lambda run: (run / "defense.json").write_text('{"schema_version": 9}'), "has schema 9"),
        (lambda run: (run / "0-zo-ae-ds.safetensors").unlink(), "cannot be read"),
        (lambda run: (run / "0-zo-ae-ds.safetensors").write_bytes(b"\0" * 40), "cannot be read"),
    ],
)
def test_a_damaged_bundle_is_refused(saved: Path, damage: object, told: str) -> None:
    damage(saved)  # type: ignore[operator]
    with pytest.raises(InputError, match=told):
        bbox.targets.load(f"defended:{saved}")


def test_weights_of_another_structure_are_refused(saved: Path) -> None:
    content = json.loads((saved / "defense.json").read_text())
    content["layers"][0]["options"]["dim"] = 6
    (saved / "defense.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="not those of this zo-ae-ds"):
        bbox.targets.load(f"defended:{saved}")


@pytest.mark.parametrize(
    ("text", "names"),
    [("noise", ["noise"]), ("jpeg+noise:sigma=0.05", ["jpeg", "noise"]), ("coarsen:digits=1", ["coarsen"])],
)
def test_stacks_are_read_from_text(text: str, names: list[str]) -> None:
    assert [name for name, _ in bundle.parse_stack(text)] == names


def test_a_bundle_is_part_of_a_stack(saved: Path) -> None:
    stack = bundle.parse_stack(f"defended:{saved}+noise")
    assert [name for name, _ in stack] == ["zo-ae-ds", "coarsen", "noise"]
    assert (
        bundle.wrap_all(bbox.targets.load("zoo:digits"), [d for _, d in stack])(images(2).new_zeros(2, 1, 28, 28))
        is not None
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nois", "did you mean 'noise'"),
        ("noise:sigma", "is no option"),
        ("noise:sigmo=1", "did you mean 'sigma'"),
        ("zo-ae-ds", "must be fitted"),
        ("", "unknown defense"),
        ("noise++jpeg", "unknown defense"),
    ],
)
def test_what_is_no_stack_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        bundle.parse_stack(text)
