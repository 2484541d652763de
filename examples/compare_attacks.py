"""Compare attacks fairly: the same images, the same budget, counted by the same oracle."""

import bbox

digits = bbox.data.load("zoo:digits").select(limit=8)
for name in ("cgba", "cgba-h", "foolbox:HopSkipJumpAttack"):
    result = bbox.attack("zoo:digits", digits.inputs, digits.labels, name, budget=300, checkpoints=(100, 300), seed=0)
    medians = [row["median_distance"] for row in result.summary["checkpoints"]]
    print(f"{name:28s} median l2 at 100, 300 queries: {medians}   most queries: {int(result.queries.max())}")
