import math

import torch
from torch import nn
from torch.nn import functional

from bbox.motion.contrastive import Contrast, info_nce


class Flat(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 4 * 2, width)

    def forward(self, motions: torch.Tensor) -> torch.Tensor:
        return self.linear(motions.flatten(1))


def contrast(queue: int = 8, encoders: int = 2) -> Contrast:
    torch.manual_seed(0)
    widths = [5, 7][:encoders]
    return Contrast([Flat(w) for w in widths], widths, dimensions=6, queue=queue, momentum=0.9, temperature=0.2)


def test_info_nce_is_the_formula() -> None:
    g = torch.Generator().manual_seed(0)
    query, key, past = (functional.normalize(torch.randn(n, 4, generator=g), dim=1) for n in (2, 2, 3))
    same = torch.tensor([[False, True, False], [False, False, False]])
    found = info_nce(query, key, past, 0.5, same)
    for i in range(2):
        own = math.exp(float(query[i] @ key[i]) / 0.5)
        others = sum(math.exp(float(query[i] @ past[j]) / 0.5) for j in range(3) if not same[i, j])
        assert abs(float(found[i]) + math.log(own / (own + others))) < 1e-6


def test_each_query_meets_the_others_key_and_the_others_queue() -> None:
    model = contrast().eval()
    views = torch.randn(2, 3, 3, 4, 2, 1)
    queue = model.queue.clone()
    loss = model(views, torch.tensor([0, 1, 2]))
    query = [functional.normalize(q(views[0]), dim=1) for q in model.queries]
    key = [functional.normalize(k(views[1]), dim=1) for k in model.keys]
    expected = info_nce(query[0], key[1], queue[1], 0.2).mean() + info_nce(query[1], key[0], queue[0], 0.2).mean()
    assert torch.allclose(loss, expected)


def test_queue_is_a_ring_of_the_newest_keys_and_knows_their_clips() -> None:
    model = contrast(queue=4)
    batches = [torch.tensor(clips) for clips in ([0, 1, 2], [3, 4, 5])]
    for clips in batches:
        views = torch.randn(2, 3, 3, 4, 2, 1)
        model(views, clips)
    assert model.owners.tolist() == [4, 5, 2, 3]
    assert int(model.place) == 2
    expected = functional.normalize(model.keys[1](views[1]), dim=1)
    assert torch.allclose(model.queue[1, [3, 0, 1]], expected)


def test_a_clip_is_no_negative_of_itself() -> None:
    model = contrast(queue=3, encoders=1)
    views = torch.randn(2, 3, 3, 4, 2, 1)
    model(views, torch.tensor([0, 1, 2]))
    own = model.queue[0].clone()
    found = model(views, torch.tensor([0, 1, 2]))
    query, key = (functional.normalize(n[0](v), dim=1) for n, v in zip((model.queries, model.keys), views, strict=True))
    assert torch.allclose(found, info_nce(query, key, own, 0.2, torch.eye(3, dtype=torch.bool)).mean())
    assert not torch.allclose(found, info_nce(query, key, own, 0.2).mean())


def test_twins_follow_and_take_no_gradient() -> None:
    model = contrast()
    old = [p.clone() for p in model.keys.parameters()]
    with torch.no_grad():
        for p in model.queries.parameters():
            p += 1
    model.follow()
    for before, slow, fast in zip(old, model.keys.parameters(), model.queries.parameters(), strict=True):
        assert torch.allclose(slow, 0.9 * before + 0.1 * fast)
        assert not slow.requires_grad
    model(torch.randn(2, 3, 3, 4, 2, 1), torch.tensor([0, 1, 2])).backward()
    assert all(p.grad is not None for p in model.queries.parameters())
    assert all(p.grad is None for p in model.keys.parameters())
