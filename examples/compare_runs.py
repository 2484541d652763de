"""Compare two attacks example by example: exact paired tests say which difference is real."""

from pathlib import Path
from tempfile import TemporaryDirectory

import bbox
from bbox.results.compare import compare

digits = bbox.data.load("zoo:digits").select(limit=16)
with TemporaryDirectory() as folder:
    runs = [Path(folder) / "cgba", Path(folder) / "hop-skip-jump"]
    for name, out in zip(("cgba", "foolbox:HopSkipJumpAttack"), runs, strict=True):
        bbox.attack("zoo:digits", digits, attack=name, budget=200, epsilons=(2.0,), out=out)
    found = compare(runs)  # bbox compare RUN_A RUN_B prints the same, and writes a page with the curves

last = found["runs"][1]["against"]["at"][-1]  # the second run against the first, at the largest budget of both
ratio, change = last["distance"], last["robust_accuracy"][0]
print(
    f"l2 over that of cgba at {last['queries']} queries: median ratio {ratio['ratio']:.2f}, p {ratio['p_adjusted']:.2g}"
)
print(f"closer on {ratio['closer']} of {ratio['n']} digits, farther on {ratio['farther']}")
print(f"robust accuracy at l2 2: {100 * change['difference']:+.1f} points, p {change['p_adjusted']:.2g}")
