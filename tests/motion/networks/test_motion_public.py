"""The key maps, on state dicts that are laid out as those of the public code.

They were checked once against the public code itself with random weights: outputs agreed to 7e-7 of their size.
"""

import re

import pytest
import torch

from bbox.errors import InputError, UsageError
from bbox.motion.networks import make_network
from bbox.motion.networks.public import load_public, load_public_two_stream
from bbox.motion.skeletons import SKELETONS

NTU = SKELETONS["ntu25"]


def made(name, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make_network(name, NTU, 7, bodies=1 if name == "st-gcn" else 2, full=True, as_published=True)
        for weight in network.parameters():
            if weight.dim() < 2:
                torch.nn.init.normal_(weight, 0.5, 0.1)
    return network.eval()


def as_public_agcn(network):
    """Our AGCN's weights under the public names: a convolution for each graph."""
    units = {
        "spatial_around": "gcn1.down", "spatial_norm": "gcn1.bn", "temporal.0": "tcn1.conv", "temporal.1": "tcn1.bn",
        "around.0": "residual.conv", "around.1": "residual.bn", "learned": "gcn1.PA",
    }  # fmt: skip
    state = {}
    for key, tensor in network.state_dict().items():
        name = re.sub(r"^blocks\.(\d+)", lambda found: f"l{int(found[1]) + 1}", key)
        name = re.sub(r"^norm", "data_bn", re.sub(r"^head", "fc", name))
        for ours, theirs in units.items():
            name = re.sub(rf"^(l\d+)\.{re.escape(ours)}", rf"\1.{theirs}", name)
        found = re.fullmatch(r"(l\d+)\.(query|key|mix)\.(weight|bias)", name)
        if found is None:
            state[name] = tensor
            continue
        letter = {"query": "a", "key": "b", "mix": "d"}[found[2]]
        if letter == "d":
            pieces = tensor.chunk(3, 1) if found[3] == "weight" else [tensor / 3] * 3
        else:
            pieces = tensor.chunk(3)
        for graph, piece in enumerate(pieces):
            state[f"{found[1]}.gcn1.conv_{letter}.{graph}.{found[3]}"] = piece.clone()
    return state


@pytest.fixture(scope="module")
def motions():
    motions = torch.randn(2, 3, 16, 25, 2, generator=torch.Generator().manual_seed(0))
    motions[1, ..., 1] = 0
    return motions


def test_a_stream_of_2s_agcn_and_both(tmp_path, motions):
    paths = [tmp_path / "joint.pt", tmp_path / "bone.pt"]
    streams = [made("agcn", seed) for seed in (0, 1)]
    for path, stream in zip(paths, streams, strict=True):
        torch.save({f"module.{key}": tensor for key, tensor in as_public_agcn(stream).items()}, path)
    with torch.no_grad():
        joint = load_public(paths[0], "agcn")
        assert (joint.skeleton, joint.classes, joint.bodies) == (NTU, 7, 2)
        torch.testing.assert_close(joint(motions), streams[0](motions), rtol=1e-4, atol=1e-4)
        parents = [joint if parent == -1 else parent for joint, parent in enumerate(NTU.parents)]
        bones = motions - motions[:, :, :, parents]
        both = load_public_two_stream(*paths)(motions)
        torch.testing.assert_close(both, streams[0](motions) + streams[1](bones), rtol=1e-4, atol=1e-4)


def test_the_graphs_of_st_gcn_are_those_of_the_file(tmp_path, motions):
    network = made("st-gcn")
    names = {"norm": "data_bn", "head": "fcn"}
    blocks = {"spatial.": "gcn.conv.", "spatial_norm.": "tcn.0.", "temporal.0.": "tcn.2.", "temporal.1.": "tcn.3.",
              "around.": "residual."}  # fmt: skip
    graphs = torch.rand(3, 25, 25, generator=torch.Generator().manual_seed(2)) / 25
    state = {"A": graphs}
    for key, tensor in network.state_dict().items():
        found = re.fullmatch(r"blocks\.(\d+)\.(.*)", key)
        if found is None:
            name = names[key.partition(".")[0]] + "." + key.partition(".")[2]
            state[name] = tensor[..., None, None] if key == "head.weight" else tensor
        elif found[2] == "importance":
            state[f"edge_importance.{found[1]}"] = tensor
        else:
            name = found[2]
            for ours, theirs in blocks.items():
                name = re.sub(rf"^{re.escape(ours)}", theirs, name)
            state[f"st_gcn_networks.{found[1]}.{name}"] = tensor
    torch.save(state, tmp_path / "st.pt")
    loaded = load_public(tmp_path / "st.pt", "st-gcn")
    with torch.no_grad():
        assert not torch.allclose(loaded(motions), network(motions), rtol=1e-3)
        for block in network.blocks:
            block.graphs.copy_(graphs)
        torch.testing.assert_close(loaded(motions), network(motions), rtol=1e-4, atol=1e-4)


def test_what_does_not_map_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no key map for network 'hcn'"):
        load_public(tmp_path / "x.pt", "hcn")
    with pytest.raises(InputError, match=r"not a readable .safetensors or state-dict file"):
        load_public(tmp_path / "x.pt", "agcn")
    state = as_public_agcn(made("agcn"))
    torch.save({key: tensor for key, tensor in state.items() if "conv_a" not in key}, tmp_path / "part.pt")
    with pytest.raises(InputError, match=r"do not fit agcn: blocks.0.query.weight is missing"):
        load_public(tmp_path / "part.pt", "agcn")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="not those of the public ctr-gcn"):
        load_public(tmp_path / "other.pt", "ctr-gcn")
