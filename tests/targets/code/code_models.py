"""Tiny random transformers, saved as their users save them."""

import torch
from transformers import RobertaConfig, RobertaForSequenceClassification

from bbox.code.program import Program, Programs
from bbox.zoo.make_code_models import make_tokenizer

CODES = [f"def area_{i}(width, height):\n    return width * height + {i}\n" * (1 + i % 5) for i in range(12)]
SINGLES = Programs(Program(code, "python") for code in CODES)
PAIRS = Programs(Program(code, "python", partner) for code, partner in zip(CODES, CODES[3:] + CODES[:3], strict=True))


def config(vocabulary, **more):
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return RobertaConfig(vocab_size=vocabulary, max_position_embeddings=66, type_vocab_size=1, **small, **more)


def tokenizer():
    made = make_tokenizer(CODES, 300)
    made.model_max_length = 64
    return made


def wide(module):
    """Weights that are large enough for answers that differ."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn_like(weight))
    return module.eval()


def save_classifier(folder, **more):
    words = tokenizer()
    model = wide(RobertaForSequenceClassification(config(len(words), **more)))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return model, words
