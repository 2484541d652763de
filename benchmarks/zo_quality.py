"""Zeroth-order gradients at a trained bottleneck: how true they are, and what training costs beside the models alone.

    python -m benchmarks.zo_quality

Black box and images are of ``benchmarks.zo_ae_ds`` (mnist5k, sigma 0.5). Cosines are means over 64 noisy images, to
the gradient that autograd gives. "8 bit" rounds what the black box sees to 255 levels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bbox.defenses.books import Books
from bbox.defenses.zo_ae_ds.networks import DENOISERS, Autoencoder, Purifier
from bbox.defenses.zo_ae_ds.objective import BlackBox
from bbox.defenses.zo_ae_ds.pretrain import train_autoencoder, train_denoiser
from bbox.defenses.zo_ae_ds.zeroth_order import Schedule, estimate, find_step, train
from bbox.oracle import Oracle
from bbox.targets.torch_module import TorchTarget
from bbox.zo import CGE, RGE, Estimator, FullSpace, root_keys
from benchmarks.results_file import write
from benchmarks.zo_ae_ds import load_case

DIM, SIGMA = 32, 0.5


class EightBit(nn.Module):
    """A black box that rounds its input to 8 bits, as any API of pictures does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, rows: Tensor) -> Tensor:
        answer: Tensor = self.module((rows * 255).round() / 255)
        return answer


def quality(purifier: Purifier, target: TorchTarget, images: Tensor) -> dict[str, Any]:
    """Cosines of the estimators, on the exact and on the 8-bit black box."""
    box = BlackBox(Books(Oracle(target, max_batch=256), {}))
    clean = box.clean(images, "fit")
    torch.manual_seed(1)
    with torch.no_grad():
        points = purifier.point(purifier.denoise(images + SIGMA * torch.randn_like(images)))
    at = points.clone().requires_grad_(True)
    loss = F.cross_entropy(target.with_gradient(purifier.image(at)), clean, reduction="none")
    (true,) = torch.autograd.grad(loss.sum(), at)
    rounded = TorchTarget(EightBit(target.module), name="8 bit", num_classes=10)
    found: dict[str, Any] = {}
    rows: list[tuple[str, TorchTarget, Estimator, float | None]] = [
        ("CGE forward, step 0.005", target, CGE(), 0.005),
        ("CGE forward, step 0.05", target, CGE(), 0.05),
        ("CGE central, step 0.05", target, CGE("central"), 0.05),
        ("sphere q=20, step 0.05", target, RGE(20), 0.05),
        ("orthogonal q=4, step 0.05", target, RGE(4, law="orthogonal"), 0.05),
        ("orthogonal q=32, step 0.05", target, RGE(DIM, law="orthogonal"), 0.05),
        ("CGE forward, probed", target, CGE(), None),
        ("8 bit: CGE forward, step 0.005", rounded, CGE(), 0.005),
        ("8 bit: CGE forward, probed", rounded, CGE(), None),
    ]
    for name, asked, estimator, step in rows:
        books = Books(Oracle(asked, max_batch=256), {})
        box = BlackBox(books)
        with torch.no_grad():
            if step is None:
                step = find_step(purifier, box, points[:16], clean[:16], FullSpace((DIM,)), seed=0, rms=1.0)
            steps = torch.full((len(points),), step)
            keys = root_keys(3, torch.arange(len(points)))
            got = estimate(purifier, box, estimator, points, clean, None, keys, steps, FullSpace((DIM,)), "fit")
        cosine = F.cosine_similarity(got, true, dim=1)
        found[name] = {
            "step": step,
            "queries": books.spent["fit"] / len(points),
            "cosine": float(cosine.mean()),
            "cosine of the mean": float(F.cosine_similarity(got.mean(0), true.mean(0), dim=0)),
            "probe": books.spent["probe"],
        }
    return found


def speed(purifier: Purifier, target: TorchTarget, images: Tensor, budget: int = 40_000) -> dict[str, float]:
    """Wall time of zeroth-order training over the time of the same forwards and backwards and nothing else."""
    box = BlackBox(Books(Oracle(target, max_batch=256), {"fit": budget + len(images)}))
    clean = box.clean(images, "fit")
    calls: list[int] = []
    bare: Callable[..., Tensor] = purifier.denoise

    def counted(rows: Tensor) -> Tensor:
        calls.append(len(rows) if torch.is_grad_enabled() else -len(rows))
        return bare(rows)

    purifier.denoise = counted  # type: ignore[method-assign]
    schedule = Schedule(256, 0.1, 1e-3, 10.0)
    arguments: dict[str, Any] = {"sigma": SIGMA, "estimator": RGE(4, law="orthogonal"), "space": FullSpace((DIM,))}
    began = time.perf_counter()
    train(purifier, box, images, clean, step=0.1, schedule=schedule, seed=0, report=lambda *_: None, **arguments)
    wall = time.perf_counter() - began
    purifier.denoise = bare  # type: ignore[method-assign]
    optimizer = torch.optim.AdamW(purifier.trainable(), lr=1e-4)
    began = time.perf_counter()
    for count in calls:
        rows = torch.rand(abs(count), *images.shape[1:])
        if count < 0:
            with torch.no_grad():
                asked = purifier(rows)
                target(asked)
        else:
            with torch.no_grad():
                for part in torch.split(torch.randn(4 * count, DIM), 256):
                    target(purifier.image(part))
            optimizer.zero_grad()
            purifier.point(purifier.denoise(rows)).sum().backward()
            optimizer.step()
    models = time.perf_counter() - began
    print(f"zeroth-order training: {wall:.1f} s, models alone {models:.1f} s, ratio {wall / models:.2f}")
    return {"wall": wall, "models": models, "ratio": wall / models}


def main() -> None:
    torch.set_num_threads(1)
    target, images, _, _ = load_case("mnist5k")
    assert isinstance(target, TorchTarget)
    torch.manual_seed(0)
    autoencoder = Autoencoder((1, 28, 28), DIM).to(memory_format=torch.channels_last)
    purifier = Purifier(DENOISERS["dncnn"](1).to(memory_format=torch.channels_last), autoencoder)
    train_autoencoder(autoencoder, images, steps=900, report=lambda *_: None)
    train_denoiser(purifier, images, SIGMA, steps=300, report=lambda *_: None)
    cosines = quality(purifier, target, images[:64])
    rows = [{"estimator": name, **values} for name, values in cosines.items()]
    write("zo-quality", speed(purifier, target, images), rows)


if __name__ == "__main__":
    main()
