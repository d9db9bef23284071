"""CIFAR-100 (A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009): 60,000 colour images of
100 classes, which make 20 coarse ones.

Both published versions are read: the python version (``cifar-100-python``, two pickled batches) and the binary version
(``cifar-100-binary``, records of a coarse label, a fine label and 3072 pixel bytes).
"""

from __future__ import annotations

from pathlib import Path

from gpucnn.data.cifar10 import CHANNELS, SIDE, Layout, find_source, read_binary, read_python
from gpucnn.data.dataset import Dataset
from gpucnn.data.download import Remote

_FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""
_COARSE = """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture
    insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
    medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2
"""
FINE, COARSE = tuple(_FINE.split()), tuple(_COARSE.split())
IMAGES = {True: 50_000, False: 10_000}
FILE_LIMIT = 256 << 20  # the training batch has 148 MiB
LAYOUT = Layout(
    "CIFAR-100",
    "cifar-100-python",
    "cifar-100-binary",
    ("cifar-100-python.", "cifar-100-binary."),
    ("cifar-100", "cifar100"),
    limit=FILE_LIMIT,
)
ARCHIVE = Remote(
    "cifar-100-python.tar.gz",
    ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
    "sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    169_001_437,
)


class CIFAR100(Dataset):
    """CIFAR-100's training part (50,000 images) or test part (10,000), 32x32x3.

    Args:
        root: a folder that holds one of the published folders or archives, or such a folder or archive itself. None
            looks in GPUCNN_DATA, then in the user's cache.
        train: the training batch, or the test batch.
        download: whether the data may be downloaded (169 MB, into the user's cache) where ``root`` is None and nothing
            was found.
        coarse: labels 0 to 19 of the coarse classes, instead of 0 to 99.
        count: the number of images that the file must have; the published number where it is None.

    Raises:
        NotFoundError: the data is nowhere; says where it was looked for.
        DataError: a file is cut off, damaged, of the wrong length, hostile, or has labels out of range; names the file.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        train: bool = True,
        download: bool = True,
        coarse: bool = False,
        count: int | None = None,
    ) -> None:
        name = "train" if train else "test"
        count = IMAGES[train] if count is None else count
        classes = COARSE if coarse else FINE
        source = find_source(LAYOUT, ARCHIVE, [name, f"{name}.bin"], root, download)
        if source.has(name) or not source.has(f"{name}.bin"):
            key = b"coarse_labels" if coarse else b"fine_labels"
            pixels, labels = read_python(source, name, count, key, len(classes), FILE_LIMIT)
        else:
            which = 0 if coarse else 1
            pixels, labels = read_binary(source, f"{name}.bin", count, 2, which, len(classes), FILE_LIMIT)
        images = pixels.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)
        super().__init__(images, labels, classes, name="cifar100", train=train, source=str(source))
