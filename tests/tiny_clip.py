"""Tiny random CLIP and SigLIP models with tokenizers of letters, saved as transformers saves them."""

import string

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

_TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
_LETTERS = string.ascii_lowercase + string.digits + "."


def save_clip(folder, seed=0):
    special = ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: place for place, token in enumerate([*_LETTERS, *(f"{x}</w>" for x in _LETTERS), *special])}
    last = vocab["<|endoftext|>"]
    text = {"vocab_size": len(vocab), "max_position_embeddings": 40, "bos_token_id": last - 1, "eos_token_id": last}
    vision = {"image_size": 32, "patch_size": 8}
    config = CLIPConfig(
        text_config=_TOWER | text | {"pad_token_id": last}, vision_config=_TOWER | vision, projection_dim=12
    )
    save_model(CLIPModel, config, folder, seed)
    size = {"shortest_edge": 32}
    CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    return str(folder)


def save_siglip(folder, seed=0):
    vocab = {token: place for place, token in enumerate(["<unk>", "</s>", *_LETTERS, " "])}
    text = {"vocab_size": len(vocab), "max_position_embeddings": 40, "projection_size": 16}
    vision = {"image_size": 32, "patch_size": 8}
    save_model(SiglipModel, SiglipConfig(text_config=_TOWER | text, vision_config=_TOWER | vision), folder, seed)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    letters = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=letters, unk_token="<unk>", eos_token="</s>", pad_token="</s>", model_input_names=["input_ids"]
    ).save_pretrained(folder)
    return str(folder)


def save_model(model, config, folder, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = model(config)
        # Initial weights are so small that every image looks alike.
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.3)
            if model is SiglipModel:
                network.logit_scale.fill_(1.5)
                network.logit_bias.fill_(-3.0)
        network.save_pretrained(folder)
