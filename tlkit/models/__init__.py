"""Networks: AlexNet, U-Net, and torchvision's by name."""

from tlkit.models.alexnet import AlexNet
from tlkit.models.network import Network
from tlkit.models.tiling import predict_tiled
from tlkit.models.torchvision_network import TorchvisionNetwork
from tlkit.models.unet import UNet

__all__ = ["AlexNet", "Network", "TorchvisionNetwork", "UNet", "predict_tiled"]
