"""ALERT's public rules against bbox: same victims, same programs, same substitutes, one exact budget.

``python -m benchmarks.alert DATA [CASE ...]`` measures, ``--table`` prints. DATA is a clone of ALERT's public
repository (soarsmu/attack-pretrain-models-of-code, MIT code; bbox ships none of its data). A finished row is kept in
``benchmarks/results/alert-CASE.json``, so that a run can be cut off and go on.

Cases: ``magika-c``, ``magika-java``, ``magika-python`` (Magika as it ships; the substitutes that ALERT published, by
CodeBERT), ``gcj`` (66 authors, TF-IDF and logistic regression; the same), ``projects`` (``zoo:python-projects``; names
of the corpus provider). The first ``--limit`` programs that the victim gets right and that have substitutes.

The public rules ask by text, so a success of theirs need not be valid: ``raw`` counts all, ``valid`` those that pass
``bbox.code.equivalence.compare``, ``valid_functions`` those that pass where functions may be renamed as well.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bbox
from bbox.code.equivalence import compare
from bbox.code.program import Program, Programs
from bbox.code.site import site_of
from bbox.code.substitutes import Corpus, load_provider
from bbox.problem import Pool
from bbox.targets.code import CodeTarget
from benchmarks.alert_public_rules import TextSite, extract, run_public
from benchmarks.code_victims import gcj_victim, read_gcj
from benchmarks.results_file import RESULTS, machine

BUDGET = 800
CHECKPOINTS = (50, 100, 200, 400, 800)
SEEDS = (0, 1, 2)
PUBLIC = ("greedy", "greedy+ga", "mhm")
CASES = ("magika-c", "magika-java", "magika-python", "gcj", "projects")
Names = Mapping[str, Sequence[str]]


class Case:
    """A victim, programs that it gets right, and the new names of each."""

    def __init__(self, name: str, root: Path, limit: int) -> None:
        self.name = name
        self.target, programs, labels, names, pool = _CASES[name](root)
        self.pool = pool
        self._known: dict[str, Tensor] = {}
        right = self(programs).argmax(1) == labels
        keep = [i for i in range(len(programs)) if bool(right[i]) and names[i]][:limit]
        self.programs, self.labels = programs[keep], labels[keep]
        self.names = {programs[i].code: names[i] for i in keep}
        self.accuracy = float(right.float().mean())

    def __call__(self, rows: Programs) -> Tensor:
        """The victim's scores; one that was computed before is not computed again, by any method or seed."""
        new = Programs({p.code: p for p in rows if p.code not in self._known}.values())
        if len(new):
            for program, scores in zip(new, self.target(new), strict=True):
                self._known[program.code] = scores
        return torch.stack([self._known[p.code] for p in rows])


def _alert_rows(root: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(root.glob(pattern)) for line in path.open(encoding="utf-8")]


def _magika(root: Path, language: str, found: list[tuple[str, Names]]) -> Any:
    target = bbox.targets.load("magika:raw")
    label = target.class_names.index(language)
    unique = dict(found)
    programs = Programs(Program(code, language) for code in list(unique)[:150])
    return target, programs, torch.full((len(programs),), label), list(unique.values())[:150], _languages(root, target)


def _devign(root: Path) -> list[tuple[str, Names]]:
    rows = _alert_rows(root, "CodeXGLUE/Defect-detection/preprocess/dataset/test_subs_*.jsonl")
    return [(row["func"], _stripped(row["substitutes"])) for row in rows]


def _bcb(root: Path) -> list[tuple[str, Names]]:
    rows = _alert_rows(root, "CodeXGLUE/Clone-detection-BigCloneBench/dataset/test_subs_*.jsonl")
    return [(row["code1"], _stripped(row["substitutes"])) for row in rows]


def _gcj(root: Path) -> list[tuple[str, Names]]:
    folder = root / "CodeXGLUE/Authorship-Attribution/dataset/data_folder/processed_gcjpy"
    rows = [json.loads(line) for line in (folder / "valid_subs.jsonl").open(encoding="utf-8")]
    codes = read_gcj(root, "valid").inputs.codes()
    return [(code, _stripped(row["substitutes"])) for code, row in zip(codes, rows, strict=True)]


