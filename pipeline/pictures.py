"""Sheets of pictures that a person reads: captions below, frames in green and red, one JPEG each.

In:    pictures of any size (PIL, uint8 array, encoded bytes, or None where none was drawn).
Out:   JPEG bytes of at most `MAX_SHEET_BYTES`. Small pictures are enlarged by whole pixels.
Rerun: the same cells give the same bytes; no clock, no font of the machine.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_SHEET_BYTES = 118_000
MAX_CELLS = 96  # more than a person looks at, and than a sheet's bytes can carry

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PAPER: Colour = (255, 255, 255)
INK: Colour = (31, 41, 55)
QUIET: Colour = (107, 114, 128)
LINE: Colour = (214, 218, 224)
EMPTY: Colour = (243, 244, 246)
GOOD: Colour = (22, 150, 87)
BAD: Colour = (212, 56, 56)

FRAME = 3  # pixels of colour around a picture
GAP = 14  # between the columns of a sheet
MARGIN = 16
# A sheet is shown at about two thirds of its size in the UI, so type is a little large.
CAPTION_SIZE, NOTE_SIZE, TITLE_SIZE = 15, 14, 22
CAPTION_LINES, NOTE_LINES = 3, 2


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet. `good` chooses the frame: green, red, or grey for no opinion."""

    image: "Image.Image | NDArray[np.uint8] | bytes | None"
    caption: str = ""
    note: str = ""
    good: bool | None = None

    @property
    def colour(self) -> Colour:
        return LINE if self.good is None else GOOD if self.good else BAD


def contact_sheet(
    cells: Sequence[Cell], columns: int = 6, *, title: str = "", cell_pixels: int = 128
) -> bytes:
    """One grid of pictures, row by row."""
    return _jpeg(_panel(cells[:MAX_CELLS], columns, title, cell_pixels, LINE))


def side_by_side(
    left_title: str,
    left_cells: Sequence[Cell],
    right_title: str,
    right_cells: Sequence[Cell],
    *,
    columns: int = 3,
    cell_pixels: int = 128,
) -> bytes:
    """Two grids beside each other, such as kept and rejected; `columns` of each."""
    sides = (left_cells[: MAX_CELLS // 2], right_cells[: MAX_CELLS // 2])
    texts = [_texts(cells, cell_pixels) for cells in sides]
    # rows of both sides are equally high: before and after of a caption stand beside each other
    heights = [
        max(pair) for pair in zip_longest(*(_heights(each, columns) for each in texts), fillvalue=0)
    ]
    left, right = (
        _panel(cells, columns, title, cell_pixels, _agreed_colour(cells), heights)
        for title, cells in zip((left_title, right_title), sides, strict=True)
    )
    size = (left.width + GAP + right.width, max(left.height, right.height))
    sheet = Image.new("RGB", size, PAPER)
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + GAP, 0))
    middle = left.width + GAP // 2
    ImageDraw.Draw(sheet).line(
        [(middle, MARGIN), (middle, sheet.height - MARGIN)], fill=LINE, width=1
    )
    return _jpeg(sheet)


