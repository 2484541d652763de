"""bbox: attack and defend black-box models behind an oracle that counts every query."""

__version__ = "0.1.0"
