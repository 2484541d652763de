"""Attacks by name; options as text or Python objects; errors that say what to write instead."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bbox.attacks import ATTACKS, Attack, attack_class, make_attack
from bbox.attacks.options import describe
from bbox.errors import UsageError


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_registered_attack_can_be_made_and_described(name: str) -> None:
    made = make_attack(name)
    assert isinstance(made, Attack) and isinstance(made, attack_class(name))
    fields, presets, summary = describe(name)
    assert all(getattr(made, field) == default and told for field, (default, told) in fields.items())
    assert summary and "\n" not in summary
    for preset in presets:
        assert isinstance(make_attack(name, {"preset": preset}), Attack)


@pytest.mark.parametrize(
    ("option", "value", "read"),
    [
        ("initial_queries", "20", 20),
        ("initial_queries", 20, 20),
        ("step", "0.05", 0.05),
        ("step", 1, 1.0),
        ("tangent", "false", False),
        ("tangent", "No", False),
        ("tangent", "1", True),
        ("center", True, True),
        ("start", "pool", "pool"),
    ],
)
def test_values_are_read_by_the_fields_type(option: str, value: object, read: object) -> None:
    found = getattr(make_attack("cgba", {option: value}), option)
    assert found == read and type(found) is type(read)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("cgbah", {}, ("unknown attack 'cgbah'", "did you mean 'cgba")),
        ("cgba", {"initial_querys": "3"}, ("no option 'initial_querys'", "did you mean 'initial_queries'")),
        ("cgba", {"initial_queries": "many"}, ("'many'", "an integer")),
        ("cgba", {"initial_queries": "2.5"}, ("'2.5'", "an integer")),
        ("cgba", {"initial_queries": 2.5}, ("2.5", "an integer")),
        ("cgba", {"initial_queries": True}, ("True", "an integer")),
        ("cgba", {"initial_queries": "0"}, ("0", "at least 1")),
        ("cgba", {"step": "0"}, ("0", "more than 0")),
        ("cgba", {"step": "nan"}, ("'nan'", "a number")),
        ("cgba", {"step": "inf"}, ("'inf'", "a number")),
        ("cgba", {"step": "wide"}, ("'wide'", "a number")),
        ("cgba", {"subspace_factor": "0.5"}, ("0.5", "at least 1")),
        ("cgba", {"tangent": "maybe"}, ("'maybe'", "true or false")),
        ("cgba", {"start": "moon"}, ("'moon'", "auto, noise, image, pool")),
        ("cgba", {"preset": "papers"}, ("no preset 'papers'", "paper")),
        ("foolbox:HopSkipJump", {}, ("no attack 'HopSkipJump'", "did you mean 'HopSkipJumpAttack'")),
        ("foolbox:HopSkipJumpAttack", {"step": "3"}, ("no option 'step'", "steps")),
        ("foolbox:HopSkipJumpAttack", {"steps": "x"}, ("'x'", "an integer")),
        ("foolbox:L2AdditiveGaussianNoiseAttack", {}, ("give epsilon",)),
        ("foolbox:", {}, ("no attack ''",)),
    ],
)
def test_a_wrong_option_is_one_line_that_helps(name: str, options: dict, words: tuple) -> None:
    with pytest.raises(UsageError) as caught:
        make_attack(name, options)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"absolute_step": "-1"},
        {"absolute_tolerance": "-1"},
        {"start_noise": "-0.1"},
        {"start_noise": "0"},
        {"subspace_growth": "-0.5"},
        {"subspace_growth": "3"},
        {"start_candidates": "0"},
        {"start_candidates": "-2"},
    ],
)
def test_numbers_without_a_meaning_are_refused(options: dict) -> None:
    with pytest.raises(UsageError, match="expected"):
        make_attack("cgba", options)


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, bbox.attacks; bbox.attacks.ATTACKS.names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
