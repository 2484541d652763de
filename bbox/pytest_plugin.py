"""pytest plugin: a robustness assertion in three lines of a user's own test suite.

    @pytest.mark.bbox(attack="cgba", budget=300, epsilon=1.0)
    def test_robust(bbox_check):
        bbox_check(model, images, labels, robust_accuracy=0.6)

Every pytest run loads this module, so it imports no more than pytest; torch comes with the first check.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

__all__ = ["BboxCheck", "bbox_check", "pytest_addoption", "pytest_configure"]

_GATES = ("tolerance", "distance_tolerance", "alpha")
# What a test says of its runs: fields of ``bbox.results.records.Config``, and how they are written here.
_FIELDS = {
    "budget": "budget",
    "epsilon": "epsilons",
    "checkpoints": "checkpoints",
    "seed": "seed",
    "limit": "limit",
    "indices": "indices",
    "norm": "norm",
    "quantize": "quantize",
    "image_size": "image_size",
    "target_options": "target_options",
    "max_batch": "max_batch",
    "device": "device",
    "trust": "trust",
    "patience": "patience",
    "max_requests": "max_requests",
    "cache": "cache",
}
_OTHERS = ("attack", "data", "baseline", "robust_accuracy", *_GATES)
_QUESTION = ("budget", "epsilons", "checkpoints", "seed", "limit", "indices", "norm", "quantize")
_LISTED = 10
_LONGEST = 200  # bytes of a folder's name; file systems take 255


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bbox", "robustness checks of bbox")
    group.addoption("--bbox-out", metavar="DIR", help="Keep the runs and adversarial images of bbox_check here.")
    group.addoption("--bbox-update", action="store_true", help="Write the baselines that bbox_check names anew.")


def pytest_configure(config: pytest.Config) -> None:
    words = ", ".join((*_OTHERS, *_FIELDS))
    config.addinivalue_line("markers", f"bbox({words}): what bbox_check attacks with in this test")


@pytest.fixture
def bbox_check(request: pytest.FixtureRequest) -> BboxCheck:
    """Attacks a model and fails the test where its robust accuracy is below a floor, or below its baseline."""
    return BboxCheck(request)


class BboxCheck:
    """What the fixture ``bbox_check`` gives: a function that remembers its test."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request

    def __call__(self, model: Any, inputs: Any = None, labels: Any = None, **options: Any) -> dict[str, Any]:
        """Attack a model and fail the test where it is less robust than it should be.

        Args:
            model: a torch module, a callable, a ``bbox.Target``, or a spec such as ``"torch:my.module:factory"``.
            inputs: (n, channels, height, width) in [0, 1] with ``labels`` (n,); or leave both out and give ``data``.
            data: a data spec or a ``bbox.Dataset``.
            attack: a name with options, or several; default ``"cgba"``.
            epsilon: a distance, or several where there is a baseline.
            robust_accuracy: a floor, in (0, 1]: the test fails where an exact binomial test at level ``alpha`` refutes
                it, that is where the upper Clopper-Pearson bound lies below it.
            baseline: a baseline file, relative to the test's; made by ``bbox baseline``, or by ``--bbox-update``. The
                test fails where a figure fell by more than ``tolerance``, ``distance_tolerance``.
            options: ``budget``, ``seed``, ``limit``, ``norm``, ``checkpoints`` and others of ``bbox attack``; the
                marker ``bbox(...)`` gives the same ones for a test.

        Returns: the figures, as ``bbox.results.floor.check_floor`` or ``bbox.results.check.run_check`` gives them.
        """
        from bbox.errors import BboxError

        __tracebackhide__ = True
        try:
            results, message = self._run(model, inputs, labels, {**self._marked(), **options})
        except BboxError as error:  # the test fails below: from in here, pytest tells of two exceptions
            results, message = {"holds": False}, f"bbox: {error}"
        self._request.node.user_properties.append(("bbox", message.splitlines()[0]))
        if not results["holds"]:
            pytest.fail(message, pytrace=False)
        return results

    def _marked(self) -> dict[str, Any]:
        from bbox.errors import UsageError

        found: dict[str, Any] = {}
        for marker in reversed(list(self._request.node.iter_markers("bbox"))):  # the closest one has the last word
            if marker.args:
                raise UsageError(f"the marker bbox takes names, got {marker.args[0]!r}; write bbox(attack=...)")
            found |= marker.kwargs
        return found

    def _run(self, model: Any, inputs: Any, labels: Any, given: dict[str, Any]) -> tuple[dict[str, Any], str]:
        from bbox.errors import UsageError
        from bbox.registry import did_you_mean
        from bbox.results.records import Config

        known = (*_OTHERS, *_FIELDS)
        for name in given:
            if name not in known:
                raise UsageError(f"bbox_check takes no {name!r}{did_you_mean(name, known) or ''}")
        floor, baseline = given.get("robust_accuracy"), given.get("baseline")
        if (floor is None) == (baseline is None):
            raise UsageError("bbox_check needs either robust_accuracy=FLOOR or baseline=FILE")
        attacks = _several(given.get("attack", "cgba"))
        fields = {field: given[name] for name, field in _FIELDS.items() if name in given}
        for name in ("epsilons", "checkpoints", "indices"):
            if name in fields:
                fields[name] = _several(fields[name])
                if name != "indices":  # of examples, the order is the user's
                    fields[name] = tuple(sorted(set(fields[name])))
        target, data = _loaded(model, inputs, labels, given, fields)
        config = Config(**fields, target=target.name, data=data.name)
        gates = {name: given[name] for name in _GATES if name in given}
        if floor is not None:
            return self._floor(attacks, config, float(floor), gates, target, data)
        file = self._request.path.parent / str(baseline)
        if not self._request.config.getoption("--bbox-update"):
            _same_question(file, _read(file), attacks if "attack" in given else (), fields)
        return self._baseline(attacks, config, file, gates, target, data)

    def _floor(
        self, attacks: Sequence[str], config: Any, floor: float, gates: dict[str, Any], target: Any, data: Any
    ) -> tuple[dict[str, Any], str]:
        from bbox.results.floor import check_floor

        alpha = gates.get("alpha", 0.05)
        path = self._folder()
        results = check_floor(attacks, config, path, floor, alpha=alpha, target=target, data=data)
        lines = [
            f"{target.name}: robust accuracy {results['robust_accuracy']:.1%} of {results['n']} examples against "
            f"{', '.join(attacks)} at {config.budget:,} queries, {config.norm} {results['epsilon']:g}",
            f"floor {floor:.1%}; upper bound {results['bound']:.1%} (Clopper-Pearson, alpha {alpha:g}), "
            f"p {results['p']:.3g}",
        ]
        for example in results["fallen"][:_LISTED]:
            how = "wrong without an attack" if example["attack"] is None else f"broken at {example['distance']:.3f}"
            file = "" if example["file"] is None else f"  {example['file']}"
            lines.append(f"  example {example['index']} ({example['id']}): {how}{file}")
        return results, "\n".join([*lines, *_rest(results["fallen"], path)])

    def _baseline(
        self, attacks: Sequence[str], config: Any, file: Path, gates: dict[str, Any], target: Any, data: Any
    ) -> tuple[dict[str, Any], str]:
        from bbox.options import HOW
        from bbox.results.baseline import Gates, write_baseline
        from bbox.results.baseline_runs import make_baseline
        from bbox.results.check import run_check
        from bbox.results.check_text import fallen_lines, label, title

        path = self._folder()
        if self._request.config.getoption("--bbox-update"):
            made = make_baseline(attacks, config, path, gates=Gates(**gates), target=target, data=data)
            write_baseline(file, made)
            return {"holds": True}, f"{file} is written anew"
        own = {name: getattr(config, name) for name in HOW}
        results = run_check(file, path, target=target, data=data, gates=gates, changes=own)
        lines = [title(results)]
        for figure in results["figures"]:
            if figure["fell"]:
                lines.append(
                    f"{label(figure)}: {len(figure['fallen'])} examples are worse, p {figure['p_adjusted']:.3g}"
                )
                lines += [f"  {line}" for line in fallen_lines(figure)]
        return results, "\n".join([*lines, f"all files: {path}"])

    def _folder(self) -> Path:
        """A folder of this test's own that is not there yet."""
        from bbox.files import unused

        out = self._request.config.getoption("--bbox-out")
        if out is None:
            base = Path(self._request.getfixturevalue("tmp_path")) / "bbox"
        else:
            name = re.sub(r"[^\w.-]+", "-", self._request.node.nodeid).strip("-")
            base = Path(out) / name.encode()[:_LONGEST].decode(errors="ignore")
        return unused(base)