def _stripped(names: Names) -> Names:
    return {name: [new.strip() for new in found] for name, found in names.items()}


def _languages(root: Path, target: CodeTarget) -> Corpus:
    """Names of the other languages: 400 programs of each, labelled as Magika numbers them."""
    parts = [("c", _devign(root)), ("java", _bcb(root)), ("python", _gcj(root))]
    programs, labels = [], []
    for language, found in parts:
        codes = list(dict(found))[-400:]
        programs += [Program(code, language) for code in codes]
        labels += [target.class_names.index(language)] * len(codes)
    return Corpus(Programs(programs), torch.tensor(labels))


def _authors(root: Path) -> Any:
    target, data, train = gcj_victim(root), read_gcj(root, "valid"), read_gcj(root, "train")
    names = [names for _, names in _gcj(root)]
    return target, data.inputs, data.labels, names, Corpus(train.inputs, train.labels)


def _projects(root: Path) -> Any:
    target, data = bbox.targets.load("zoo:python-projects"), bbox.data.load("zoo:python-projects")
    data = data.take(range(150))
    corpus = Corpus(data.inputs, data.labels)
    provider = load_provider("corpus", corpus=corpus)
    names = []
    for program, label in zip(data.inputs, data.labels.tolist(), strict=True):
        site = TextSite(program, tuple(extract(program)))
        suggested = provider.suggest(site, avoid=label)  # type: ignore[arg-type]
        names.append({b.name: new for b, new in zip(site.bindings, suggested, strict=True)})
    return target, data.inputs, data.labels, names, corpus


_CASES: dict[str, Callable[[Path], Any]] = {
    "magika-c": lambda root: _magika(root, "c", _devign(root)),
    "magika-java": lambda root: _magika(root, "java", _bcb(root)),
    "magika-python": lambda root: _magika(root, "python", _gcj(root)),
    "gcj": _authors,
    "projects": _projects,
}


def public(case: Case, method: Any, seed: int) -> list[dict[str, Any]]:
    found = run_public(
        case,
        case.programs,
        case.labels.tolist(),
        lambda program: case.names[program.code],
        method=method,
        budget=BUDGET,
        seed=seed,
    )
    return [
        {
            "raw": o.first,
            "valid": o.first if o.valid else None,
            "valid_functions": o.first
            if o.program is not None and compare(program, o.program, functions=True).equivalent
            else None,
            "queries": o.queries,
        }
        for program, o in zip(case.programs, found, strict=True)
    ]


def one_random(case: Case, seed: int) -> list[dict[str, Any]]:
    """The do-nothing baseline: one query, every safe identifier renamed to a random substitute of its own."""
    rows = []
    for number, (program, label) in enumerate(zip(case.programs, case.labels.tolist(), strict=True)):
        rng, site = np.random.default_rng([seed, number]), site_of(program)
        new: dict[str, str] = {}
        for name in site.identifiers:
            usable = [n for n in site.usable(case.names[program.code].get(name, ())) if n not in new.values()]
            if usable:
                new[name] = usable[int(rng.integers(len(usable)))]
        found = site.render({i: new[b.name] for i, b in enumerate(site.bindings) if b.name in new})
        hit = 1 if int(case(Programs([found])).argmax()) != label else None
        rows.append({"raw": hit, "valid": hit, "valid_functions": hit, "queries": 1})
    return rows


