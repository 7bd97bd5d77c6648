"""Seeds derived from the run's seed, a purpose and a number, independent of workers and processes."""

import hashlib
import random
import struct
from typing import Any

import numpy as np
import torch

_MASK = (1 << 64) - 1

#: Purposes, the word that keeps the random streams of different uses apart.
ORDER, SAMPLE, STEP, INIT = range(4)


def combine_seeds(*words: int) -> int:
    """Hash integers to a 63-bit seed, which depends on each of them and on their order.

    Args:
        words (int): Any integers; only their low 64 bits are used.
    """
    packed = struct.pack(f'<{len(words)}Q', *(int(word) & _MASK for word in words))
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), 'little') >> 1


def base_seed(runner: Any) -> int:
    """Return the run's seed, equal on all ranks even if ``randomness.diff_rank_seed`` shifts ``runner.seed``."""
    shifted = runner._randomness_cfg.get('diff_rank_seed', False)
    return runner.seed - runner.rank if shifted else runner.seed


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seed all global generators for a training iteration (drop path, dropout, sampled negatives).

    Random numbers drawn before by data loading or validation then have no influence on it.

    Args:
        seed (int): Seed of the run.
        iteration (int): Number of the iteration, from 0.
        rank (int): Rank of the process; ranks get unrelated streams.
    """
    derived = combine_seeds(seed, STEP, iteration, rank)
    random.seed(derived)
    np.random.seed(derived & 0xFFFF_FFFF)
    # also seeds every CUDA device, lazily where CUDA is not initialised
    torch.manual_seed(derived)
