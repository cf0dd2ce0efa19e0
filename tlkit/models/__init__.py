"""Networks: AlexNet, U-Net, and torchvision's by name."""