def ours(case: Case, options: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """The same programs through ``bbox.attack``; with ``substitutes`` "same", the names of the public rules."""
    from bbox.targets.code import wrap

    target = wrap(lambda codes: case(Programs(Program(code, case.programs[0].language) for code in codes)).numpy())
    with tempfile.TemporaryDirectory() as folder:
        options = dict(options)
        if options["substitutes"] == "same":
            lines = [json.dumps({"code": code, "substitutes": names}) for code, names in case.names.items()]
            path = Path(folder) / "names.jsonl"
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            options["substitutes"] = f"file:{path}"
        attack = _alert(case, options)
        result = bbox.attack(target, case.programs, case.labels, attack, budget=BUDGET, seed=seed, norm="names")
    rows = []
    for example in result.examples:
        first = example.trace[0][0] if example.success else None
        rows.append(
            {
                "raw": example.first_adversarial,
                "valid": first,
                "valid_functions": first,
                "queries": example.queries,
                "names": example.distance,
            }
        )
    return rows


def _alert(case: Case, options: dict[str, Any]) -> Any:
    from bbox.attacks.alert import Alert

    class WithNames(Alert):
        def ready(self, pool: Any, device: torch.device) -> None:
            super().ready(Pool(case.pool.programs, case.pool.labels), device)

    return WithNames(**options)


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    valid = [row["valid"] for row in rows if row["valid"] is not None]
    raw = [row["raw"] for row in rows if row["raw"] is not None]
    return {
        "n": len(rows),
        "raw_asr": len(raw) / len(rows),
        "valid_asr": len(valid) / len(rows),
        "valid_functions_asr": sum(row["valid_functions"] is not None for row in rows) / len(rows),
        **{f"valid@{q}": sum(v <= q for v in valid) / len(rows) for q in CHECKPOINTS},
        "queries": mean(row["queries"] for row in rows),
        "median_to_success": median(valid) if valid else None,
        "median_to_raw": median(raw) if raw else None,
    }


OURS: dict[str, dict[str, Any]] = {
    "bbox bandit": {"substitutes": "same"},
    "bbox bandit, functions": {"substitutes": "same", "functions": True},
    "bbox greedy": {"substitutes": "same", "search": "greedy"},
    "bbox bandit, corpus": {"substitutes": "corpus"},
    "bbox bandit, corpus by class": {"substitutes": "corpus,rank=class"},
}


def measure(root: Path, name: str, limit: int, only: str) -> None:
    torch.set_num_threads(1)
    case = Case(name, root, limit)
    jobs: list[tuple[str, int, Callable[[int], list[dict[str, Any]]]]] = []
    for seed in SEEDS:
        jobs += [(label, seed, lambda s, o=o: ours(case, o, s)) for label, o in OURS.items()]
        jobs.append(("one random rename", seed, lambda s: one_random(case, s)))
        jobs += [(f"public {m}", seed, lambda s, m=m: public(case, m, s)) for m in PUBLIC]
    path = RESULTS / f"alert-{name}.json"
    kept = json.loads(path.read_text()) if path.exists() else {"machine": machine(), "budget": BUDGET, "rows": []}
    done = {(row["method"], row["seed"]) for row in kept["rows"]}
    for method, seed, run in jobs:
        if (
            only not in method or (method, seed) in done or (seed and method in ("public greedy", "bbox greedy"))
        ):  # nothing random in those
            continue
        start = time.process_time()
        row = {"case": name, "method": method, "seed": seed, "accuracy": case.accuracy, **summary(run(seed))}
        kept["rows"].append({**row, "cpu_seconds": time.process_time() - start})
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(name, method, seed, {k: v for k, v in row.items() if "@" in k or "asr" in k or "median" in k}, flush=True)


def table() -> None:
    """The mean over seeds of every case and method, in Markdown."""
    columns = ("n", "raw_asr", "valid_asr", "valid_functions_asr", *(f"valid@{q}" for q in CHECKPOINTS), "queries")
    columns = (*columns, "median_to_success", "median_to_raw")
    print("| case | method | seeds | " + " | ".join(columns) + " |")
    print("| --- " * (len(columns) + 3) + "|")
    for name in CASES:
        path = RESULTS / f"alert-{name}.json"
        rows = json.loads(path.read_text())["rows"] if path.exists() else []
        for method in dict.fromkeys(row["method"] for row in rows):
            mine = [row for row in rows if row["method"] == method]
            cells = [_cell([row[c] for row in mine if row[c] is not None]) for c in columns]
            print(f"| {name} | {method} | {len(mine)} | " + " | ".join(cells) + " |")


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{mean(values):.2f}" if max(values) <= 1 else f"{mean(values):.0f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--only", default="", help="methods whose name contains this")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    for name in given.cases or (CASES if given.data else ()):
        measure(given.data, name, given.limit, given.only)
    if given.table:
        table()


if __name__ == "__main__":
    main()
