"""What a reader of data sets finds before any image is decoded: images, labels, class names, and what it leaves out."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from relatum.data.decoding import HEIC, HEIC_HINT, BadImage, reads_heic
from relatum.data.images import Images

NAMED = 5  # names that are listed for each reason


class LeftOut(NamedTuple):
    """A file or folder that is not used.

    Attributes:
        name: its path.
        reason: what such things are counted under, such as ".heic" or "linked folder".
        error: set where it has an image's name and should be one: what is wrong.
    """

    name: str
    reason: str
    error: str | None = None


@dataclass(frozen=True)
class Listing:
    """A data set, listed but not decoded.

    Attributes:
        train: the training images.
        test: the test images, or None where the set has none.
        classes: the name of each class; empty without labels.
        labels_from: where the labels come from, in a word or two; empty where it need not be said.
        left_out: what is not used, and why.
    """

    train: Images
    test: Images | None
    classes: tuple[str, ...]
    labels_from: str = ""
    left_out: tuple[LeftOut, ...] = ()

    @property
    def parts(self) -> list[Images]:
        """Training images, and test images where there are any."""
        return [self.train] if self.test is None else [self.train, self.test]


def in_a_line(train: int, test: int | None, listing: Listing, left_out: tuple[LeftOut, ...]) -> str:
    """Such as "420 images, 6 classes (folders), 3 skipped: 2 .heic, 1 truncated"."""
    line = f"{train:,} image{'s' * (train != 1)}"
    if test is not None:
        line = f"{train:,} training and {test:,} test images"
    if listing.classes:
        source = f" ({listing.labels_from})" if listing.labels_from else ""
        line += f", {len(listing.classes):,} class{'es' * (len(listing.classes) != 1)}{source}"
    else:
        line += f", no labels ({listing.labels_from})" if listing.labels_from else ", no labels"
    if left_out:
        counts = Counter(item.reason for item in left_out)
        listed = ", ".join(f"{count:,} {_plural(reason, count)}" for reason, count in counts.most_common())
        line += f", {len(left_out):,} skipped: {listed}"
        if not reads_heic() and any(reason in HEIC for reason in counts):
            line += f" ({HEIC_HINT})"
    return line


def _plural(reason: str, count: int) -> str:
    return f"{reason}s" if count > 1 and reason.endswith(("folder", "link")) else reason


def by_name(left_out: tuple[LeftOut, ...]) -> str:
    """The names of what is left out, a line for each reason; beyond five the rest is counted. Errors are all said."""
    groups: dict[str, list[str]] = defaultdict(list)
    for item in left_out:
        groups[item.reason].append(item.name)
    lines = []
    for reason, names in groups.items():
        rest = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        lines.append(f"  {reason}: {', '.join(names[:NAMED])}{rest}")
    lines += [f"  {item.name}: {item.error}" for item in left_out if item.error]
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def refuse_bad(left_out: tuple[LeftOut, ...]) -> None:
    """Raise the error of the first that should be an image and is none.

    Raises:
        BadImage: there is one.
    """
    for item in left_out:
        if item.error:
            name = item.name.encode("utf-8", "backslashreplace").decode()
            raise BadImage(name, item.error, item.reason)
