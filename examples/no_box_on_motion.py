"""Fool classifiers of skeleton motion that the attack never asks, then go on by queries against one of them."""

from tempfile import TemporaryDirectory

import bbox

motions = bbox.data.load("zoo:motion")  # motion capture in metres; bbox.data.load("motion:clips/") reads your BVH files

with TemporaryDirectory() as folder:
    # No target, no label, no query: an encoder learns from all the motions, and the first 16 are attacked.
    # Epochs and iterations are cut short here, and the log says what that does to the encoder; leave them out.
    options = {"epsilon": 0.03, "encoder": "sequence", "epochs": 2, "iterations": 20}
    made = bbox.craft(motions, options=options, limit=16, baselines=("offset",), out=f"{folder}/smi")
    moved = made.results["methods"]["adversarial"]
    print(f"joints moved by {moved['mean_displacement']:.0f} mm, bone lengths by {moved['bone_change']:.1f}%")

    # Evaluation asks the targets, on a ledger of its own. A rate means something beside that of a random offset.
    for target in bbox.evaluate_folder(made.folder, ["zoo:st-gcn", "zoo:motion-gru"])["targets"]:
        rates = {name: figures["all"] for name, figures in target["methods"].items()}
        told = ", ".join(f"{name} {rate['changed']} of {rate['of']}" for name, rate in rates.items())
        print(f"{target['target']} fooled by {told}; queries: {target['ledger']['evaluate']['queries']}")

# Now with queries: start from the adversarial motions; no coordinate moves by more than 10 cm.
few = motions.select(limit=16)
found = bbox.attack("zoo:st-gcn", few, attack="cgba", starts=made.adversarial, tube=0.1, budget=100)
millimetres = [round(1000 * distance, 1) for distance in found.distance[found.success].tolist()]
print(f"cgba from there: {int(found.success.sum())} of {found.summary['attacked']} fooled, moved by {millimetres} mm")
