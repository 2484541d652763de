"""A prompted model on disk: what loads back answers the same to the last bit, and goes with attacks and defenses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import bbox
from bbox.defenses import bundle, make_defense
from bbox.defenses.blackvip import BlackVIP
from bbox.defenses.blackvip.encoders import make_encoder
from bbox.defenses.blackvip.prompt import Prompt
from bbox.defenses.label_mapping import LabelMapping
from bbox.errors import InputError, UsageError
from bbox.oracle import Oracle
from bbox.targets.base import Target
from tests.defenses.blackvip.boxes import QUICK, Meter, fitted, images
from tests.toys import Quadratic, attack, examples_of

DIGITS = bbox.data.load("zoo:digits").select(limit=30).inputs
SHAPE = (1, 28, 28)
WEIGHTS = "0-blackvip.safetensors"


def _digits(*, identity: bool = False, mapping: LabelMapping | None = None, **options: Any) -> BlackVIP:
    """A prompt for digits that nobody trained."""
    defense = BlackVIP(**{**QUICK, **options})
    encoder = make_encoder(defense.encoder, DIGITS, device="cpu")
    features = encoder(DIGITS)
    statistics = {"center": features.mean(0), "spread": features.std(0)} if defense.norm != "batch" else {}
    coordinator = defense.make_coordinator(encoder, SHAPE, **statistics)
    weights = coordinator.start(0)
    weights += 0.1 * torch.randn(len(weights), generator=torch.Generator().manual_seed(1))
    seen = None if identity else coordinator.statistics(weights, DIGITS, coordinator.context(DIGITS))
    defense.prompt = Prompt(coordinator, weights, seen, mapping, identity, SHAPE, (1234, 56))
    return defense


def _save(folder: Path, defense: BlackVIP) -> Target:
    """Save it, and give what it was."""
    target = bbox.targets.load("zoo:digits")
    bundle.save(folder, [("blackvip", defense)], target)
    return defense.wrap(target)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "batch", "init": "random"},
        {"norm": "none", "scale": 0.3, "trigger_scale": 1.0},
        {"backend": "loop"},
        {"identity": True},
        {"identity": True, "norm": "batch"},
        {"mapping": LabelMapping((3, 1, 9), 10)},
    ],
    ids=str,
)
def test_a_prompted_model_loads_back_and_answers_the_same_to_the_last_bit(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    expected = _save(tmp_path, _digits(**options))
    target = bbox.targets.load(f"defended:{tmp_path}")
    answers = target(DIGITS)
    assert torch.equal(answers, expected(DIGITS))
    assert torch.equal(target(DIGITS[:1]), expected(DIGITS[:1]))
    assert target.fingerprint() == expected.fingerprint()
    assert target.num_classes == expected.num_classes == answers.shape[1]
    bare = bbox.targets.load("zoo:digits")(DIGITS)
    if options.get("identity"):
        assert torch.equal(answers, bare)
    elif "mapping" not in options:
        assert not torch.allclose(answers, bare, atol=1e-3)


def test_what_the_fit_has_cost_is_kept(tmp_path: Path) -> None:
    _save(tmp_path, _digits())
    ((_, defense),) = bundle.load_layers(tmp_path)[1]
    assert isinstance(defense, BlackVIP) and defense.prompt is not None and defense.prompt.cost == (1234, 56)
    assert {name: getattr(defense, name) for name in QUICK} == QUICK


def test_one_row_alone_is_answered_as_in_a_batch(tmp_path: Path) -> None:
    """Batch norms serve with what they have seen in training, not with the rows beside."""
    for norm in ("group", "batch"):
        _save(tmp_path / norm, _digits(norm=norm))
        target = bbox.targets.load(f"defended:{tmp_path / norm}")
        alone = torch.cat([target(row[None]) for row in DIGITS[:6]])
        torch.testing.assert_close(alone, target(DIGITS)[:6], atol=1e-4, rtol=1e-4)


def test_a_fitted_prompt_goes_the_whole_way() -> None:
    """From the fit to its state, through JSON and safetensors, to the same answers."""
    rows, labels = images(40)
    black_box = Meter()
    defense = BlackVIP(**QUICK)
    defense.fit(Oracle(black_box), rows, labels, budget=800)
    structure, tensors = defense.state()
    again = BlackVIP(**QUICK)
    again.restore(json.loads(json.dumps(structure)), safetensors.torch.load(safetensors.torch.save(dict(tensors))))
    assert torch.equal(again.wrap(black_box)(rows), defense.wrap(black_box)(rows))
    assert again.wrap(black_box).fingerprint() == defense.wrap(black_box).fingerprint()


# --- fingerprints ----------------------------------------------------------------------------------------------------


def _changed(change: Callable[[BlackVIP, Prompt], Prompt | None]) -> str:
    defense = _digits()
    assert defense.prompt is not None
    changed = change(defense, defense.prompt)
    if changed is not None:
        defense.prompt = changed
    return defense.wrap(bbox.targets.load("zoo:digits")).fingerprint()


def _moved(weights: Tensor) -> Tensor:
    moved = weights.clone()
    moved[-1] += 1e-6
    return moved


def _scaled(defense: BlackVIP, _: Prompt) -> None:
    defense.scale = 0.5


def _encoder(_: BlackVIP, prompt: Prompt) -> None:
    prompt.coordinator.encoder.components[0, 0] += 1e-3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "change",
    [
        lambda _, prompt: replace(prompt, weights=_moved(prompt.weights)),
        lambda _, prompt: replace(prompt, identity=True),
        lambda _, prompt: replace(prompt, mapping=LabelMapping((1, 0), 10)),
        _scaled,
        _encoder,
    ],
    ids=["weights", "identity", "mapping", "scale", "encoder"],
)
def test_what_answers_otherwise_has_another_fingerprint(change: Callable[[BlackVIP, Prompt], Prompt | None]) -> None:
    plain = _changed(lambda *_: None)
    assert plain == _changed(lambda *_: None)
    assert _changed(change) != plain


def test_two_mappings_have_two_fingerprints() -> None:
    one, other = (
        _changed(lambda _, prompt, order=order: replace(prompt, mapping=LabelMapping(order, 10)))
        for order in ((1, 0), (0, 1))
    )
    assert one != other


# --- refusals --------------------------------------------------------------------------------------------------------


def _rewrite(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    change(tensors)
    safetensors.torch.save_file(tensors, folder / WEIGHTS)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.update(weights=tensors["weights"][:-1].clone()),
        lambda tensors: tensors.pop("weights"),
        lambda tensors: tensors.pop("encoder.components"),
        lambda tensors: tensors.update({"encoder.components": tensors["encoder.components"][:3].clone()}),
        lambda tensors: tensors.update(center=tensors["center"][:2].clone()),
        lambda tensors: tensors.pop("spread"),
    ],
    ids=["short", "no weights", "no components", "few components", "short center", "no spread"],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    _save(tmp_path, _digits())
    _rewrite(tmp_path, change)
    with pytest.raises(InputError, match=r"\S"):
        bbox.targets.load(f"defended:{tmp_path}")


def test_batch_norms_without_their_statistics_are_refused(tmp_path: Path) -> None:
    """They would take those of the rows that come together, so that an answer depends on the rows beside it."""
    _save(tmp_path, _digits(norm="batch"))
    _rewrite(tmp_path, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("norm")])
    with pytest.raises(InputError, match="not those of this blackvip"):
        bbox.targets.load(f"defended:{tmp_path}")


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer["options"].update(norm="none"),
        lambda layer: layer["structure"].pop("encoder"),
        lambda layer: layer["structure"].update(shape=[1, 28]),
        lambda layer: layer["structure"].update(shape=[3, 28, 28]),
        lambda layer: layer["structure"].update(mapping={"sources": [1, 1], "num_source": 10}),
    ],
    ids=["norm", "no encoder", "flat", "channels", "mapping"],
)
def test_a_structure_that_does_not_fit_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    _save(tmp_path, _digits())
    content = json.loads((tmp_path / "defense.json").read_text())
    change(content["layers"][0])
    (tmp_path / "defense.json").write_text(json.dumps(content))
    with pytest.raises((InputError, UsageError), match=r"\S"):
        bbox.targets.load(f"defended:{tmp_path}")


def test_an_encoder_that_lives_in_memory_cannot_be_kept_in_a_bundle(tmp_path: Path) -> None:
    """One line, and the library's user restores it with the module at hand."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 5))
    defense = _digits(encoder=module)
    with pytest.raises(UsageError, match="encoder"):
        _save(tmp_path, defense)
    structure, tensors = defense.state()
    again = BlackVIP(**{**QUICK, "encoder": module})
    again.restore(json.loads(json.dumps(structure)), tensors)
    target = bbox.targets.load("zoo:digits")
    assert torch.equal(again.wrap(target)(DIGITS), defense.wrap(target)(DIGITS))


