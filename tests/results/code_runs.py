"""A toy for runs on code: a classifier that reads words, programs for it, and an attack that renames greedily."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from bbox.attacks.base import Ask, Attack, Problem, Run
from bbox.code import Program, Programs
from bbox.code.site import site_of
from bbox.data.base import CodeSet
from bbox.results.plan import Plan, prepare
from bbox.results.records import Config
from bbox.results.run import execute
from bbox.results.session import describe_run
from bbox.results.store import RunFolder
from bbox.targets.code import wrap

NUMBERS = ("width", "height", "total", "count", "size")
WORDS = ("name", "text", "line", "word", "path")

AREA = """def area(width, height):
    total = width * height
    return total  # a total of <b>no</b> & script
"""
JOIN = """def join(name, path):
    text = f"{path}/{name}"
    for line in text.split("\\n"):
        print(line)
    return text
"""
LONG = (
    "int measure(int width, int height) {\n"
    + "".join(f"    step({i}); /* <i>{i}</i> */\n" for i in range(40))
    + "    int count = width + height;\n    return count;\n}\n"
)
NAMELESS = "print('size')\n"


def scores(codes: Sequence[str]) -> list[list[float]]:
    """By words in the source: (text, numbers). Logs each row and sleeps, where the environment says so."""
    log = os.environ.get("TOY_LOG")
    if log:
        with Path(log).open("a") as file:
            file.write("row\n" * len(codes))
        time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
    found = [re.findall(r"\w+", code) for code in codes]
    weights = [sum((word in NUMBERS) - (word in WORDS) for word in words) for words in found]
    return [[1 / (1 + math.exp(w)), 1 / (1 + math.exp(-w))] for w in weights]


@dataclass(frozen=True)
class Greedy(Attack):
    """Renames one identifier more with each query, then fewer; ``careless``: asks a broken program first."""

    careless: bool = False
    functions: bool = False

    takes: ClassVar = "code"
    access: ClassVar = "label"
    norms: ClassVar = ("names",)

    def run(self, problem: Problem) -> Run:
        for row, program in enumerate(problem.programs):
            site = site_of(program)
            if not site.bindings:
                problem.stop(row, "no_identifiers")
                continue
            owner = torch.tensor([row])
            if self.careless:
                yield Ask(Programs([Program("size = " * 9 + "count\n", program.language)]), owner)
                yield Ask(Programs([Program("path = " * 9 + "name\n", program.language)]), owner)
            other = WORDS if int(problem.goal.labels[row]) else NUMBERS
            usable = site.usable([*other, *(f"{one}_{two}" for one in other for two in other)])
            renames: dict[int, str] = {}
            for number in range(len(site.bindings)):
                renames[number] = usable[number]
                yield Ask(Programs([site.render(renames)]), owner)
            for number in range(len(site.bindings)):
                fewer = {key: value for key, value in renames.items() if key != number}
                answer = yield Ask(Programs([site.render(fewer)]), owner)
                if bool(answer.adversarial.any()):
                    renames = fewer


def programs(copies: int = 1) -> CodeSet:
    """Programs with their labels; the last but one is wrong from the start, the last has no identifier."""
    made = [Program(AREA, "python"), Program(JOIN, "python"), Program(LONG, "c")] * copies
    labels = [1, 0, 1] * copies
    made += [Program(AREA.replace("area", "space"), "python"), Program(NAMELESS, "python")]
    return CodeSet(
        name="toy",
        inputs=Programs(made),
        labels=torch.tensor([*labels, 0, 1]),
        indices=torch.arange(len(made)),
        ids=tuple(f"program-{i}" for i in range(len(made))),
        class_names=("text", "numbers"),
    )


def plan(attack: Attack | None = None, *, copies: int = 1, **config: object) -> Plan:
    """A run of the toy attack."""
    target = wrap(scores, name="toy", classes=("text", "numbers"), access="scores")
    asked = Config(**{"attack": "greedy", "target": "toy", "data": "toy", "norm": "names", "budget": 60, **config})
    return prepare(asked, attack or Greedy(), target, programs(copies))


def run(path: Path, attack: Attack | None = None, *, copies: int = 1, **config: object) -> RunFolder:
    """A complete run of the toy attack in a new folder."""
    made = plan(attack, copies=copies, **config)
    folder = RunFolder.create(path, describe_run(made, "bbox attack greedy"))
    execute(made, folder)
    return folder
