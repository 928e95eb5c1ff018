import cv2
import numpy as np
import pytest

from cxrtut.viz import widgets

ENDS = ("source", "target")


def test_png_keeps_every_grey_level():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = np.frombuffer(widgets.png(image), np.uint8)
    assert np.array_equal(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), image)


def test_a_montage_fills_rows_from_the_left_and_pads_with_black():
    images = np.stack([np.full((2, 3), v, np.uint8) for v in (1, 2, 3)])
    sheet = widgets.montage(images, columns=2)
    assert sheet.shape == (4, 6)
    assert sheet[0, 0] == 1 and sheet[0, 3] == 2 and sheet[2, 0] == 3 and sheet[2, 3] == 0


def test_the_slider_is_linked_to_the_images_in_the_browser_not_in_the_kernel():
    from ipywidgets.embed import dependency_state

    frames = [np.full((4, 4), v, np.uint8) for v in (0, 9, 200)]
    box = widgets.image_slider(frames, ["a", "b", "c"], "value", start=1)
    slider, stack = box.children
    assert slider.max == 2 and slider.value == 1 and stack.selected_index == 1
    assert [page.children[1].value for page in stack.children] == ["a", "b", "c"]
    (link,) = [m for m in dependency_state([box]).values() if m["model_name"] == "LinkModel"]
    ends = [(end[0].removeprefix("IPY_MODEL_"), end[1]) for end in map(link["state"].get, ENDS)]
    assert ends == [(slider.model_id, "value"), (stack.model_id, "selected_index")]


def test_frames_without_captions_are_an_error_that_gives_the_counts():
    with pytest.raises(ValueError, match="got 1, 0"):
        widgets.image_slider([], ["a"], "value")
