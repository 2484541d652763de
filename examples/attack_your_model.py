"""Attack a model of your own: any torch module, or any function from images in [0, 1] to scores or labels."""

import torch
from torch import nn

import bbox

# Your model. Here: a linear classifier on 8 x 8 digits, trained in a second.
digits = bbox.data.load("zoo:digits").select(limit=200)
images, labels = nn.functional.avg_pool2d(digits.inputs, 4)[:, :, :7, :7], digits.labels
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(49, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
for _ in range(200):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()

# One call: 500 queries for each image and not one more; every success has been asked again from its saved file.
result = bbox.attack(model, images[:16], labels[:16], "cgba", budget=500)
print(f"attacked {result.summary['attacked']} of {result.summary['examples']} images")
reached = result.summary["checkpoints"][-1]["median_distance"]
print(f"median l2 {reached:.3f} after {result.queries.max()} queries an image")

# Where the model sits behind a function (an API, another framework), wrap the function. Labels alone are enough.
result = bbox.attack(lambda rows: model(rows).argmax(1), images[:4], labels[:4], "cgba", budget=200)
print("labels only:", result.distance.numpy().round(3))
