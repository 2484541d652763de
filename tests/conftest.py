"""What every test shares: one torch thread (two cores, several processes) and a calm Hypothesis."""

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
settings.register_profile("bbox", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.load_profile("bbox")
