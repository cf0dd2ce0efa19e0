"""Any of torchvision's classification networks, by name."""

from typing import cast

import torchvision
from torch import Tensor, nn

from tlkit.errors import UserError, suggest
from tlkit.models.network import check_arguments, check_channels

# Their auxiliary outputs exist in training only, where they would turn the output into a tuple. Without `init_weights`
# they warn that its default will change.
WITHOUT_AUXILIARY = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


class TorchvisionNetwork(nn.Module):
    """One of torchvision's classification networks, with fresh weights.

    Its modules and parameters have torchvision's own names (``layer1.0.conv1.weight``), so a file with torchvision's
    weights fits key for key. One layer per module that owns a weight of two or more dimensions; ``tlkit.layers`` has
    the rule.
    """

    def __init__(self, name: str, num_classes: int = 1000, in_channels: int = 3) -> None:
        """Builds the network; nothing is downloaded.

        Args:
            name: as in ``torchvision.models``, such as ``resnet18``.
            num_classes: number of outputs.
            in_channels: channels of the images: 3, or 1, which is then repeated three times.

        Raises:
            UserError: there is no such network, or an argument is out of range.
        """
        super().__init__()
        names = torchvision.models.list_models(module=torchvision.models)
        if name not in names:
            raise UserError(
                f"expected one of torchvision's classification networks ({', '.join(names)}), got '{name}'"
                f"{suggest(name, names)}"
            )
        check_arguments(
            "TorchvisionNetwork",
            {
                "num_classes": (num_classes, num_classes >= 1, "at least 1"),
                "in_channels": (in_channels, in_channels in (1, 3), "1 or 3"),
            },
        )
        self.in_channels = in_channels
        whole = torchvision.models.get_model(
            name, weights=None, num_classes=num_classes, **WITHOUT_AUXILIARY.get(name, {})
        )
        # Shared instead of nested, since a submodule would put its name before every key and every layer. What is
        # shared is the dicts, so that moving, replacing or copying anything here does it there as well.
        self._modules, self._parameters, self._buffers = whole._modules, whole._parameters, whole._buffers
        self.__dict__["_whole"] = whole  # past Module.__setattr__, which would register it

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits ``(B, num_classes)`` of images ``(B, in_channels, H, W)``.

        Raises:
            UserError: the images have other channels, or a size that this network is not made for.
        """
        check_channels("TorchvisionNetwork", x, self.in_channels)
        whole = self.__dict__["_whole"]
        whole.training = self.training
        try:
            return cast(Tensor, whole(x.expand(-1, 3, -1, -1)))
        except AssertionError as error:  # how the transformers refuse an image size
            raise UserError(
                f"{type(whole).__name__} takes no images of {x.shape[-2]} x {x.shape[-1]} pixels: {error} "
                "Resize them, or use another network."
            ) from error
