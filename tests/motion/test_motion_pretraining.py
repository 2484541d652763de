import dataclasses
import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from bbox.errors import InputError, UsageError
from bbox.motion.augment import Views
from bbox.motion.encoders import MotionEncoder, features, load_encoder, make_encoder, save_encoder
from bbox.motion.pretraining import Epoch, pretrain
from bbox.motion.quality import EncoderQuality, encoder_quality
from bbox.motion.recipes import RECIPES, Recipe
from bbox.motion.skeleton import Skeleton

ARM = Skeleton("arm", ("shoulder", "elbow", "wrist", "hand"), (-1, 0, 1, 2))
MILD = Views(crop=0.8, rotate=0.1, noise=0.02)
SHORT = Recipe(objective="contrast", epochs=3, steps=0, batch=8, queue=16, views=MILD)
CLUSTERS = dataclasses.replace(SHORT, objective="clusters", clusters=4)


def encoder(kind: str = "both", seed: int = 0) -> MotionEncoder:
    small = {"graph": {"widths": (4, 8), "strides": (1, 2)}, "sequence": {"hidden": 8, "layers": 2, "dropout": 0.2}}
    return make_encoder(kind, ARM, seed=seed, **{k: v for k, v in small.items() if kind in (k, "both")})


def waves(count: int = 24) -> torch.Tensor:
    """Joints that swing at one of three speeds; the last ones end early."""
    g = torch.Generator().manual_seed(0)
    time = torch.arange(16) / 16
    speed = 1 + torch.arange(count) % 3
    phase = torch.rand(count, 3, 1, 4, 1, generator=g)
    made = 0.5 * torch.sin(6.28 * (speed[:, None, None, None, None] * time.view(1, 1, -1, 1, 1) + phase))
    made[-4:, :, 12:] = 0
    return made


