"""Fractal categories: labelled images that need no download.

After Kataoka et al. 2020, "Pre-training without Natural Images": a category is an iterated function system of 2 to 8
affine maps, map i chosen with probability proportional to |det A_i|, rendered by the chaos game; its instances scale
one coefficient of each map, are mirrored, and stamp a 3 x 3 patch on every point. Unlike there, coefficients are drawn
until each map shrinks every distance by a fifth or more, so that scaling one of them never makes an image diverge, and
images are drawn at twice their size and averaged.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from typing_extensions import override

from tlkit.data.class_images import ClassImages, Side
from tlkit.data.random import key
from tlkit.errors import UserError

_VERSION = 1  # raised when the same arguments give other images
_MAPS = (2, 8)  # least and greatest number of affine maps
_NORM = 0.8  # greatest spectral norm of a map; scaling one coefficient by 1.2 adds at most 0.2
_FACTORS = (0.8, 0.9, 1.0, 1.1, 1.2)  # of a coefficient, to make an instance
_FILL = 0.2  # least share of pixels that a category's image fills
_FILL_SIZE = 64  # side in pixels of the image that is judged
_STEPS = 64  # of the chaos game that are drawn
_POINTS = 2**20  # that move at once, to bound memory to about 100 MB
_BURN_IN = 16  # of the chaos game that are not: 0.8^16 < 3 % of the way to the attractor is left


class Fractals(ClassImages):
    """Categories of fractals, grey; the same for the same seed whatever their number and size."""

    def __init__(
        self, classes: int = 20, images_per_class: int = 500, test_images_per_class: int = 100, seed: int = 0
    ) -> None:
        """Stores the arguments; images are generated when the data set is packed.

        Args:
            classes: number of categories.
            images_per_class: on the training side (validation is carved from these).
            test_images_per_class: on the test side.
            seed: what the categories are drawn from.
        """
        for name, value in (("classes", classes), ("images_per_class", images_per_class)):
            if value < 1:
                raise UserError(f"expected {name} of Fractals to be at least 1, got {value}")
        if test_images_per_class < 0:
            raise UserError(f"expected test_images_per_class of Fractals to be at least 0, got {test_images_per_class}")
        self.channels = 1
        self.size = 64
        self.seed = seed
        self._count = classes
        self._per_class = {"train": images_per_class, "test": test_images_per_class}

    @property
    @override
    def classes(self) -> list[str]:
        """``fractal0000``, ``fractal0001`` and so on."""
        return [f"fractal{index:04}" for index in range(self._count)]

    @override
    def labels(self, side: Side) -> np.ndarray:
        """Returns ``(n,)`` int64 labels, category after category."""
        return np.repeat(np.arange(self._count), self._per_class[side])

    @override
    def fingerprint(self, cache_dir: Path) -> str:
        """Returns the sha256 hex digest of the arguments and the generator's version."""
        parameters = ("fractals", _VERSION, self._count, *self._per_class.values(), self.seed)
        return hashlib.sha256(repr(parameters).encode()).hexdigest()

    @override
    def images(self, start: int, stop: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Renders rows ``start`` to ``stop - 1``: ``(n, 1, size, size)`` uint8, all readable."""
        train = self._count * self._per_class["train"]
        out = np.empty((stop - start, 1, size, size), dtype=np.uint8)
        names: dict[int, dict[int, str]] = {}  # category -> place in out -> name of the instance
        for place, row in enumerate(range(start, stop)):
            side, first = ("train", 0) if row < train else ("test", train)
            label, number = divmod(row - first, self._per_class[side])
            names.setdefault(label, {})[place] = f"{side} {number}"
        step = max(1, _POINTS // (4 * size * size))
        for label, mine in names.items():
            places = list(mine)
            for group in (places[first : first + step] for first in range(0, len(places), step)):
                out[group, 0] = instances(self.seed, label, [mine[place] for place in group], size)
        return out, np.ones(stop - start, dtype=bool)


@lru_cache(maxsize=64)
def category(seed: int, index: int) -> np.ndarray:
    """Draws an iterated function system whose image is full enough.

    Returns:
        ``(maps, 6)`` float64: rows a, b, c, d, e, f of x' = a x + b y + e, y' = c x + d y + f.
    """
    random = _generator(seed, index)
    while True:
        count = _MAPS[0] + int(random.random() * (_MAPS[1] - _MAPS[0] + 1))
        candidates = 2 * random.random((64 * count, 6)) - 1
        norm = np.linalg.norm(candidates[:, :4].reshape(-1, 2, 2), ord=2, axis=(1, 2))
        maps = candidates[norm < _NORM][:count]
        uniform = random.random((1, _BURN_IN + _STEPS, _chains(_FILL_SIZE)))
        if len(maps) == count and _draw(maps[None], uniform, _FILL_SIZE).mean() >= _FILL:
            return np.asarray(maps)


def instances(seed: int, index: int, names: list[str], size: int) -> np.ndarray:
    """Renders some instances of a category.

    Args:
        seed: of the data set.
        index: of the category.
        names: what distinguishes the instances; the same name gives the same instance.
        size: side in pixels.

    Returns:
        ``(n, size, size)`` uint8, the share of each pixel that is filled.
    """
    maps = category(seed, index)
    generators = [_generator(seed, index, name) for name in names]
    choice = np.stack([random.random(3 + 2 * len(maps)) for random in generators])
    uniform = np.stack([random.random((_BURN_IN + _STEPS, _chains(size)), dtype=np.float32) for random in generators])
    coefficient, factor = np.split(choice[:, 3:], 2, axis=1)  # (n, maps) each
    factor = np.array(_FACTORS)[(factor * len(_FACTORS)).astype(int)]
    scaled = maps * np.where(np.arange(6) == (coefficient * 6).astype(int)[..., None], factor[..., None], 1.0)
    image = _stamp(_draw(scaled, uniform, 2 * size), (choice[:, 0] * 256).astype(int))
    image = np.where((choice[:, 1] < 0.5)[:, None, None], image[:, :, ::-1], image)
    image = np.where((choice[:, 2] < 0.5)[:, None, None], image[:, ::-1], image)
    filled = image.reshape(len(names), size, 2, size, 2).sum(axis=(2, 4))  # 0 … 4 of a pixel's quarters
    return np.asarray(filled * 255 // 4, dtype=np.uint8)


def _generator(*parts: int | str) -> np.random.Generator:
    """Returns a generator named by ``parts``; only its ``random`` is used, whose numbers no release may change."""
    return np.random.Generator(np.random.Philox(key=key("fractals", *parts)))


def _chains(size: int) -> int:
    """Returns how many points move at once: four visits per pixel in all."""
    return max(1, 4 * size * size // _STEPS)


def _draw(maps: np.ndarray, uniform: np.ndarray, size: int) -> np.ndarray:
    """Plays the chaos game and marks the pixels hit, each image stretched to its own extent.

    Args:
        maps: ``(n, maps, 6)``.
        uniform: ``(n, steps, chains)`` in [0, 1): which map each point goes through next.
        size: side in pixels.

    Returns:
        ``(n, size, size)`` bool.
    """
    n, steps, chains = uniform.shape
    a, b, c, d, e, f = np.moveaxis(maps, -1, 0)[:, :, :]  # (n, maps) each
    weight = np.abs(a * d - b * c) + 1e-3  # a map of determinant 0 still has a part in the attractor
    limit = np.cumsum(weight, axis=1) / weight.sum(axis=1, keepdims=True)
    flat = [coefficients.ravel() for coefficients in (a, b, c, d, e, f)]
    first = (np.arange(n) * maps.shape[1])[:, None]
    x, y = np.zeros((n, chains)), np.zeros((n, chains))
    points = np.empty((2, n, steps - _BURN_IN, chains))
    for step in range(steps):
        chosen = first + sum(uniform[:, step] >= limit[:, i, None] for i in range(maps.shape[1] - 1))
        pa, pb, pc, pd, pe, pf = (coefficients[chosen] for coefficients in flat)
        x, y = pa * x + pb * y + pe, pc * x + pd * y + pf
        if step >= _BURN_IN:
            points[0, :, step - _BURN_IN], points[1, :, step - _BURN_IN] = x, y
    low, high = points.min(axis=(2, 3), keepdims=True), points.max(axis=(2, 3), keepdims=True)
    column, row = ((points - low) / np.maximum(high - low, 1e-9) * (size - 1e-6)).astype(np.int64)
    image = np.zeros((n, size, size), dtype=bool)
    image[np.arange(n)[:, None, None], row, column] = True
    return image


def _stamp(image: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """Stamps a 3 x 3 patch on every marked pixel.

    Args:
        image: ``(n, size, size)`` bool.
        patch: ``(n,)`` in 0 … 255: one bit for each of the eight neighbours.

    Returns:
        ``(n, size, size)`` bool.
    """
    size = image.shape[-1]
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    out = image.copy()
    neighbours = [(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    for bit, (dy, dx) in enumerate(neighbours):
        out |= padded[:, dy : dy + size, dx : dx + size] & (patch >> bit & 1).astype(bool)[:, None, None]
    return out
