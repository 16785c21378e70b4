"""Letters rendered from the fonts that matplotlib ships; a class is a letter, and no font is in two splits.

The outlines are people's designs, but position, size and the picture itself come from this program: the base is marked as
simulated.
"""

from pathlib import Path

import numpy as np

from metahpo_jax.errors import DataError
from metahpo_jax.tasks.images.corrupt import resize
from metahpo_jax.tasks.images.files import Labelled
from metahpo_jax.tasks.images.pixels import TEST, TRAIN, VALID, Pixels
from metahpo_jax.tasks.preprocess import stable_seed

# Without the small letters that differ from their capitals by size alone, since sizes are drawn.
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"
FONTS: dict[int, tuple[str, ...]] = {
    TRAIN: (
        "DejaVuSans", "DejaVuSans-Oblique", "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique", "DejaVuSerif-Bold",
        "DejaVuSerif-BoldItalic", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralItalic", "cmb10", "cmmi10", "cmti10", "cmss10",
    ),
    VALID: ("DejaVuSans-BoldOblique", "DejaVuSerif", "STIXGeneralBolIta", "cmtt10"),
    TEST: ("DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Oblique", "STIXGeneralBol", "cmr10"),
}  # fmt: skip
VARIANTS = 16  # of a letter in a font
SIDE = 32  # pixels
_FONT_SIZE = 64  # pixels
_CANVAS = 224
_WINDOWS = (76, 116)  # sides of the squares that are cut around a letter and averaged down to SIDE
_JITTER = 8  # pixels, the largest offset of a letter's centre from that of its window


def glyphs(name: str, folder: Path) -> Pixels:
    """All letters in all fonts, each `VARIANTS` times at a drawn size and place."""
    drawn = {split: [render(name, folder / f"{font}.ttf") for font in fonts] for split, fonts in FONTS.items()}
    return Pixels(
        np.concatenate([letters.images for fonts in drawn.values() for letters in fonts]),
        np.concatenate([letters.labels for fonts in drawn.values() for letters in fonts]),
        np.concatenate(
            [np.full(len(letters.labels), split, np.int8) for split, fonts in drawn.items() for letters in fonts]
        ),
    )


def render(name: str, font: Path) -> Labelled:
    """All letters in one font, white on black; the base's and the font's names alone seed sizes and places."""
    from PIL import Image, ImageDraw, ImageFont

    if not font.exists():
        raise DataError(f"{font} is absent; install matplotlib 3.9 or later, which ships it.")
    random = np.random.RandomState(stable_seed(f"{name} {font.stem}"))
    face = ImageFont.truetype(str(font), _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    canvases = []
    for letter in LETTERS:
        left, top, right, bottom = face.getbbox(letter)
        canvas = Image.new("L", (_CANVAS, _CANVAS))
        corner = (round((_CANVAS - left - right) / 2), round((_CANVAS - top - bottom) / 2))
        ImageDraw.Draw(canvas).text(corner, letter, font=face, fill=255)
        canvases.append(np.asarray(canvas))
    images = []
    for _ in range(VARIANTS):
        window = random.randint(*_WINDOWS)
        starts = (_CANVAS - window) // 2 + random.randint(-_JITTER, _JITTER + 1, (len(LETTERS), 2))
        cut = [canvas[y : y + window, x : x + window] for canvas, (y, x) in zip(canvases, starts, strict=True)]
        images.append(resize(np.stack(cut), SIDE))
    return Labelled(np.concatenate(images), np.tile(np.arange(len(LETTERS)), VARIANTS))