def steps_sheet(
    prompts: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Cell]]],
    *,
    title: str = "",
    cell_pixels: int = 112,
) -> bytes:
    """A table of pictures: a row a training step (its label on the left), a column a prompt."""
    label_width = max([64, *(int(_font(CAPTION_SIZE).getlength(label)) + 14 for label, _ in rows)])
    pitch = cell_pixels + 2 * FRAME + GAP // 2
    heads = [_wrap(prompt, _font(CAPTION_SIZE), pitch - 8, 4) for prompt in prompts]
    head_height = max([1, *map(len, heads)]) * _line(CAPTION_SIZE) + 8
    top = MARGIN + (_title_height() if title else 0)
    width = 2 * MARGIN + label_width + pitch * max(1, len(prompts))
    sheet = Image.new("RGB", (width, top + head_height + pitch * len(rows) + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        _draw_title(draw, (MARGIN, MARGIN), width - 2 * MARGIN, title, LINE)
    for column, lines in enumerate(heads):
        # heads stand on the pictures, so short prompts leave their space above
        y = top + head_height - 8 - len(lines) * _line(CAPTION_SIZE)
        _draw_lines(draw, (MARGIN + label_width + column * pitch, y), lines, CAPTION_SIZE, INK)
    for number, (label, cells) in enumerate(rows):
        y = top + head_height + number * pitch
        draw.text(
            (MARGIN, y + pitch // 2 - 4), label, font=_font(CAPTION_SIZE), fill=QUIET, anchor="lm"
        )
        for column, cell in enumerate(cells[: len(prompts)]):
            at = (MARGIN + label_width + column * pitch, y)
            _draw_picture(sheet, at, cell, cell_pixels)
    return _jpeg(sheet)


def shrink(jpeg: bytes, max_bytes: int) -> bytes:
    """The same picture in at most `max_bytes`: first lower quality, then fewer pixels."""
    if len(jpeg) <= max_bytes:
        return jpeg
    return _jpeg(Image.open(io.BytesIO(jpeg)).convert("RGB"), max_bytes)


# --- one panel ----------------------------------------------------------------------------------


def _panel(
    cells: Sequence[Cell],
    columns: int,
    title: str,
    cell_pixels: int,
    rule: Colour,
    row_heights: Sequence[int] = (),
) -> Image.Image:
    """A titled grid; a row is as high as its longest caption, or as told."""
    side = cell_pixels + 2 * FRAME
    texts = _texts(cells, cell_pixels)
    heights = [side + height + GAP for height in row_heights or _heights(texts, columns)]
    top = MARGIN + (_title_height() if title else 0)
    width = 2 * MARGIN + columns * side + (columns - 1) * GAP
    panel = Image.new("RGB", (width, top + (sum(heights) or 48) - GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(panel)
    if title:
        _draw_title(draw, (MARGIN, MARGIN), width - 2 * MARGIN, title, rule)
    if not cells:
        draw.text((MARGIN, top), "none", font=_font(CAPTION_SIZE), fill=QUIET)
    for index, (cell, (caption, note)) in enumerate(zip(cells, texts, strict=True)):
        row, column = divmod(index, columns)
        x, y = MARGIN + column * (side + GAP), top + sum(heights[:row])
        _draw_picture(panel, (x, y), cell, cell_pixels)
        _draw_lines(draw, (x, y + side + 5), caption, CAPTION_SIZE, INK)
        below = y + side + 5 + len(caption) * _line(CAPTION_SIZE) + (2 if caption else 0)
        _draw_lines(draw, (x, below), note, NOTE_SIZE, QUIET if cell.good is None else cell.colour)
    return panel


def _texts(cells: Sequence[Cell], cell_pixels: int) -> list[tuple[list[str], list[str]]]:
    """The lines of each cell's caption and note."""
    width = cell_pixels + 2 * FRAME
    return [
        (
            _wrap(cell.caption, _font(CAPTION_SIZE), width, CAPTION_LINES),
            _wrap(cell.note, _font(NOTE_SIZE), width, NOTE_LINES),
        )
        for cell in cells
    ]


def _heights(texts: Sequence[tuple[list[str], list[str]]], columns: int) -> list[int]:
    """Pixels of text under each row of pictures."""
    heights = [
        7 + len(caption) * _line(CAPTION_SIZE) + len(note) * _line(NOTE_SIZE)
        for caption, note in texts
    ]
    return [max(heights[start : start + columns]) for start in range(0, len(heights), columns)]


def _agreed_colour(cells: Sequence[Cell]) -> Colour:
    colours = {cell.colour for cell in cells}
    return colours.pop() if len(colours) == 1 else LINE


def _draw_picture(sheet: Image.Image, at: tuple[int, int], cell: Cell, cell_pixels: int) -> None:
    x, y = at
    side = cell_pixels + 2 * FRAME
    draw = ImageDraw.Draw(sheet)
    width = FRAME if cell.good is not None else 1
    inset = FRAME - width  # grey frames are thin and touch the picture too
    draw.rectangle(
        [x + inset, y + inset, x + side - 1 - inset, y + side - 1 - inset], fill=cell.colour
    )
    inside = [x + FRAME, y + FRAME, x + side - 1 - FRAME, y + side - 1 - FRAME]
    draw.rectangle(inside, fill=EMPTY)
    picture = _decoded(cell.image)
    if picture is None:
        draw.text(
            (x + side // 2, y + side // 2),
            "no picture",
            font=_font(NOTE_SIZE),
            fill=QUIET,
            anchor="mm",
        )
        return
    picture = _fitted(picture, cell_pixels)
    sheet.paste(picture, (x + (side - picture.width) // 2, y + (side - picture.height) // 2))


def _decoded(image: "Image.Image | NDArray[np.uint8] | bytes | None") -> Image.Image | None:
    """A broken picture is a row with a reason, so a sheet shows its place rather than failing."""
    if image is None or isinstance(image, Image.Image):
        return image.convert("RGB") if image is not None else None
    if isinstance(image, bytes):
        try:
            return Image.open(io.BytesIO(image)).convert("RGB")
        except (UnidentifiedImageError, OSError):
            return None
    return Image.fromarray(image).convert("RGB")


def _fitted(picture: Image.Image, pixels: int) -> Image.Image:
    """Fit into a square: enlarged by whole pixels first, so that edges stay sharp."""
    longest = max(picture.size)
    if longest < pixels:
        factor = -(-pixels // longest)
        enlarged = (picture.width * factor, picture.height * factor)
        picture = picture.resize(enlarged, Image.Resampling.NEAREST)
        longest *= factor
    if longest == pixels:
        return picture
    size = tuple(max(1, round(side * pixels / longest)) for side in picture.size)
    return picture.resize((size[0], size[1]), Image.Resampling.BOX)


# --- text ---------------------------------------------------------------------------------------


@cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)


def _line(size: int) -> int:
    return round(size * 1.25)


def _title_height() -> int:
    return _line(TITLE_SIZE) + 20


def _draw_title(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], width: int, title: str, rule: Colour
) -> None:
    x, y = at
    (text,) = _wrap(title, _font(TITLE_SIZE), width, 1) or [""]
    draw.text(at, text, font=_font(TITLE_SIZE), fill=INK)
    below = y + _line(TITLE_SIZE) + 4
    draw.rectangle([x, below, x + width, below + 1], fill=rule)


def _draw_lines(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], lines: list[str], size: int, colour: Colour
) -> None:
    x, y = at
    for number, text in enumerate(lines):
        draw.text((x, y + number * _line(size)), text, font=_font(size), fill=colour)


def _wrap(text: str, font: Font, width: int, max_lines: int) -> list[str]:
    """Break at spaces (inside a word only where it alone is too wide); `...` marks what is cut."""
    lines: list[str] = []
    words = text.split()
    current = ""
    while words:
        word = words.pop(0)
        longer = f"{current} {word}".strip()
        if font.getlength(longer) <= width:
            current = longer
            continue
        if not current:
            whole = _prefix(word, font, width)
            current, rest = whole, word[len(whole) :]
            words.insert(0, rest)
        else:
            words.insert(0, word)
        lines.append(current)
        current = ""
        if len(lines) == max_lines:
            cut = lines[-1] + " " + words[0]
            lines[-1] = _prefix(cut, font, width - font.getlength("...")).rstrip(" ,.;") + "..."
            return lines
    return [*lines, current] if current else lines


def _prefix(text: str, font: Font, width: float) -> str:
    """As much of the text as fits, at least one character."""
    end = len(text)
    while end > 1 and font.getlength(text[:end]) > width:
        end -= 1
    return text[:end]


# --- bytes --------------------------------------------------------------------------------------


def _jpeg(picture: Image.Image, max_bytes: int = MAX_SHEET_BYTES) -> bytes:
    """The best quality that fits, and fewer pixels where none does, as for a sheet of noise."""
    while True:
        # full colour resolution first, for thin coloured frames
        for quality, subsampling in ((92, 0), (87, 0), (82, 0), (76, 0), (70, 2), (60, 2), (48, 2)):
            out = io.BytesIO()
            # not `optimize=True`: its buffer is a byte a pixel, and pictures of noise outgrow it
            picture.save(out, "JPEG", quality=quality, subsampling=subsampling)
            if out.tell() <= max_bytes or min(picture.size) < 32:
                return out.getvalue()
        size = (int(picture.width * 0.8), int(picture.height * 0.8))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
