"""The page: what its buttons call, and what it says without Gradio."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from lightgen_model.config import debug
from lightgen_model.page import Drawer, build, main


class NoticeError(Exception):
    """Stands for `gradio.Error`."""


class Pipe:
    """Keeps what it was called with."""

    values = debug()

    def __call__(self, prompt: str, **values: Any) -> Any:
        if prompt == "wrong":
            raise ValueError("height 70 must be a multiple of the token size 16")
        self.called = {"prompt": prompt, **values}
        return SimpleNamespace(images=[Image.new("RGB", (64, 64))])


@pytest.fixture
def drawer() -> Drawer:
    return Drawer(Pipe(), SimpleNamespace(Error=NoticeError))  # type: ignore[arg-type]


def test_the_buttons_values_reach_the_pipeline(drawer: Drawer) -> None:
    assert drawer.draw("red", 3.0, 1.5, 0, 25, 64.0, 32.0).size == (64, 64)
    called = drawer.pipe.called  # type: ignore[attr-defined]
    assert called.pop("generator").initial_seed() == 3
    assert called == {
        "prompt": "red", "num_inference_steps": None, "num_head_steps": 25,
        "guidance_scale": 1.5, "height": 64, "width": 32,
    }  # fmt: skip
    drawer.draw("red", None, 1.5, 9, 25, None, None)  # emptied fields
    called = drawer.pipe.called  # type: ignore[attr-defined]
    assert called["generator"].initial_seed() == 0
    assert (called["height"], called["width"], called["num_inference_steps"]) == (None, None, 9)


def test_what_is_painted_is_drawn_anew(drawer: Drawer) -> None:
    background = Image.new("RGBA", (48, 32), "white")
    layers = [Image.new("RGBA", (48, 32)) for _ in range(2)]
    layers[0].paste((0, 0, 0, 255), (0, 0, 8, 8))
    layers[1].paste((9, 9, 9, 255), (8, 8, 16, 16))
    drawer.redraw("red", {"background": background, "layers": layers}, 0, 1, 4, 2)
    mask = drawer.pipe.called["mask_image"]  # type: ignore[attr-defined]
    assert mask.histogram()[255] == 128
    assert mask.getbbox() == (0, 0, 16, 16)


def test_a_wrong_value_is_a_notice_on_the_page(drawer: Drawer) -> None:
    with pytest.raises(NoticeError, match="70 must be a multiple"):
        drawer.draw("wrong", 0, 1, 4, 2, 70, 64)
    for nothing in (None, {"background": None, "layers": []}):
        with pytest.raises(NoticeError, match="Give a picture first"):
            drawer.redraw("red", nothing, 0, 1, 4, 2)


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(sys, "argv", ["page"])
    with pytest.raises(SystemExit, match=r'gradio is missing: pip install -e "\.\[ui\]"'):
        main()


def test_the_page_offers_both_drawings() -> None:
    pytest.importorskip("gradio", reason="the extra `ui` is not installed")
    page = build(Pipe())  # type: ignore[arg-type]
    names = {each.api_name for each in page.fns.values()}
    assert {"draw", "redraw"} <= names
    assert page.analytics_enabled is False
