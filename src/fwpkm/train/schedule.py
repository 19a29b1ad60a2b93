"""The step size over a run."""

import math

from fwpkm.train.config import ScheduleConfig


def lr_factor(config: ScheduleConfig, done: float) -> float:
    """Return the step size as a share of its height, when a share `done` in [0, 1] of the run is over."""
    if done < config.warmup:
        return done / config.warmup
    if config.warmup == 1:
        return 1.0
    angle = math.pi * min(1.0, (done - config.warmup) / (1 - config.warmup))
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(angle))
