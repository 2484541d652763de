"""What every test shares: one thread (two cores, several processes) and a calm Hypothesis."""

import os
import signal

# Before they are loaded: numpy's and scipy's threads are not torch's, and wait for each other on busy cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester"]

torch.set_num_threads(1)
# A shell that starts the tests in the background lets them ignore Ctrl-C, and the processes that they start with them.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("bbox", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.load_profile("bbox")
