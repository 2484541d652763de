"""Quiet transformers: a bar on stderr for each tiny model would drown what a failing test says."""

from transformers.utils import logging

logging.disable_progress_bar()