# --- composition -----------------------------------------------------------------------------------------------------


def test_it_stands_in_a_stack_with_other_defenses(tmp_path: Path) -> None:
    _save(tmp_path, _digits())
    stack = bundle.parse_stack(f"defended:{tmp_path}+jpeg+noise:sigma=0.01")
    assert [name for name, _ in stack] == ["blackvip", "jpeg", "noise"]
    bare = bbox.targets.load("zoo:digits")
    target = bundle.wrap_all(bare, [defense for _, defense in stack])
    assert target(DIGITS).shape == (30, 10) and not target.deterministic
    jpeg = make_defense("jpeg", {})
    both = bundle.wrap_all(bare, [stack[0][1], jpeg])
    # The last defense of a stack sees the row first: compressed, then prompted.
    rows: list[Tensor] = []
    jpeg.wrap(Seen(rows))(DIGITS)
    assert torch.equal(both(DIGITS), stack[0][1].wrap(bare)(rows[0]))


class Seen(Target):
    """Keeps what it is asked."""

    def __init__(self, rows: list[Tensor]) -> None:
        self.name, self.num_classes, self.input_shape, self.rows = "seen", 10, SHAPE, rows

    def __call__(self, rows: Tensor) -> Tensor:
        self.rows.append(rows.clone())
        return torch.zeros(len(rows), 10)

    def fingerprint(self) -> str:
        return self.name


def test_the_prompted_model_is_attacked_end_to_end() -> None:
    """CGBA gets a row that fools the black box behind the prompt, and pays for every query of it."""
    inner = Quadratic()
    target = fitted(scale=0.05).wrap(inner)
    examples = examples_of(inner, 4)
    right = Oracle(target).ask(examples.inputs, "clean").labels == examples.labels
    inner.rows = 0
    oracle = Oracle(target, max_batch=16)
    found = attack("cgba", target, examples, 120, indices=right.nonzero().flatten().tolist(), oracle=oracle)
    assert found
    assert inner.rows == oracle.books["attack"].queries + oracle.books["verify"].queries
    assert 0 < oracle.books["attack"].queries <= 120 * len(found)
    for index, outcome in found.items():
        assert outcome.spent <= 120 and 0 < outcome.distance < float("inf")
        assert int(target(outcome.best[None]).argmax()) != int(examples.labels[index])
