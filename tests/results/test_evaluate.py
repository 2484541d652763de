"""Fooling rates: every query counted, none asked twice, and the arithmetic by hand."""

from __future__ import annotations

import dataclasses
import json
import math
import sqlite3
from pathlib import Path

import pytest
import torch
from torch import Tensor

import bbox
from bbox.errors import InputError, TargetError, UsageError
from bbox.results.craft_config import CraftConfig
from bbox.results.craft_folder import CraftFolder
from bbox.results.craft_run import plan_craft
from bbox.results.evaluate_run import Answers, evaluate_folder, evaluate_target, fooling
from bbox.results.judged import files_of
from bbox.targets import Target
from tests.motion_toys import motion_set
from tests.toys import Toy

COUNT, SHAPE = 6, (3, 12, 9, 1)
METHODS = ("adversarial", "noise", "offset")


class Sums(Toy):
    """The class is in the mean of the first coordinate, in steps of 10 cm."""

    takes = "motion"

    def __init__(self, **options: object) -> None:
        super().__init__(SHAPE)
        self.__dict__.update(options)
        self.good = int(str(options.get("good", 10**9)))

    def answer(self, rows: Tensor) -> Tensor:
        if self.rows > self.good:
            raise RuntimeError("the service has gone")
        return torch.nn.functional.one_hot((rows[:, 0].mean((1, 2, 3)) * 10).round().long() % 4, 4).float()


def crafted(path: Path) -> Path:
    """A no-box run whose labels are right but for the first, and whose files shift the first coordinate at will."""
    data = motion_set(COUNT)
    steps = torch.tensor([0, 1, 2, 3, 0, 1])
    inputs = data.inputs.clone()
    inputs[:, 0] += (steps / 10 - inputs[:, 0].mean((1, 2, 3))).view(-1, 1, 1, 1)
    data = dataclasses.replace(data, inputs=inputs, labels=torch.tensor([1, 1, 2, 3, 0, 1]))
    config = CraftConfig(attack_options={"encoder": "sequence"}, data=data.name, baselines=METHODS[1:])
    folder = CraftFolder.create(path, plan_craft(config, data).describe("test"))
    moved = {"originals": (), "adversarial": (0, 1, 2, 3), "noise": (), "offset": (5,)}
    for method, which in moved.items():
        for i in range(COUNT):
            row = inputs[i].clone()
            row[0] += 0.1 * (i in which)
            folder.save(method, i, row)
    return path


def judge(path: Path, target: Target) -> dict:
    with Answers(path) as answers:
        return evaluate_target(target, files_of(path), answers, max_batch=4)


def queries(found: dict) -> dict[str, int]:
    return {purpose: ledger["queries"] for purpose, ledger in found["ledger"].items()}


def test_counts_and_ledger(tmp_path: Path) -> None:
    path, target = crafted(tmp_path / "run"), Sums()
    found = judge(path, target)
    assert target.rows == COUNT * (1 + len(METHODS)) + 1
    assert queries(found) == {"probe": 1, "evaluate": target.rows - 1}
    assert found["clean_accuracy"] == pytest.approx(5 / 6) and found["correct"] == 5
    counted = {m: (f["all"]["changed"], f["all"]["of"], f["correct"]["changed"], f["correct"]["of"])
               for m, f in found["methods"].items()}  # fmt: skip
    assert counted == {"adversarial": (4, 6, 3, 5), "noise": (0, 6, 0, 5), "offset": (1, 6, 1, 5)}
    assert found["answers"]["adversarial"] == [1, 2, 3, 0, 0, 1] and found["clean"] == [0, 1, 2, 3, 0, 1]

    again = Sums()
    assert judge(path, again)["methods"] == found["methods"]
    assert again.rows == 1, "the probe"


def test_the_wilson_interval() -> None:
    for changed, total in ((4, 6), (0, 10), (10, 10), (37, 200)):
        figures = fooling(torch.arange(total) < changed)
        z, p = 1.959963984540054, changed / total
        middle = (p + z * z / (2 * total)) / (1 + z * z / total)
        half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total**2)) / (1 + z * z / total)
        assert figures["value"] == p
        assert figures["interval"] == pytest.approx([max(0.0, middle - half), min(1.0, middle + half)], abs=1e-9)
    assert fooling(torch.zeros(0, dtype=torch.bool))["value"] is None


