"""Short functions in C, Java and Python, labelled by language: what ``magika:raw`` and ``magika:policy`` tell apart."""

from __future__ import annotations

import re
from importlib.resources import files

import torch

from bbox.code.program import Program, Programs
from bbox.data.base import CodeSet
from bbox.zoo.python_projects import split_modules

__all__ = ["load_code_samples"]

_LANGUAGES = ("c", "java", "python")
_EACH = 15


def load_code_samples() -> CodeSet:
    """45 functions, 15 a language, in turns: C and Java written for bbox, Python of the standard library that runs.

    Class names are Magika's, so labels match by name.
    """
    drawn = [function.code for function, _ in split_modules().held_out if function.code.count("\n") >= 10]
    step = len(drawn) // _EACH
    code = {"c": _written("c"), "java": _written("java"), "python": drawn[: step * _EACH : step]}
    order = [(language, place) for place in range(_EACH) for language in _LANGUAGES]
    return CodeSet(
        name="zoo:code-samples",
        inputs=Programs(Program(code[language][place], language) for language, place in order),
        labels=torch.tensor([_LANGUAGES.index(language) for language, _ in order]),
        indices=torch.arange(len(order)),
        ids=tuple(f"{language}-{place:02d}" for language, place in order),
        class_names=_LANGUAGES,
    )


def _written(language: str) -> list[str]:
    """The functions of an asset; a line of four slashes stands between them."""
    text = (files("bbox.zoo") / "assets" / f"samples.{language}.txt").read_text(encoding="utf-8")
    return [part.strip("\n") + "\n" for part in re.split(r"^////$", text, flags=re.MULTILINE)]
