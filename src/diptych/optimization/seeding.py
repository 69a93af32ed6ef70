"""Randomness as an argument: a generator for every purpose, from one seed."""

import hashlib

import torch


def generator(*keys: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator that is a function of its keys alone.

    Args:
        *keys: The seed, then what the numbers are for: `generator(seed, "order", epoch)`.
        device: Where the numbers are drawn. Devices draw different numbers from the same keys.

    Returns:
        A generator whose stream is independent of that of any other keys.
    """
    digest = hashlib.sha256(repr(keys).encode()).digest()
    seed = int.from_bytes(digest[:8], "little") >> 1
    return torch.Generator(device).manual_seed(seed)
