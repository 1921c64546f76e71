"""One picture file, JPEG or PNG, as pixels, within limits of memory.

Pictures become upright (EXIF orientation), white where they are transparent, without a colour profile (CMYK is
converted plainly), 16-bit ones by their high byte. The content of a file decides, not its name.
"""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError, features

from netdepth.errors import BadInput

__all__ = ["MAX_BYTES", "MAX_PIXELS", "decode_picture", "decoder", "read_picture"]

MAX_BYTES = 2**28
"""Larger picture files are refused before they are read."""

MAX_PIXELS = 50_000_000
"""Pictures with more are refused before they are decoded: each pixel takes up to eleven bytes, in every thread."""

ORIENTED = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})
"""Where a file may say how to turn it; to look it up costs more than to decode a small picture."""


def decoder() -> dict[str, str | None]:
    """Versions of Pillow and of its decoding libraries, on which the pixels depend."""
    libraries = {"jpeg": features.version("libjpeg_turbo") or features.version("jpg"), "zlib": features.version("zlib")}
    return {"pillow": PIL.__version__, **libraries}


def read_picture(path: Path, shape: Sequence[int]) -> tuple[np.ndarray, str | None]:
    """The picture file at ``path`` as uint8 ``[C, H, W]`` of ``shape``, by `decode_picture`.

    Returns:
        The pixels, and a note on how it was resized, or None.

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
        with warnings.catch_warnings(action="ignore"):  # Pillow's, about odd files
            whole = decode_picture(content, channels=channels, size=None)
            if whole.shape == tuple(shape):
                return whole, None
            note = f"resized from {whole.shape[2]}x{whole.shape[1]} to {width}x{height}"
            if whole.shape[1] * width != whole.shape[2] * height:
                note = f"its middle, {note}"
            return decode_picture(content, channels=channels, size=(height, width)), note
    except BadInput as reason:
        raise BadInput(f"{str(path)!r} is not acceptable: {reason}") from None


def decode_picture(content: bytes, *, channels: int, size: int | tuple[int, int] | None) -> np.ndarray:
    """The picture in ``content`` as uint8 ``[C, H, W]``: grey for one channel, RGB for three.

    ``size``: the largest square in its middle, resized to ``size`` × ``size`` (bilinear, with the filter
    widened where it shrinks, so that no pixel is skipped), or likewise the largest rectangle of that shape,
    (height, width); None leaves it as it is.

    Raises:
        BadInput: the reason alone; the caller, who knows the file's name, adds it.
    """
    if not content:
        raise BadInput("it is empty")
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadInput(f"it has {image.width} × {image.height} pixels; at most {MAX_PIXELS:,} are decoded")
            if image.format == "PNG" and getattr(image, "is_animated", False):
                raise BadInput("it is animated; a picture is a single frame")
            image.load()  # the orientation may follow the pixels
            if not ORIENTED.isdisjoint(image.info):
                ImageOps.exif_transpose(image, in_place=True)  # a copy would double what a large picture takes
            return _pixels(image, channels, size)
    except BadInput:
        raise
    except UnidentifiedImageError:
        raise BadInput("it is neither JPEG nor PNG, or its beginning is damaged") from None
    except Exception as error:  # a decoder may raise anything, which is not documented
        raise BadInput(f"it cannot be decoded ({' '.join(str(error).split()) or type(error).__name__})") from None


def _pixels(image: Image.Image, channels: int, size: int | tuple[int, int] | None) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit grey: the high bytes, as Pillow reads 16-bit colours
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
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


def _over_white(image: Image.Image) -> Image.Image:
    """A transparent picture as RGB on white, strip by strip: the whole would be in memory three times."""
    made = Image.new("RGB", image.size)
    for top in range(0, image.height, 256):
        part = image.crop((0, top, image.width, min(top + 256, image.height))).convert("RGBA")
        made.paste(Image.alpha_composite(Image.new("RGBA", part.size, "white"), part).convert("RGB"), (0, top))
    return made
