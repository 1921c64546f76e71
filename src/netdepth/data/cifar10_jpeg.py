"""CIFAR-10 as JPEG files: an archive, packed or unpacked, of train/<class>/0000.jpg and test/<class>/0000.jpg.

The pictures are those of CIFAR-10 after a lossy compression, so numbers on them are not comparable with
published ones: the data set has its own name and title, and `NOTE` is in every ``split.json``.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from netdepth.data.cifar import CIFAR10, KINDS
from netdepth.data.decode import Pictures
from netdepth.data.fetch import OfficialFile, Source, archive_files, locate, obtain, publish, unpacked
from netdepth.data.image_folder import read_folder
from netdepth.data.pictures import Folder, picture_splits
from netdepth.data.splits import DATASETS, Classes, Splits, ValSize, with_classes
from netdepth.errors import BadInput, StorageError

__all__ = ["CIFAR10_JPEG", "NOTE", "cifar10_jpeg"]

NOTE = "CIFAR-10 after JPEG compression: not comparable with numbers published for CIFAR-10"

PER_CLASS = {"train": 5_000, "test": 1_000}

CONTENTS = {
    "train": "5b1f2531d24304d6d4b04893fa4a361b4962e77149f4cc0554c4ea724bbf8274",
    "test": "f97605b2760a23ced39f0ca35a7db01fece1e36c15f6b1d08d13d4f9e11fdd92",
}
"""`content_digest` over names and bytes of each part."""

ARCHIVE = "b08b4068e809798a438f6e05ca5d0b47b04eed0ef93558b189f2d57758262566"

CIFAR10_JPEG = publish(
    Source(
        name="cifar10-jpeg",
        title="CIFAR-10 (JPEG): as cifar10 after lossy compression, not comparable with published numbers",
        sizes=CIFAR10.sizes,
        licence=CIFAR10.licence,
        origin=CIFAR10.origin,
        files=(OfficialFile("cifar10-jpeg.tar.gz", ARCHIVE, 19_433_920, archive=True),),
        folders=("train", "test"),
    )
)


@DATASETS.register("cifar10-jpeg", added=("classes",))
def cifar10_jpeg(
    data_dir: Path | None, *, val_size: ValSize = CIFAR10_JPEG.sizes["val"], classes: Classes = None
) -> Splits:
    """CIFAR-10 (JPEG): 60,000 photographs, JPEG copies; not comparable with the paper's numbers."""
    (archive,) = CIFAR10_JPEG.files
    root = unpacked(CIFAR10_JPEG, data_dir)
    path = locate(CIFAR10_JPEG, data_dir)[archive.name]
    if path is None and root is not None:
        parts = _extracted(root)
    elif path is None:
        raise StorageError(
            f"cifar10-jpeg is not here and has no download: put {archive.name} (sha256 {archive.sha256[:12]}), or what "
            f"it unpacks to (train/ and test/), into DIR/cifar10-jpeg and give --data DIR"
        )
    else:
        parts = _archived(path, obtain(CIFAR10_JPEG, data_dir)[archive.name])
    folder = Folder(KINDS, parts, NOTE)
    files = {archive.name: archive.sha256}
    splits = picture_splits(
        CIFAR10_JPEG.name, "CIFAR-10 (JPEG)", folder, files, size=None, channels=3, val_size=val_size, compared=False
    )
    return with_classes(splits, classes)


def _archived(path: Path | None, content: bytes) -> dict[str, Pictures]:
    """The parts of the verified archive, which is opened only if its pictures have to be decoded."""

    files = functools.cache(lambda: archive_files(content))

    def pictures(part: str) -> Pictures:
        names = [f"{part}/{name}/{index:04}.jpg" for name in KINDS for index in range(PER_CLASS[part])]
        labels = np.repeat(np.arange(len(KINDS)), PER_CLASS[part])
        return Pictures(str(path or CIFAR10_JPEG.name), names, labels, CONTENTS[part], lambda i: files()[names[i]])

    return {part: pictures(part) for part in CONTENTS}


def _extracted(root: Path) -> dict[str, Pictures]:
    """The parts of the archive's extraction.

    Raises:
        BadInput: they are not the pictures of the archive.
    """
    parts = dict(read_folder(root).parts)
    for part, pictures in parts.items():
        if pictures.content != CONTENTS.get(part):
            expected = len(KINDS) * PER_CLASS.get(part, 0)
            raise BadInput(
                f"{str(root / part)!r} is not that of cifar10-jpeg: its {len(pictures):,} pictures have the digest "
                f"{pictures.content[:12]}, expected {expected:,} with {CONTENTS.get(part, 'none')[:12]}; unpack "
                f"{CIFAR10_JPEG.files[0].name} again, or use --dataset image-folder:{root}"
            )
    return parts
