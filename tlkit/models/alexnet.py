"""AlexNet, at any size."""

import math
from itertools import count
from operator import attrgetter
from typing import Any, Literal

from torch import Tensor, nn

from tlkit.errors import UserError
from tlkit.models.network import Network, check_arguments, check_channels

CHANNELS = (64, 192, 384, 256, 256)  # conv1 ... conv5 at width 1, as torchvision has them


class AlexNet(Network):
    """AlexNet (Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014).

    At the defaults it is torchvision's AlexNet: 61,100,840 parameters, the same keys, the same outputs.

    Layers: ``conv1`` to ``conv5`` (group ``features``), ``fc6`` to ``fc8`` (group ``classifier``). A layer ends where
    the next one's weights, or the dropout before them, begin.
    """

    layer_modules = {
        "conv1": ("features.0", "features.1", "features.2"),
        "conv2": ("features.3", "features.4", "features.5"),
        "conv3": ("features.6", "features.7"),
        "conv4": ("features.8", "features.9"),
        "conv5": ("features.10", "features.11", "features.12", "avgpool"),
        "fc6": ("classifier.0", "classifier.1", "classifier.2"),
        "fc7": ("classifier.3", "classifier.4", "classifier.5"),
        "fc8": ("classifier.6",),
    }
    groups = {"features": ("conv1", "conv2", "conv3", "conv4", "conv5"), "classifier": ("fc6", "fc7", "fc8")}

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        width: float = 1.0,
        fc_width: int = 4096,
        pool: int = 6,
        init: Literal["torch", "he"] = "torch",
        in_channels: int = 3,
        dropout: float = 0.5,
    ) -> None:
        """Builds the network with fresh weights.

        Args:
            num_classes: number of outputs.
            image_size: height and width of the images in pixels; checked to be large enough. Images of other sizes
                work too as long as they are.
            width: factor on the channels of the convolutions (64, 192, 384, 256, 256), rounded.
            fc_width: outputs of fc6 and of fc7.
            pool: height and width to which the last feature map is averaged.
            init: ``torch`` for PyTorch's own, ``he`` for Kaiming normal weights (fan in, gain of ReLU) and zero biases.
            in_channels: channels of the images.
            dropout: probability of dropping an input of fc6 and of fc7.

        Raises:
            UserError: an argument is out of range, or the images are too small for the network.
        """
        super().__init__()
        check_arguments(
            "AlexNet",
            {
                "num_classes": (num_classes, num_classes >= 1, "at least 1"),
                "width": (
                    width,
                    math.isfinite(width) and round(CHANNELS[0] * width) >= 1,
                    "a finite factor above 1/128",
                ),
                "fc_width": (fc_width, fc_width >= 1, "at least 1"),
                "pool": (pool, pool >= 1, "at least 1"),
                "init": (init, init in ("torch", "he"), "'torch' or 'he'"),
                "in_channels": (in_channels, in_channels >= 1, "at least 1"),
                "dropout": (dropout, 0 <= dropout < 1, "a probability in [0, 1)"),
            },
        )
        _check_size(image_size, image_size)
        self.image_size = image_size
        self.in_channels = in_channels
        c1, c2, c3, c4, c5 = (round(channels * width) for channels in CHANNELS)
        self.features = nn.Sequential(
            *(nn.Conv2d(in_channels, c1, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2)),
            *(nn.Conv2d(c1, c2, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2)),
            *(nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(c3, c4, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(c4, c5, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2)),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((pool, pool))
        self.classifier = nn.Sequential(
            *(nn.Dropout(dropout), nn.Linear(c5 * pool * pool, fc_width), nn.ReLU(inplace=True)),
            *(nn.Dropout(dropout), nn.Linear(fc_width, fc_width), nn.ReLU(inplace=True)),
            nn.Linear(fc_width, num_classes),
        )
        if init == "he":
            self.apply(_init_he)

    def run(self, state: Any, start: int, stop: int) -> Any:
        """Applies layers ``start`` to ``stop - 1``.

        Args:
            state: images ``(B, in_channels, H, W)`` if ``start`` is 0; feature maps ``(B, channels, h, w)`` before
                conv2 to conv5; vectors ``(B, features)`` from there on.
            start: index of the first layer to apply.
            stop: index after the last layer to apply.

        Returns:
            As ``state``; the logits ``(B, num_classes)`` after fc8.

        Raises:
            UserError: the images have other channels, or are too small.
        """
        if start == 0:
            check_channels("AlexNet", state, self.in_channels)
            _check_size(*state.shape[-2:])
        x: Tensor = state
        for paths in list(self.layer_modules.values())[start:stop]:
            for path in paths:
                x = attrgetter(path)(self)(x)  # half the time of get_submodule, 1% of a small step
                if path == "avgpool":
                    x = x.flatten(1)  # (B, channels, pool, pool) -> (B, channels * pool²)
        return x


def _map_size(image_size: int) -> int:
    """Returns the height and width of the last feature map, before averaging; 0 if it vanishes on the way."""
    size = image_size
    for kernel, stride, padding in ((11, 4, 2), (3, 2, 0), (3, 2, 0), (3, 2, 0)):  # conv1, pools; the others keep it
        if size + 2 * padding < kernel:
            return 0
        size = (size + 2 * padding - kernel) // stride + 1
    return size


def _check_size(height: int, width: int) -> None:
    if _map_size(min(height, width)) == 0:
        smallest = next(size for size in count(1) if _map_size(size) > 0)
        raise UserError(
            f"AlexNet: expected images of at least {smallest} x {smallest} pixels, got {height} x {width}: the feature "
            f"map vanishes; use larger images (image_size: {smallest} or more)"
        )


def _init_he(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        assert module.bias is not None
        nn.init.zeros_(module.bias)
