"""Fashion-MNIST (Xiao, Rasul, Vollgraf, arXiv 1708.07747, 2017): 70,000 grey images of clothes, in MNIST's files."""

from __future__ import annotations

from typing import ClassVar

from gpucnn.data.download import Remote
from gpucnn.data.mnist import MNIST, Files

MIRRORS = (
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)


def _remote(name: str, sha256: str, size: int) -> Remote:
    return Remote(f"{name}.gz", tuple(f"{mirror}{name}.gz" for mirror in MIRRORS), f"sha256:{sha256}", size)


FILES: Files = {  # train: (images, labels)
    True: (
        _remote(
            "train-images-idx3-ubyte", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880
        ),
        _remote("train-labels-idx1-ubyte", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29_515),
    ),
    False: (
        _remote(
            "t10k-images-idx3-ubyte", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102
        ),
        _remote("t10k-labels-idx1-ubyte", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5_148),
    ),
}


class FashionMNIST(MNIST):
    """Fashion-MNIST's training part (60,000 images) or test part (10,000), 28x28x1: :class:`MNIST` in all but its
    pictures and names.

    ``root`` is the folder of the idx files, or its parent (the files in ``fashion_mnist``, ``fashion-mnist``,
    ``FashionMNIST`` or ``FashionMNIST/raw``). The files are called as MNIST's are, so where ``root`` is None only
    folders of these names are looked into.
    """

    TITLE: ClassVar[str] = "Fashion-MNIST"
    NAME: ClassVar[str] = "fashion_mnist"
    FOLDERS: ClassVar[tuple[str, ...]] = ("fashion_mnist", "fashion-mnist", "FashionMNIST", "FashionMNIST/raw")
    FILES: ClassVar[Files] = FILES
    CLASSES: ClassVar[tuple[str, ...]] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
