"""Where images come from: two-stage data modules over packed arrays."""

from tlkit.data.augment import Crop, Dihedral, Flip, RandomResizedCrop
from tlkit.data.augmentation import Augmentation
from tlkit.data.batch import Batch
from tlkit.data.class_images import ClassImages
from tlkit.data.class_split import ClassSplit
from tlkit.data.fashion_mnist import FashionMNIST
from tlkit.data.fractals import Fractals
from tlkit.data.hrtem import HRTEM
from tlkit.data.ilsvrc2012 import ILSVRC2012
from tlkit.data.image_folder import ImageFolder
from tlkit.data.micrographs import MicrographPairs
from tlkit.data.mixing import CutMix, MixUp
from tlkit.data.rand_augment import RandAugment
from tlkit.data.two_stage import TwoStageData

__all__ = [
    "HRTEM",
    "ILSVRC2012",
    "Augmentation",
    "Batch",
    "ClassImages",
    "ClassSplit",
    "Crop",
    "CutMix",
    "Dihedral",
    "FashionMNIST",
    "Flip",
    "Fractals",
    "ImageFolder",
    "MicrographPairs",
    "MixUp",
    "RandAugment",
    "RandomResizedCrop",
    "TwoStageData",
]
