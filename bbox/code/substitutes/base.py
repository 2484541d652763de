"""The contract of a substitute provider: which new names an identifier may be given. No provider asks the target."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bbox.code.program import Programs
from bbox.code.site import Site
from bbox.errors import UsageError
from bbox.options import split_spec_options
from bbox.registry import Entry, Registry

__all__ = ["PROVIDERS", "Corpus", "Provider", "Resources", "load_provider"]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Programs that names may be taken from.

    Shapes:
        labels: (n,) int64, the class of each program; ``None`` where none is known.
    """

    programs: Programs
    labels: Tensor | None = None

    def fingerprint(self) -> str:
        """A digest of the programs and their labels."""
        digest = hashlib.sha256()
        for program in self.programs:
            digest.update(f"{program.language} {len(program.code)} {program.code}".encode("utf-8", "surrogatepass"))
        if self.labels is not None:
            digest.update(repr(self.labels.tolist()).encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Resources:
    """What a provider may be built from, beside its spec.

    Attributes:
        corpus: the programs at hand, for providers whose spec names no path; ``None`` for none.
        device: where a language model runs; ``None`` for CUDA where there is one, else the CPU.
        seed: of everything that is drawn.
    """

    corpus: Corpus | None = None
    device: torch.device | None = None
    seed: int = 0


class Provider(ABC):
    """New names for the identifiers of a program. Costs no query: a provider never sees the target."""

    @abstractmethod
    def suggest(self, site: Site, *, avoid: int | None = None, wanted: int | None = None) -> list[list[str]]:
        """For each binding of the site its new names, best first; only names that ``site.usable`` lets through.

        The answer depends on the program and on the arguments alone, not on what was suggested before.

        Args:
            avoid: the true class of the program; where the provider knows classes, names of the others are preferred.
            wanted: the class to reach, in a targeted attack.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A hex digest that changes when other names may be suggested."""


PROVIDERS = Registry(
    "substitute provider",
    "bbox.substitutes",
    {
        "corpus": Entry("bbox.code.substitutes.corpus:load", "names that programs of other classes bind"),
        "mlm": Entry("bbox.code.substitutes.mlm:load", "a masked language model's candidates, as published (ALERT)"),
        "embedding": Entry("bbox.code.substitutes.embedding:load", "nearest names, by an embedding of code at hand"),
        "file": Entry("bbox.code.substitutes.precomputed:load", "substitutes that lie in a file, in ALERT's format"),
        "random": Entry("bbox.code.substitutes.corpus:load_random", "names drawn from the corpus, the baseline"),
    },
)


def load_provider(
    spec: str, *, corpus: Corpus | None = None, device: torch.device | None = None, seed: int = 0
) -> Provider:
    """A provider from what a user types: ``NAME[:PATH][,key=value]``, for example ``corpus,rank=class``.

    Args:
        corpus: the programs that names are taken from where the spec names no path.
        device: where a language model runs.
        seed: of everything that is drawn.

    Raises:
        UsageError: the spec is wrong, or the provider needs what is not installed or not given.
        InputError: a file was read and refused.
    """
    plain, options = split_spec_options(spec)
    name, _, path = plain.partition(":")
    if not name:
        raise UsageError(f"substitutes {spec!r} name no provider; known are: {', '.join(PROVIDERS.names())}")
    found: Provider = PROVIDERS.get(name)(path, options, Resources(corpus, device, seed))
    return found
