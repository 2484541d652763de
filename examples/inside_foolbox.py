"""bbox's CGBA inside existing foolbox code."""

import foolbox

import bbox
from bbox.zoo.digits import load_digits_model

digits = bbox.data.load("zoo:digits").select(limit=8)
fmodel = foolbox.PyTorchModel(load_digits_model(), bounds=(0, 1))

attack = bbox.as_foolbox("cgba", budget=300)
raw, clipped, success = attack(fmodel, digits.inputs, digits.labels, epsilons=[1.5, 3.0])
print("robust accuracy at l2 of 1.5 and 3.0:", 1 - success.float().mean(axis=-1).numpy())
print("queries:", attack.queries.tolist())
