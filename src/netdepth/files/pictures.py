"""One picture file (JPEG, PNG, TIFF, BMP, WebP, GIF) as pixels, within limits of memory. And a process that decodes
for others.

Pictures become upright (EXIF orientation), white where they are transparent, without a colour profile (CMYK is
converted plainly), 16-bit ones by their high byte; of a GIF the first frame is taken. The content of a file decides,
not its name. Nothing here imports torch: ``python -m netdepth.files.pictures`` starts in a fifth of a second.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from netdepth.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

__all__ = [
    "MAX_BYTES", "MAX_PIXELS", "SUFFIXES", "ReadPicture", "decode_picture", "decode_pictures", "decoder", "few_levels",
    "main", "pillow_rules", "read_picture",
]  # fmt: skip

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif")
"""Endings, in small letters, by which a picture is looked for in a folder."""

SINGLE = ("PNG", "TIFF", "WEBP")
"""Formats whose pictures with several frames are refused: the first need not be what is meant, as it is in a GIF. A
JPEG (MPO) has a preview beside the picture."""

MAX_BYTES = 2**28
"""Larger picture files are refused before they are read."""

MAX_PIXELS = 50_000_000
"""Pictures with more are refused before they are decoded: each pixel takes up to eleven bytes, in every process."""

STRIP_ROWS = 256

PNG_START, PNG_DEPTH = b"\x89PNG\r\n\x1a\n", 24
"""The first bytes of a PNG, and the byte with its bits per value."""
TIFF_STARTS, TIFF_DEPTH = (b"II*\0", b"MM\0*"), 258
"""The first bytes of a TIFF, and the tag with its bits per value."""
FEW_BITS = 6
"""A 16-bit picture that leaves two bits or more of its high byte empty is warned of."""

ORIENTED = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})
"""Where a file may say how to turn it; to look it up costs more than to decode a small picture."""


def decoder() -> dict[str, str | None]:
    """Versions of Pillow and of its decoding libraries, on which the pixels depend."""
    import PIL
    from PIL import features

    libraries = {"jpeg": features.version("libjpeg_turbo") or features.version("jpg"), "zlib": features.version("zlib")}
    return {"pillow": PIL.__version__, **libraries}


@contextlib.contextmanager
def pillow_rules() -> Iterator[None]:
    """Pillow's warnings about odd files are ignored; that of a decompression bomb becomes an error."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


class ReadPicture(NamedTuple):
    """A picture as ``pixels`` uint8 ``[C, H, W]``; ``note`` says how it was resized, ``warning`` what was lost."""

    pixels: np.ndarray
    note: str | None
    warning: str | None