def _several(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str | int | float) else tuple(value)


def _rest(fallen: Sequence[Any], path: Path) -> list[str]:
    more = [f"  and {len(fallen) - _LISTED} more"] if len(fallen) > _LISTED else []
    return [*more, f"all files: {path}"]


def _read(file: Path) -> Any:
    from bbox.errors import UsageError
    from bbox.results.baseline import read_baseline

    if not file.exists():
        raise UsageError(f"{file}: no such file; write it with  pytest --bbox-update")
    return read_baseline(file)


def _loaded(model: Any, inputs: Any, labels: Any, given: dict[str, Any], fields: dict[str, Any]) -> tuple[Any, Any]:
    """The model as a target, and the data."""
    import bbox
    from bbox.data.base import Examples
    from bbox.errors import UsageError
    from bbox.results.api import examples_of

    if (inputs is None) == ("data" not in given):
        raise UsageError("bbox_check needs images and labels, or data=SPEC")
    if isinstance(model, str):
        options = fields.get("target_options", {})
        target = bbox.targets.load(
            model, options=options, trust=fields.get("trust", False), device=fields.get("device")
        )
    else:
        target = bbox.targets.wrap(model)
    data = given["data"] if inputs is None else inputs
    if isinstance(data, str):
        data = bbox.data.load(data, size=fields.get("image_size"))
    elif not isinstance(data, Examples):
        data = examples_of(data, labels)
    if data.labels is None:
        raise UsageError(f"{data.name} has no labels, and accuracy needs them; give them")
    return target, data


def _same_question(file: Path, baseline: Any, attacks: Sequence[str], fields: dict[str, Any]) -> None:
    """Refuse a test that asks something else than its baseline did."""
    from bbox.errors import UsageError

    had = baseline.entries[0].part.config
    names = dict.fromkeys(entry.part.name.partition("@")[0] for entry in baseline.entries)
    asked = [("attack", tuple(attacks), tuple(names))] if attacks else []
    asked += [(name, fields[name], getattr(had, name)) for name in _QUESTION if name in fields]
    for name, now, before in asked:
        if now != before:
            raise UsageError(f"{file} has {name} {before}, the test {now}; write it anew with  pytest --bbox-update")
