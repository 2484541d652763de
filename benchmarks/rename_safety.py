"""Rename every safe binding of real programs to random fresh names, and check that they mean the same.

    python -m benchmarks.rename_safety                              # Python: this interpreter's library and packages
    python -m benchmarks.rename_safety --folder java=DIR --folder c=DIR [--programs 500] [--seed 0] [--functions]

What is checked: ``bbox.code.equivalence.compare`` (parsed anew, by position; Python that compiles: bytecode as well),
and that as many bindings have new names as were given some. Every result is kept in results/rename-safety.json.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bbox.code.bindings import resolve
from bbox.code.equivalence import compare
from bbox.code.languages import named
from bbox.code.program import Program
from bbox.code.site import Site, site_of
from benchmarks.results_file import RESULTS, machine

LARGEST = 200_000  # bytes; what is larger is generated or a table


def sources(folder: Path, language: str, programs: int, rng: np.random.Generator) -> Iterator[Program]:
    """A random sample of the folder's files of this language."""
    endings = named(language).suffixes
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())
    files = [path for path in files if 0 < path.stat().st_size <= LARGEST]
    for place in rng.permutation(len(files))[:programs]:
        try:
            yield Program(files[place].read_bytes().decode(), language)
        except UnicodeDecodeError:
            continue


def names(site: Site, rng: np.random.Generator) -> dict[int, str]:
    """A fresh name for every binding, no two the same: half of them short, so that they sort before and after."""
    fresh: dict[str, None] = {}
    while len(fresh) < len(site.bindings):
        number = int(rng.integers(10**6))
        name = f"{'abcdefghijklmnopqrstuvwxyz'[number % 26]}{number}" + ("_renamed" if number % 2 else "")
        if site.allows(name):
            fresh[name] = None
    return dict(enumerate(fresh))


def measure(language: str, folders: list[Path], programs: int, seed: int, functions: bool) -> dict[str, Any]:
    """Rename and compare a sample."""
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    failures: list[str] = []
    seconds = 0.0
    for folder in folders:
        for program in sources(folder, language, programs // len(folders), rng):
            began = time.process_time()
            site = site_of(program, functions=functions)
            renames = names(site, rng)
            verdict = compare(program, site.render(renames), functions=functions)
            seconds += time.process_time() - began
            resolution = resolve(program.code, language)
            refusals.update(binding.refusal for binding in resolution.bindings if binding.refusal)
            counts["programs"] += 1
            counts["bytes"] += len(resolution.source)
            counts["with parse errors"] += resolution.errors > 0
            counts["bindings"] += len(resolution.bindings)
            counts["renamed"] += len(renames)
            counts["tokens renamed"] += sum(len(binding.spans) for binding in site.bindings)
            counts["bytecode compared"] += "bytecode" in verdict.checks
            complete = verdict.equivalent and len(verdict.renames) == len(renames)
            counts["equivalent"] += complete
            if not complete:
                failures.append(verdict.reason or f"{len(verdict.renames)} of {len(renames)} bindings have new names")
    return {
        "language": language,
        "functions": functions,
        "seed": seed,
        **counts,
        "cpu_seconds": round(seconds, 2),
        "refusals": dict(refusals.most_common(15)),
        "failures": failures[:20],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", action="append", default=[], metavar="LANGUAGE=DIR")
    parser.add_argument("--programs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--functions", action="store_true", help="rename functions as well")
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    paths = sysconfig.get_paths()
    folders: dict[str, list[Path]] = {}
    for spec in options.folder or [f"python={paths['stdlib']}", f"python={paths['purelib']}"]:
        language, _, folder = spec.partition("=")
        folders.setdefault(language, []).append(Path(folder))
    path = RESULTS / "rename-safety.json"
    stored = json.loads(path.read_text()) if path.exists() else {"rows": []}
    for language, places in folders.items():
        row = measure(language, places, options.programs, options.seed, options.functions)
        print(json.dumps(row, indent=1))
        key = ("language", "functions", "seed")
        rows = [old for old in stored["rows"] if any(old[part] != row[part] for part in key)]
        stored = {"machine": machine(), "rows": sorted([*rows, row], key=lambda one: [str(one[part]) for part in key])}
        if not options.no_save:
            path.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
