"""Random numbers per sample that depend on nothing but seed, epoch, sample and the name of the draw."""

import hashlib

from torch import Tensor

_MASK = (1 << 64) - 1
# increment and multipliers of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators")
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def key(*parts: int | str) -> int:
    """Returns 64 bits that name ``parts``, the same in every process and on every machine."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little")


class SampleRandom:
    """One stream of numbers per sample of a batch: a counter hash, so neither order nor batch nor worker matters.

    A draw is named; drawing the same name twice gives the same numbers.
    """

    def __init__(self, seed: int, epoch: int, sample: Tensor) -> None:
        """Prepares the streams; nothing is drawn yet.

        Args:
            seed: the run's seed.
            epoch: counted from 0.
            sample: ``(B,)`` int64 rows in the packed store; the draws lie on its device.
        """
        self.seed = seed
        self.epoch = epoch
        self.sample = sample

    def _bits(self, name: str) -> Tensor:
        """Returns ``(B,)`` int64: 64 hashed bits per sample."""
        z = self.sample * _signed(_GOLDEN) + _signed(key(self.seed, self.epoch, name))
        z = (z ^ _shift(z, 30)) * _signed(_FIRST)
        z = (z ^ _shift(z, 27)) * _signed(_SECOND)
        return z ^ _shift(z, 31)

    def uniform(self, name: str) -> Tensor:
        """Returns ``(B,)`` float32 in [0, 1), one per sample, for the draw called ``name``."""
        return _shift(self._bits(name), 40).float() * 2.0**-24

    def integers(self, name: str, n: int) -> Tensor:
        """Returns ``(B,)`` int64 in 0 … n-1, one per sample, for the draw called ``name``."""
        return _shift(self._bits(name), 1) % n


def _signed(bits: int) -> int:
    """Returns the int64 with the bits of an unsigned number: torch multiplies and adds modulo 2^64."""
    bits &= _MASK
    return bits - (1 << 64) if bits >> 63 else bits


def _shift(x: Tensor, n: int) -> Tensor:
    """Returns ``x >> n`` with zeros moved in, where torch would copy the sign."""
    return (x >> n) & ((1 << (64 - n)) - 1)
