"""Drawing with NumPy alone: text in a small bitmap font, boxes, and a default picture.

Shapes: images are (height, width, 3) uint8.
"""

import numpy as np
from numpy.typing import NDArray

from metarl_envs.batched.family import View

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
INK: Colour = (38, 43, 51)
FAINT: Colour = (110, 117, 128)
PAPER: Colour = (247, 247, 244)
ACCENT: Colour = (47, 98, 173)
GREEN: Colour = (46, 139, 87)
RED: Colour = (192, 70, 58)
GREY: Colour = (222, 224, 226)

_GLYPH_WIDTH, _GLYPH_HEIGHT = 5, 7
# Each glyph is seven rows of five bits, most significant bit left; letters are drawn as capitals.
_GLYPHS = {
    "A": "0e11111f111111", "B": "1e11111e11111e", "C": "0e11101010110e", "D": "1e11111111111e",
    "E": "1f10101e10101f", "F": "1f10101e101010", "G": "0e11101713110e", "H": "1111111f111111",
    "I": "0e04040404040e", "J": "0702020202120c", "K": "11121418141211", "L": "1010101010101f",
    "M": "111b1515111111", "N": "11191915131311", "O": "0e11111111110e", "P": "1e11111e101010",
    "Q": "0e11111115120d", "R": "1e11111e141211", "S": "0f10100e01011e", "T": "1f040404040404",
    "U": "1111111111110e", "V": "11111111110a04", "W": "11111115151b11", "X": "11110a040a1111",
    "Y": "11110a04040404", "Z": "1f01020408101f",
    "0": "0e11131519110e", "1": "040c040404040e", "2": "0e11010204081f", "3": "1f02040201110e",
    "4": "02060a121f0202", "5": "1f101e0101110e", "6": "0608101e11110e", "7": "1f010204080808",
    "8": "0e11110e11110e", "9": "0e11110f01020c",
    " ": "00000000000000", ".": "00000000000c0c", ",": "000000000c0408", ":": "000c0c000c0c00",
    "+": "0004041f040400", "-": "0000001f000000", "=": "00001f001f0000", "/": "00010204081000",
    "(": "02040808080402", ")": "08040202020408", "[": "0e08080808080e", "]": "0e02020202020e",
    "<": "02040810080402", ">": "08040201020408", "_": "0000000000001f", "|": "04040404040404",
    "%": "18190204081303", "!": "04040404000004", "?": "0e110102040004", "'": "0c040800000000",
    "*": "000a041f040a00", "#": "0a0a1f0a1f0a0a",
}  # fmt: skip


def canvas(height: int, width: int, colour: Colour = PAPER) -> Image:
    """An image of one colour."""
    return np.full((height, width, 3), colour, dtype=np.uint8)


def draw_box(image: Image, top: int, left: int, height: int, width: int, colour: Colour) -> None:
    """Fills a rectangle, in place."""
    image[top : top + height, left : left + width] = colour


def draw_frame(
    image: Image, top: int, left: int, height: int, width: int, colour: Colour, thickness: int
) -> None:
    """Draws the outline of a rectangle, in place and inside it."""
    inner = image[
        top + thickness : top + height - thickness, left + thickness : left + width - thickness
    ].copy()
    draw_box(image, top, left, height, width, colour)
    image[top + thickness :, left + thickness :][: inner.shape[0], : inner.shape[1]] = inner


def text_size(text: str, scale: int = 2) -> tuple[int, int]:
    """Height and width of one line of text, in pixels."""
    return _GLYPH_HEIGHT * scale, max(0, (len(text) * (_GLYPH_WIDTH + 1) - 1) * scale)


def draw_text(
    image: Image, top: int, left: int, text: str, colour: Colour = INK, scale: int = 2
) -> None:
    """Writes one line of text, in place; what does not fit is cut off."""
    for position, character in enumerate(text.upper()):
        pixels = np.kron(_glyph(character), np.ones((scale, scale), dtype=np.bool_))
        area = image[top:, left + position * (_GLYPH_WIDTH + 1) * scale :]
        area = area[: pixels.shape[0], : pixels.shape[1]]
        area[pixels[: area.shape[0], : area.shape[1]]] = colour


def draw_centred(
    image: Image, top: int, left: int, width: int, text: str, colour: Colour = INK, scale: int = 2
) -> None:
    """Writes one line of text in the middle of `width` pixels, in place."""
    draw_text(image, top, left + (width - text_size(text, scale)[1]) // 2, text, colour, scale)


def text_image(text: str, scale: int = 2, margin: int = 12) -> Image:
    """An image of lines of text."""
    lines = text.split("\n")
    line_height = (_GLYPH_HEIGHT + 4) * scale
    width = max(text_size(line, scale)[1] for line in lines)
    image = canvas(2 * margin + line_height * len(lines), 2 * margin + max(width, 40))
    for i, line in enumerate(lines):
        draw_text(image, margin + i * line_height, margin, line, scale=scale)
    return image


def describe(name: str, view: View) -> str:
    """Lines of text for a family without a picture of its own."""
    lines = [name, f"stage {view.stage}, return {view.episode_return:.2f}"]
    lines.append(f"observation {np.array2string(np.asarray(view.observation), precision=3)}")
    return "\n".join([*lines, last_step(view)])


def last_step(view: View) -> str:
    """What happened in the last step, one line."""
    if view.action is None:
        return "last step: none yet"
    return f"last step: action {view.action}, reward {view.reward:.2f}"


def _glyph(character: str) -> NDArray[np.bool_]:
    rows = bytes.fromhex(_GLYPHS.get(character, _GLYPHS["?"]))
    bits = np.unpackbits(np.frombuffer(rows, dtype=np.uint8)[:, None], axis=1)
    return bits[:, -_GLYPH_WIDTH:].astype(np.bool_)
