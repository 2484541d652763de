"""The baseline file: what is in it, what is not, and what is refused."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from bbox import data as data_module
from bbox import targets
from bbox.data.base import Dataset
from bbox.errors import BboxError, RequestLimitError, TargetError, UsageError
from bbox.results.api import attack
from bbox.results.baseline import Gates, read_baseline, write_baseline
from bbox.results.baseline_runs import baseline_of_runs, make_baseline
from bbox.results.check import run_check
from bbox.results.records import Config
from bbox.results.store import RunFolder
from bbox.targets.account import account
from bbox.targets.base import Target
from tests.results.weaker import Weaker

SMALL = Config(limit=6, budget=60, epsilons=(1.5,), checkpoints=(30, 60))
ATTACKS = ("cgba", "square:p-init=0.3")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made")
    found = make_baseline(ATTACKS, replace(SMALL, max_batch=16, trust=True), path / "runs", command="bbox baseline ...")
    write_baseline(path / "robustness.json", found)
    return path


def test_it_says_what_the_runs_found(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads((made / "robustness.json").read_text())
    schema = json.loads((resources.files("bbox.results") / "baseline.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content, schema)
    for broken in ({**content, "attacks": []}, {**content, "more": 1}, {**content, "alpha": 0.7}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)

    assert [a["name"] for a in content["attacks"]] == list(ATTACKS)
    for entry in content["attacks"]:
        with RunFolder.open(made / "runs" / entry["folder"]) as folder:
            examples = list(folder.examples().values())
        assert len(examples) == 6 == len(entry["examples"])
        for stored, example in zip(entry["examples"], examples, strict=True):
            reached = [d if d is not None else float("inf") for d in stored["distances"]]
            assert reached == [example.distance_at(30), example.distance_at(60)]
            assert (stored["id"], stored["right"], stored["queries"]) == (example.id, example.attacked, example.queries)
    assert content["queries"]["attack"] == sum(e["queries"] for a in content["attacks"] for e in a["examples"])
    text = (made / "robustness.json").read_text()
    assert text.count('{"index"') == 12 == sum(line.strip().startswith('{"index"') for line in text.splitlines())


def test_what_may_be_loaded_and_where_it_runs_is_not_in_the_file(made: Path, tmp_path: Path) -> None:
    content = json.loads((made / "robustness.json").read_text())
    for entry in content["attacks"]:
        assert not {"trust", "device", "max_batch"} & entry["config"].keys()
        entry["config"] |= {"trust": True, "device": "cuda:7", "max_batch": 1}
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(content))
    for entry in read_baseline(forged).entries:
        config = entry.part.config
        assert (config.trust, config.device, config.max_batch) == (False, None, None)


def test_it_comes_back_as_it_was(made: Path, tmp_path: Path) -> None:
    write_baseline(tmp_path / "again.json", read_baseline(made / "robustness.json"))
    assert (tmp_path / "again.json").read_bytes() == (made / "robustness.json").read_bytes()


def test_provenance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setenv("GITHUB_SHA", "f00")
    monkeypatch.setenv("GITHUB_REPOSITORY", "some/model")
    monkeypatch.delenv("GITHUB_RUN_ID", raising=False)
    found = make_baseline(("cgba",), replace(SMALL, limit=1, budget=10, checkpoints=()), tmp_path / "runs")
    told = {"git_commit": commit, "GITHUB_SHA": "f00", "GITHUB_REPOSITORY": "some/model"}
    assert found.facts["provenance"] == told


def test_of_finished_runs_it_is_the_same_and_asks_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Target:
        raise AssertionError("a target was loaded")

    monkeypatch.setattr(targets, "load", refuse)
    runs = [made / "runs" / entry.part.folder for entry in read_baseline(made / "robustness.json").entries]
    again, first = baseline_of_runs(runs, Gates()), read_baseline(made / "robustness.json")
    assert [e.outcomes for e in again.entries] == [e.outcomes for e in first.entries]
    assert [e.part.config.checkpoints for e in again.entries] == [(30, 60), (30, 60)]
    assert again.facts["data"] == {k: v for k, v in first.facts["data"].items() if k != "whole_fingerprint"}
    assert again.facts["target"] == first.facts["target"]


def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    digits = data_module.load("zoo:digits").select(limit=3)
    assert digits.labels is not None

    def run(name: str, data: Dataset = digits, target: Any = "zoo:digits", **options: Any) -> Path:
        attack(target, data, budget=20, out=tmp_path / name, **options)
        return tmp_path / name

    first = run("first")
    for path, why in (
        (run("others", data=digits.take([0, 1])), "different data"),
        (run("model", target=Weaker(1.3).eval()), "different target"),
        (run("targeted", target_class=int(digits.labels[0])), "target_class"),
        (run("stopped", stop_at=2.0), "stop_at"),
    ):
        with pytest.raises(UsageError, match=why):
            baseline_of_runs([first, path], Gates())


class Failing(Target):
    """Dies after a number of rows."""

    name, num_classes = "failing", 10

    def __init__(self) -> None:
        self.inner, self.left = targets.load("zoo:digits"), 200

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        self.left -= len(rows)
        if self.left < 0:
            raise TargetError("failing is out of reach")
        return self.inner(rows)

    def fingerprint(self) -> str:
        return self.inner.fingerprint()


def test_it_goes_on_where_it_stopped(made: Path, tmp_path: Path) -> None:
    target, data = Failing(), data_module.load("zoo:digits")
    resume, stops = False, 0
    while True:
        try:
            found = make_baseline(ATTACKS, SMALL, tmp_path / "runs", resume=resume, target=target, data=data)
            break
        except TargetError:
            resume, stops, target.left = True, stops + 1, 200
    assert stops >= 2
    whole = read_baseline(made / "robustness.json")
    assert [e.outcomes for e in found.entries] == [e.outcomes for e in whole.entries]
    assert found.facts["queries"]["attack"] == whole.facts["queries"]["attack"], "nothing was asked twice"
    with pytest.raises(BboxError, match="has changed since"):
        make_baseline(ATTACKS, SMALL, tmp_path / "runs", resume=True, target=target, data=data.take(range(6, 20)))


class Live(Failing):
    """Sends a request a call, as a live target does, and counts what it sent."""

    name, in_process = "live", False

    def __init__(self) -> None:
        super().__init__()
        self.left, self.sent = 10**9, 0

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        meter = account()[1].meter
        if meter is not None:
            meter.take()
        self.sent += 1
        return super().__call__(rows)


def test_the_limit_on_requests_is_one_of_all_attacks(made: Path, tmp_path: Path) -> None:
    target, data = Live(), data_module.load("zoo:digits")
    config, resume = replace(SMALL, max_requests=15), False
    for _ in range(30):
        try:
            changes = {"max_requests": config.max_requests}
            runs = tmp_path / "runs"
            found = make_baseline(ATTACKS, config, runs, resume=resume, changes=changes, target=target, data=data)
            break
        except RequestLimitError as error:
            assert target.sent <= (config.max_requests or 0) and "--max-requests" in str(error)
            resume, config = True, replace(config, max_requests=(config.max_requests or 0) + 15)
    assert resume and target.sent <= (config.max_requests or 0)
    assert [e.outcomes for e in found.entries] == [e.outcomes for e in read_baseline(made / "robustness.json").entries]


def _cut(content: dict[str, Any]) -> None:
    content["attacks"][0]["examples"][2]["distances"] = [1.0]


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "version": (lambda c: c.update(baseline_version=9), "has schema 9, this bbox reads 1"),
    "kind": (lambda c: c.pop("kind"), "is no baseline"),
    "attacks": (lambda c: c.pop("attacks"), "it has no 'attacks'"),
    "no attack": (lambda c: c.update(attacks=[]), "names no attack"),
    "no examples": (lambda c: c["attacks"][0].update(examples=[]), "has no examples"),
    "unknown": (lambda c: c["attacks"][0]["config"].update(attack="cgbo"), "cgba"),
    "option": (lambda c: c["attacks"][0]["config"].update(attack_options={"stepp": 1}), "stepp"),
    "distances": (_cut, "without a distance at each checkpoint"),
    "a word": (lambda c: c["attacks"][0]["examples"][0].update(distances=["far", 1]), "is no baseline"),
    "negative": (lambda c: c["attacks"][0]["examples"][0].update(distances=[-1, 1]), "is no baseline"),
    "right": (lambda c: c["attacks"][0]["examples"][0].update(right="yes"), "is no baseline"),
    "budget": (lambda c: c["attacks"][0]["config"].update(budget="many"), "is no baseline"),
    "alpha": (lambda c: c.update(alpha=0.9), "alpha is 0.9"),
    "examples": (lambda c: c["attacks"][1]["examples"].pop(), "different examples"),
    "folder": (lambda c: c["attacks"][0].update(folder="../out"), "no names of folders"),
    "absolute": (lambda c: c["attacks"][0].update(folder="/etc"), "no names of folders"),
    "twice": (lambda c: c["attacks"][0].update(folder=c["attacks"][1]["folder"]), "each another one"),
    "no data": (lambda c: c.pop("data"), "it has no 'data'"),
    "a list": (lambda c: c.update(attacks=5), "is no baseline"),
    "infinite": (lambda c: c["attacks"][0]["examples"][0].update(index=math.inf), "index is Infinity, expected int"),
    "true": (lambda c: c["attacks"][0]["examples"][0].update(distances=[True, 1]), "distances is"),
    "half": (lambda c: c["attacks"][0]["config"].update(budget=40.5), "budget is 40.5, expected int"),
    "no budget": (lambda c: c["attacks"][0]["config"].update(budget=None), "budget is null, expected int"),
    "seed": (lambda c: c["attacks"][0]["config"].update(seed="x"), 'seed is "x", expected int'),
    "target": (lambda c: c["attacks"][0]["config"].update(target=5), "target is 5, expected str"),
    "options": (lambda c: c["attacks"][0]["config"].update(target_options=[1]), r"expected dict\[str, Any\]"),
    "order": (lambda c: c["attacks"][0]["config"].update(checkpoints=[60, 30]), "expected rising ones"),
    "beyond": (lambda c: c["attacks"][0]["config"].update(checkpoints=[30, 600]), "within the budget"),
    "targeted": (lambda c: c["attacks"][0]["config"].update(target_class="next"), "holds plain untargeted runs"),
    "two examples": (lambda c: [a["examples"].append(a["examples"][0]) for a in c["attacks"]], "is in it twice"),
    "no fingerprint": (lambda c: c["data"].update(fingerprint=None), "fingerprint is null, expected str"),
    "run.json": (lambda c: c["attacks"][0].update(folder="run.json"), "no names of folders"),
    "level": (lambda c: c.update(alpha="0.05"), 'alpha is "0.05", expected float'),
    "schema": (lambda c: c.update(baseline_version=math.inf), "has schema inf"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_no_baseline_is_refused_in_one_line(case: str, made: Path, tmp_path: Path) -> None:
    content = json.loads((made / "robustness.json").read_text())
    BROKEN[case][0](content)
    (tmp_path / "b.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=BROKEN[case][1]) as caught:
        run_check(tmp_path / "b.json", tmp_path / "out")
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert not (tmp_path / "out").exists(), "nothing was started"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff\xfe", '{"kind": "baseline"}', "[" * 100_000])
def test_a_file_that_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="is no baseline"):
        read_baseline(tmp_path / "b.json")
    with pytest.raises(UsageError, match="no such file; make one with  bbox baseline"):
        read_baseline(tmp_path / "none.json")
    with pytest.raises(UsageError, match="is no baseline"):
        read_baseline(tmp_path)


def test_attacks_and_data_that_make_no_baseline(tmp_path: Path) -> None:
    plain = data_module.load("zoo:digits").select(limit=3)
    with pytest.raises(UsageError, match="checkpoint 600 is beyond the budget of 60 queries"):
        make_baseline(("cgba",), replace(SMALL, checkpoints=(30, 600)), tmp_path / "runs")
    for attacks, why in (((), "name at least one"), (("cgba", "cgba"), "given twice"), (("cgbo",), "cgba")):
        with pytest.raises(UsageError, match=why):
            make_baseline(attacks, SMALL, tmp_path / "runs")
    with pytest.raises(UsageError, match="minimises l2, not linf"):
        make_baseline(("cgba", "foolbox:BoundaryAttack"), replace(SMALL, norm="linf"), tmp_path / "runs")
    labels_only = targets.wrap(lambda rows: rows.flatten(1).sum(1).long() % 10, access="labels", num_classes=10)
    with pytest.raises(UsageError, match="square needs scores"):
        make_baseline(("cgba", "square"), replace(SMALL, limit=3), tmp_path / "runs", target=labels_only, data=plain)
    assert not (tmp_path / "runs").exists(), "the second attack was checked before the first one ran"
    data_only = tmp_path / "unlabelled.npz"
    import numpy as np

    np.savez(data_only, inputs=plain.inputs.numpy())
    with pytest.raises(UsageError, match="has no labels, and accuracy needs them"):
        make_baseline(("cgba",), replace(SMALL, data=str(data_only)), tmp_path / "runs")
