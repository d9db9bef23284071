"""Data sets, batches and augmentation: ``data.create("cifar10")``, ``data.DataLoader(...)``, ``data.transforms``."""

from __future__ import annotations

from gpucnn.data import transforms
from gpucnn.data.arrays import TensorDataset, random_split
from gpucnn.data.augment import Augment
from gpucnn.data.cifar10 import CIFAR10
from gpucnn.data.cifar100 import CIFAR100
from gpucnn.data.dataset import DataError, Dataset
from gpucnn.data.download import NotFoundError
from gpucnn.data.fashion_mnist import FashionMNIST
from gpucnn.data.image_folder import ImageFolder
from gpucnn.data.loader import DataLoader
from gpucnn.data.mnist import MNIST
from gpucnn.data.registry import create, find, names
from gpucnn.data.resident import ResidentLoader, loader_for
from gpucnn.data.shapes import Shapes
from gpucnn.data.transforms import CIFAR10_MEAN, CIFAR10_STD

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "MNIST",
    "Augment",
    "DataError",
    "DataLoader",
    "Dataset",
    "FashionMNIST",
    "ImageFolder",
    "NotFoundError",
    "ResidentLoader",
    "Shapes",
    "TensorDataset",
    "create",
    "find",
    "loader_for",
    "names",
    "random_split",
    "transforms",
]