def test_a_target_that_dies_goes_on(tmp_path: Path) -> None:
    path = crafted(tmp_path / "run")
    dying = Sums(good=11)
    with pytest.raises(TargetError, match="the service has gone"):
        judge(path, dying)
    well = Sums()
    found = judge(path, well)
    assert found["methods"]["adversarial"]["all"]["changed"] == 4
    whole = COUNT * (1 + len(METHODS))
    delivered = 10  # batches of 4, 2 and 4 after the probe; the next one was not answered
    assert well.rows == 1 + whole - delivered
    assert queries(found) == {"probe": 2, "evaluate": whole}


def test_labels_go_by_class_names(tmp_path: Path) -> None:
    """A target that numbers the same classes otherwise: by name the labels are the same."""
    path = crafted(tmp_path / "run")
    order = [2, 0, 3, 1]
    names = motion_set(COUNT).class_names

    class Reordered(Sums):
        class_names = tuple(names[i] for i in order)

        def answer(self, rows: Tensor) -> Tensor:
            return super().answer(rows)[:, order]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bbox.targets.load", lambda spec, **_: Reordered() if spec == "b" else Sums(name="Sums"))
        found = evaluate_folder(path, ["a", "b"])["targets"]
    assert [t["clean_accuracy"] for t in found] == [pytest.approx(5 / 6)] * 2
    assert found[1]["clean"] == [order.index(k) for k in found[0]["clean"]]
    assert found[0]["methods"] == found[1]["methods"]
    assert json.loads((path / "evaluation.json").read_text())["targets"] == found


def test_answers_at_random_are_voted_on(tmp_path: Path) -> None:
    path, target = crafted(tmp_path / "run"), Sums(deterministic=False)
    found = judge(path, target)
    assert found["ledger"]["evaluate"]["queries"] == 11 * COUNT * (1 + len(METHODS)) == target.rows - 1
    assert found["methods"]["adversarial"]["all"]["changed"] == 4


def test_a_refusal_fools_nobody(tmp_path: Path) -> None:
    class Refuses(Sums):
        refuses = True

        def answer(self, rows: Tensor) -> Tensor:
            return super().answer(rows).masked_fill((rows[:, 0].mean((1, 2, 3)) > 0.25)[:, None], torch.nan)

    found = judge(crafted(tmp_path / "run"), Refuses())
    assert found["clean"] == [0, 1, 2, -2, 0, 1]
    assert found["answers"]["adversarial"] == [1, 2, -2, -2, 0, 1]
    assert found["methods"]["adversarial"]["all"]["changed"] == 2


def test_an_image_attack_on_another_target(tmp_path: Path) -> None:
    inputs = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def bright(rows: Tensor) -> Tensor:
        return (rows.mean((1, 2, 3)) > 0.5).long()

    result = bbox.attack(bright, inputs, budget=40, out=tmp_path / "run")
    assert bool(result.success.all())

    class Other(Toy):
        def answer(self, rows: Tensor) -> Tensor:
            return torch.stack([-rows[:, 0, :4].mean((1, 2)), rows[:, 0, :4].mean((1, 2)) - 1], 1)

    target = Other(classes=2)
    found = judge(tmp_path / "run", target)
    clean, moved = (target.answer(rows).argmax(1) for rows in (inputs, result.adversarial))
    assert found["methods"]["adversarial"]["all"]["changed"] == int((clean != moved).sum())
    assert found["ledger"]["evaluate"]["queries"] == 8
    with pytest.raises(UsageError, match="takes motion"):
        judge(tmp_path / "run", Sums())


def test_what_cannot_be_judged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run folder"):
        files_of(tmp_path)
    path = crafted(tmp_path / "run")
    (path / "adversarial/000003.npy").unlink()
    with pytest.raises(InputError, match="unfinished: motion 3"):
        files_of(path)
    (path / "answers.sqlite").write_text("not a database, and long enough to be read as one" * 30)
    with pytest.raises(InputError, match="delete it to ask again"):
        Answers(path)


def test_a_record_from_before_live_targets_is_read_and_goes_on(tmp_path: Path) -> None:
    path, target = crafted(tmp_path / "run"), Sums()
    whole = judge(path, target)
    with sqlite3.connect(path / "answers.sqlite") as old:
        old.executescript(
            "CREATE TABLE before (target TEXT, purpose TEXT, queries INTEGER, PRIMARY KEY (target, purpose)) "
            "WITHOUT ROWID; INSERT INTO before SELECT target, purpose, queries FROM ledgers; DROP TABLE ledgers; "
            "ALTER TABLE before RENAME TO ledgers; DELETE FROM answers WHERE method = 'offset'"
        )
    old.close()
    found = judge(path, Sums())
    assert found["methods"] == whole["methods"]
    assert found["ledger"]["evaluate"] == {"queries": COUNT * 5, "requests": 0, "billed": 0, "retried": 0}
    assert found["ledger"]["probe"]["queries"] == 2
