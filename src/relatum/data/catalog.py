"""The facts of every named data set, in one table. Neither torch nor NumPy is needed to read it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from relatum.core.plugins import Registry

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Archive:
    """What is downloaded.

    Attributes:
        url: an https address.
        sha256: the hash of the file. None of the four publishers states it; it is what independent users of the
            file have recorded, and downloads are checked against it.
        md5: what the publisher states; empty where it states nothing.
    """

    url: str
    sha256: str
    md5: str = ""


@dataclass(frozen=True)
class NamedSet:
    """A data set that is loaded by its name.

    Attributes:
        about: what it holds, in a line.
        classes: their number.
        train, test: images of each part, to say what a partial copy lacks.
        layouts: folder, relative to the root or to root/name -> name of its reader in `layouts.READERS`.
        statistics: mean and standard deviation of the training images' pixels in [0, 1], per channel; for CIFAR exact
            to four digits. None: they are computed from the images.
        archive: what is downloaded where no layout is found; None where it is not free to download.
        parquet: whether it is also found as Parquet shards.
        folder: whose folder below the root it is in; its own name where empty.
        label: the column of Parquet shards that holds the class; the usual ones where empty.
    """

    about: str
    classes: int
    train: int
    test: int
    layouts: tuple[tuple[str, str], ...] = ()
    statistics: Statistics | None = None
    archive: Archive | None = None
    parquet: bool = True
    folder: str = ""
    label: str = ""


_CUB = Archive(
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
    "97eceeb196236b17998738112f37df78",
)

_CIFAR100 = Archive(
    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    "eb9058c3a382ffc7106e4002c42a8d85",
)
_CIFAR100_STATISTICS: Statistics = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))

CATALOG: dict[str, NamedSet] = {
    "digits": NamedSet(
        about="scikit-learn's handwritten digits on 32 x 32 canvases; nothing is downloaded",
        classes=10,
        train=1_297,
        test=500,
        parquet=False,
    ),
    "digits24": NamedSet(
        about="the same digits on 24 x 24 canvases, 12 to 16 pixels wide; nothing is downloaded",
        classes=10,
        train=1_297,
        test=500,
        parquet=False,
    ),
    "cifar10": NamedSet(
        about="32 x 32 photographs of animals and vehicles",
        classes=10,
        train=50_000,
        test=10_000,
        layouts=(("cifar-10-batches-py", "cifar10_python"), ("cifar-10-batches-bin", "cifar10_binary")),
        statistics=((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        archive=Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            "c58f30108f718f92721af3b95e74349a",
        ),
    ),
    "cifar100": NamedSet(
        about="32 x 32 photographs of things, with fine labels",
        classes=100,
        train=50_000,
        test=10_000,
        layouts=(("cifar-100-python", "cifar100_python"), ("cifar-100-binary", "cifar100_binary")),
        statistics=_CIFAR100_STATISTICS,
        archive=_CIFAR100,
    ),
    "cifar100-coarse": NamedSet(
        about="the photographs of cifar100, with the 20 coarse labels",
        classes=20,
        train=50_000,
        test=10_000,
        layouts=(("cifar-100-python", "cifar100_python_coarse"), ("cifar-100-binary", "cifar100_binary_coarse")),
        statistics=_CIFAR100_STATISTICS,
        archive=_CIFAR100,
        folder="cifar100",
        label="coarse_label",
    ),
    "tiny-imagenet": NamedSet(
        about="64 x 64 photographs of 200 classes of ImageNet",
        classes=200,
        train=100_000,
        test=10_000,
        layouts=(("tiny-imagenet-200", "tiny_imagenet"),),
        archive=Archive(
            "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
        ),
    ),
    "imagenet": NamedSet(
        about="photographs of 1,000 classes (ILSVRC 2012), in folders train and val",
        classes=1_000,
        train=1_281_167,
        test=50_000,
        statistics=IMAGENET,
        parquet=False,
    ),
    "cub200": NamedSet(
        about="photographs of 200 species of birds (Caltech-UCSD)",
        classes=200,
        train=5_994,
        test=5_794,
        layouts=(("CUB_200_2011", "cub"),),
        statistics=IMAGENET,  # smaller than what its encoders are pretrained on
        archive=_CUB,
    ),
    "cub200-boxes": NamedSet(
        about="the same birds, cut to their bounding boxes",
        classes=200,
        train=5_994,
        test=5_794,
        layouts=(("CUB_200_2011", "cub_boxes"),),
        statistics=IMAGENET,
        archive=_CUB,
    ),
}
"""Every named data set."""

ADDED: Registry[Callable[[Path], object]] = Registry("data set", {})
"""Data sets of others: a name -> a function of the folder of named sets (`data.root`) that gives what `sources.of`
takes."""