@pytest.mark.parametrize("recipe", [SHORT, CLUSTERS])
def test_a_killed_run_that_is_resumed_gives_the_weights_of_an_undisturbed_one(recipe: Recipe, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    recipe = dataclasses.replace(recipe, epochs=4)

    def kill(epoch: Epoch) -> None:
        if epoch.done == 3:  # the checkpoint is of epoch 2: epoch 3 is done again
            raise KilledError

    whole = pretrain(encoder(), waves(), recipe, keep="trained")
    with pytest.raises(KilledError):
        pretrain(encoder(), waves(), recipe, folder=tmp_path, every=2, progress=kill)
    torch.rand(3)  # nothing may hang on torch's own generator
    seen: list[int] = []
    resumed = pretrain(
        encoder(), waves(), recipe, folder=tmp_path, every=2, keep="trained", progress=lambda e: seen.append(e.done)
    )
    assert seen == [3, 4]
    assert resumed.losses == whole.losses
    expected = whole.encoder.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.encoder.state_dict().items())
    again = pretrain(encoder(), waves(), recipe, folder=tmp_path, keep="trained")
    assert again.losses == whole.losses and again.after == whole.after


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    recipe = dataclasses.replace(SHORT, epochs=1)
    pretrain(encoder(), waves(), recipe, folder=tmp_path)
    with pytest.raises(UsageError, match="another encoder, recipe, seed or data"):
        pretrain(encoder(), waves(), recipe, folder=tmp_path, seed=1)
    with pytest.raises(UsageError, match="another encoder"):
        pretrain(encoder("graph"), waves(), recipe, folder=tmp_path)
    (tmp_path / "pretraining.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="cannot be read"):
        pretrain(encoder(), waves(), recipe, folder=tmp_path)


@pytest.mark.parametrize("recipe", [SHORT, CLUSTERS])
def test_training_lowers_the_loss_and_leaves_the_given_encoder_as_it_is(recipe: Recipe) -> None:
    given, longer = encoder(), dataclasses.replace(recipe, epochs=8, rate=1e-2)
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    found = pretrain(given, waves(), longer, keep="trained")
    # The first epoch of contrast is against a queue of random vectors, which is easy.
    assert found.losses[-1] < found.losses[1] - 0.1
    assert found.finished and not any(p.requires_grad for p in found.encoder.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in given.state_dict().items())


def test_few_motions_take_more_epochs() -> None:
    seen: list[int] = []
    recipe = dataclasses.replace(SHORT, epochs=1, steps=7)  # 3 steps an epoch
    pretrain(encoder("sequence"), waves(), recipe, progress=lambda epoch: seen.append(epoch.total))
    assert seen == [3, 3, 3]


def test_time_limit_stops_after_an_epoch_and_keeps_it(tmp_path: Path) -> None:
    found = pretrain(encoder(), waves(), SHORT, folder=tmp_path, time_limit=0.0, keep="trained")
    assert len(found.losses) == 1 and not found.finished
    assert pretrain(encoder(), waves(), SHORT, folder=tmp_path, keep="trained").finished


def test_a_training_that_made_it_worse_is_warned_of_and_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    wild = dataclasses.replace(SHORT, epochs=2, optimizer="sgd", rate=50.0, views=Views(corrupt=1.0))
    with caplog.at_level(logging.WARNING):
        found = pretrain(encoder("sequence"), waves(), wild)
    assert found.after.instance < found.before.instance
    assert found.warning and "instance discrimination fell" in found.warning
    assert found.warning in caplog.text
    assert found.kept == "untrained"
    assert encoder_quality(found.encoder, waves()).instance == found.before.instance
    assert pretrain(encoder("sequence"), waves(), wild, keep="trained").kept == "trained"


class Mean(nn.Module):
    def forward(self, motions: torch.Tensor) -> torch.Tensor:
        return motions[:, 0, :, 0, 0]


def test_quality_of_features_that_are_known() -> None:
    same = encoder_quality(Mean(), waves(12), labels=torch.arange(12) % 3, views=Views(scale=0.1))
    assert same == EncoderQuality(instance=1.0, neighbour=same.neighbour, clips=12)
    noise = encoder_quality(Mean(), waves(12), views=Views(noise=1e4))
    assert noise.instance < 0.5 and noise.neighbour is None
    worse = EncoderQuality(0.5, 0.4, 12).worse_than(EncoderQuality(0.5, 0.6, 12))
    assert worse == "training made the encoder worse: nearest-neighbour agreement fell from 0.60 to 0.40"


def test_the_paper_recipe_shrinks_its_queue_and_drops_its_rate() -> None:
    paper = RECIPES["paper"]
    assert (paper.queue, paper.temperature, paper.momentum, paper.rate) == (16384, 0.07, 0.999, 0.01)
    found = pretrain(encoder("graph"), waves(), dataclasses.replace(paper, epochs=2, batch=8), keep="trained")
    assert len(found.losses) == 2


@pytest.mark.parametrize("kind", ["graph", "sequence", "both"])
def test_a_saved_encoder_comes_back_the_same(kind: str, tmp_path: Path) -> None:
    made = encoder(kind).eval()
    save_encoder(tmp_path, made)
    back = load_encoder(tmp_path, "cpu")
    found = features(back, waves())
    assert torch.equal(found, features(made, waves()))
    assert found.shape == (24, {"graph": 8, "sequence": 16, "both": 24}[kind])
    assert not back.training and not any(p.requires_grad for p in back.parameters())
    if kind == "both":
        assert torch.allclose(found[:, :8].norm(dim=1), torch.ones(24))
        assert torch.allclose(found[:, 8:].norm(dim=1), torch.ones(24))


def test_a_broken_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no encoder\.json"):
        load_encoder(tmp_path)
    save_encoder(tmp_path, encoder("graph"))
    config = json.loads((tmp_path / "encoder.json").read_text())
    config["parts"]["graph"]["network"] = "nothing"
    (tmp_path / "encoder.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="no network"):
        load_encoder(tmp_path)
    config["schema_version"] = 99
    (tmp_path / "encoder.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="schema 99"):
        load_encoder(tmp_path)


def test_misuse_is_refused() -> None:
    with pytest.raises(UsageError, match="no encoder 'graf'"):
        make_encoder("graf", ARM)
    with pytest.raises(UsageError, match="no part 'sequence'"):
        make_encoder("graph", ARM, sequence={})
    with pytest.raises(UsageError, match="at least 2"):
        pretrain(encoder(), waves(1), SHORT)
    with pytest.raises(UsageError, match="momentum"):
        Recipe(momentum=1.0)
    with pytest.raises(InputError, match="expected \\(n, features\\)"):
        features(nn.Identity(), waves())
