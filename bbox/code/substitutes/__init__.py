"""Substitutes: the new names that an identifier may be given. One file a provider; none of them costs a query.

``load_provider("corpus,rank=class", corpus=...)`` makes one; ``provider.suggest(site)`` lists names by binding.
"""

from __future__ import annotations

from bbox.code.substitutes.base import PROVIDERS, Corpus, Provider, Resources, load_provider

__all__ = ["PROVIDERS", "Corpus", "Provider", "Resources", "load_provider"]