def read_picture(path: Path, shape: Sequence[int]) -> ReadPicture:
    """The picture file at ``path`` as pixels of ``shape``, by `decode_picture`.

    Raises:
        BadInput: no file, or one that cannot be decoded.
    """
    channels, height, width = shape
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for a writer
            raise BadInput(f"{str(path)!r} is no picture file")
        if found.st_size > MAX_BYTES:
            raise BadInput(f"{str(path)!r} has {found.st_size:,} bytes; a picture has {MAX_BYTES:,} at most")
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"no picture {str(path)!r}") from None
    except OSError as error:
        raise BadInput(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    try:
        with pillow_rules():
            whole = decode_picture(content, channels=channels, size=None)
            warning = _lost_levels(content, whole)
            if whole.shape == tuple(shape):
                return ReadPicture(whole, None, warning)
            note = f"resized from {whole.shape[2]}x{whole.shape[1]} to {width}x{height}"
            if whole.shape[1] * width != whole.shape[2] * height:
                note = f"its middle, {note}"
            return ReadPicture(decode_picture(content, channels=channels, size=(height, width)), note, warning)
    except BadInput as reason:
        raise BadInput(f"{str(path)!r} is not acceptable: {reason}") from None


def few_levels(pixels: np.ndarray) -> str:
    """What is said of a data set whose uint8 ``pixels`` are all in the lowest quarter: as files of 16 bits become that
    hold fewer. Nothing of others."""
    most = int(pixels.max())
    if most >= 1 << FEW_BITS:
        return ""
    return f"no pixel is above {most} of 255: of 16-bit files that hold fewer bits few grey levels are left; scale them"


def _lost_levels(content: bytes, pixels: np.ndarray) -> str | None:
    """What is left of a 16-bit PNG or TIFF whose values fill few of its bits, as those of a camera with 12 do."""
    bits = int(pixels.max(initial=0)).bit_length()
    if bits > FEW_BITS or _bits_per_value(content) != 16:
        return None
    return (
        f"its 16-bit values end below {2 ** (8 + bits):,}, so that {2**bits} of 256 grey "
        f"levels are left; multiply them by {2 ** (8 - bits)} first"
    )


def _bits_per_value(content: bytes) -> int:
    """As the picture file in ``content`` says, PNG or TIFF; 8 for others."""
    from PIL import Image

    if content.startswith(PNG_START):
        return content[PNG_DEPTH]
    if not content.startswith(TIFF_STARTS):
        return 8
    with Image.open(io.BytesIO(content), formats=("TIFF",)) as image:
        bits = getattr(image, "tag_v2", {}).get(TIFF_DEPTH, 8)
        return int(bits[0] if isinstance(bits, tuple) else bits)


def decode_picture(content: bytes, *, channels: int, size: int | tuple[int, int] | None) -> np.ndarray:
    """The picture in ``content`` as uint8 ``[C, H, W]``: grey for one channel, RGB for three.

    ``size``: the largest square in its middle, resized to ``size`` × ``size`` (bilinear, with the filter
    widened where it shrinks, so that no pixel is skipped), or likewise the largest rectangle of that shape,
    (height, width); None leaves it as it is.

    Raises:
        BadInput: the reason alone; the caller, who knows the file's name, adds it.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not content:
        raise BadInput("it is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadInput(f"it has {image.width} × {image.height} pixels; at most {MAX_PIXELS:,} are decoded")
            if image.format in SINGLE and getattr(image, "is_animated", False):
                raise BadInput("it is animated, or has several pages; a picture is a single frame")
            image.load()  # the orientation may follow the pixels
            if not ORIENTED.isdisjoint(image.info):
                ImageOps.exif_transpose(image, in_place=True)  # a copy would double what a large picture takes
            return _pixels(_eight_bits(image), channels, size)
    except BadInput:
        raise
    except UnidentifiedImageError:
        raise BadInput(f"it is none of {', '.join(FORMATS)}, or its beginning is damaged") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadInput(f"it has too many pixels; at most {MAX_PIXELS:,} are decoded") from None
    except Exception as error:  # a decoder may raise anything, which is not documented
        raise BadInput(f"it cannot be decoded ({' '.join(str(error).split()) or type(error).__name__})") from None


def _eight_bits(image: Image) -> Image:
    """A 16-bit grey picture by its high bytes, as Pillow reads 16-bit colours; other pictures unchanged."""
    if not image.mode.startswith(("I", "F")):
        return image
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:  # their range is anybody's guess
        raise BadInput(
            f"its values run from {values.min():g} to {values.max():g}; a picture has 8 or 16 bits without sign"
        )
    return Image.fromarray((values >> 8).astype(np.uint8))


def _pixels(image: Image, channels: int, size: int | tuple[int, int] | None) -> np.ndarray:
    import numpy as np
    from PIL import Image

    if image.has_transparency_data:
        image = _over_white(image)
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    height, width = (size, size) if isinstance(size, int) else size or (image.height, image.width)
    if image.size != (width, height):
        across = min(image.width, max(1, image.height * width // height))
        down = min(image.height, max(1, image.width * height // width))
        left, top = (image.width - across) // 2, (image.height - down) // 2
        image = image.crop((left, top, left + across, top + down))  # a resize's own box would read beyond its edges
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    flat = np.frombuffer(image.tobytes(), np.uint8)  # np.asarray takes five times as long for a small picture
    return flat.reshape(image.height, image.width, channels).transpose(2, 0, 1)


def _over_white(image: Image) -> Image:
    """A transparent picture as RGB on white, strip by strip: the whole would be in memory three times."""
    from PIL import Image

    made = Image.new("RGB", image.size)
    for top in range(0, image.height, STRIP_ROWS):
        part = image.crop((0, top, image.width, min(top + STRIP_ROWS, image.height))).convert("RGBA")
        made.paste(Image.alpha_composite(Image.new("RGBA", part.size, "white"), part).convert("RGB"), (0, top))
    return made


def decode_pictures(
    count: int, contents: Iterable[bytes], *, channels: int, size: int | None, shape: Sequence[int]
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """``count`` files as uint8 ``[N, C, H, W]``, and position and reason of each that is refused (black there).

    Each must have the height and width ``shape`` once decoded. ``contents`` is read to its end.
    """
    import numpy as np

    height, width = shape
    pixels = np.zeros((count, channels, height, width), np.uint8)
    refused: list[tuple[int, str]] = []
    with pillow_rules():
        for position, content in enumerate(contents):
            try:
                one = decode_picture(content, channels=channels, size=size)
                if one.shape[1:] != (height, width):
                    raise BadInput(
                        f"it is {one.shape[2]} × {one.shape[1]} pixels where others are {width} × {height}; "
                        f"bring all to one size, such as --set dataset.size={min(shape)}"
                    )
                pixels[position] = one
            except BadInput as reason:
                refused.append((position, str(reason)))
    return pixels, refused


def main(settings: str) -> int:
    """Decode the jobs on stdin until it closes; ``settings`` are those of `decode_pictures` as JSON.

    A job is the number of files in four bytes, then for each file its length in eight and its content. The
    answer, written after the whole job was read, is a line of JSON, ``{"shape": [N, C, H, W],
    "refused": [[position, reason]]}``, and the pixels.
    """
    jobs, answers = sys.stdin.buffer, sys.stdout.buffer
    known = json.loads(settings)
    while head := jobs.read(4):
        count = int.from_bytes(head, "big")
        files = (jobs.read(int.from_bytes(jobs.read(8), "big")) for _ in range(count))
        pixels, refused = decode_pictures(count, files, **known)
        try:
            answers.write(json.dumps({"shape": pixels.shape, "refused": refused}).encode() + b"\n")
            answers.write(pixels.tobytes())
            answers.flush()
        except BrokenPipeError:  # the training process has ended
            os._exit(1)  # the interpreter would report the broken pipe once more
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
