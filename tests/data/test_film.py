"""Films as somebody has them: read, framed, and mapped back."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from cxrtut.data.decode import Frame, ImageError
from cxrtut.data.film import in_film, read_film
from cxrtut.data.sample import Detections, Prediction, from_uint8, to_uint8


def levels(height=40, width=40, *more):
    return np.random.default_rng(0).integers(0, 256, (height, width, *more)).astype(np.uint8)


def grey_of(film, size=40, channels=1):
    """What a network gets, as grey levels."""
    framed = read_film(film, size, channels)
    assert framed.image.shape == (1, channels, size, size)
    assert framed.image.dtype == torch.float32
    return to_uint8(framed.image)[0].numpy()


# What is read


def test_a_file_an_array_and_a_tensor_are_the_same_film(tmp_path):
    grey = levels()
    Image.fromarray(grey).save(tmp_path / "film.png")
    films = [
        tmp_path / "film.png", str(tmp_path / "film.png"), grey, torch.from_numpy(grey), grey[None],
        torch.from_numpy(grey)[None], grey[None, None], grey[:, ::-1][:, ::-1],
    ]  # fmt: skip
    for film in films:
        assert np.array_equal(grey_of(film)[0], grey)
    expected = from_uint8(torch.from_numpy(grey))[None, None]
    assert torch.equal(read_film(grey, 40, 1).image, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_in_unit_range_or_around_zero(dtype):
    grey = levels()
    unit = (grey / 255).astype(dtype)
    for film in (unit, (grey / 127.5 - 1).astype(dtype), torch.from_numpy(unit)[None]):
        off = np.abs(grey_of(film)[0].astype(int) - grey)
        assert off.max() <= (1 if dtype is np.float16 else 0)


def test_an_image_of_a_store_comes_back_as_it_was():
    image = from_uint8(torch.from_numpy(levels()))[None, None]
    assert torch.equal(read_film(image, 40, 1).image, image)
    assert torch.equal(read_film(image.requires_grad_(), 40, 1).image, image.detach())


def test_colour_becomes_grey_by_its_luma_and_grey_becomes_three_channels(tmp_path):
    colour, grey = levels(40, 40, 3), levels()
    luma = colour @ np.array([0.299, 0.587, 0.114])
    for film in (colour, colour.transpose(2, 0, 1), torch.from_numpy(colour)):
        assert np.abs(grey_of(film)[0] - luma).max() <= 0.51
    assert np.array_equal(grey_of(colour, channels=3), colour.transpose(2, 0, 1))
    assert np.array_equal(grey_of(grey, channels=3), np.stack([grey] * 3))
    Image.fromarray(colour).save(tmp_path / "colour.png")
    assert np.array_equal(grey_of(tmp_path / "colour.png", channels=3), colour.transpose(2, 0, 1))
    assert np.abs(grey_of(tmp_path / "colour.png")[0] - luma).max() <= 1


def test_a_film_is_brought_to_the_size_by_averaging_areas():
    grey = levels(80, 80)
    by_hand = grey.reshape(40, 2, 40, 2).mean((1, 3))
    assert np.abs(grey_of(grey)[0] - by_hand).max() <= 0.5


def test_a_film_that_is_not_square_keeps_its_shape_with_black_around_it():
    framed = read_film(np.full((60, 40), 200, np.uint8), 30, 1)
    assert framed.frame == Frame(60, 40, 30)
    shown = to_uint8(framed.image)[0, 0]
    assert (shown[:, 5:25] == 200).all() and not shown[:, :5].any() and not shown[:, 25:].any()
    wide = to_uint8(read_film(np.full((40, 60), 200, np.uint8), 30, 1).image)[0, 0]
    assert torch.equal(wide, shown.T)


def test_a_film_that_a_resampling_left_slightly_out_of_its_range_keeps_its_range():
    ramp = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    plain = read_film(ramp, 64, 1).image
    for low, high in ((-1e-4, 1.0), (-0.04, 1.03)):
        bent = ramp.copy()
        bent[0, 0], bent[-1, -1] = low, high
        assert torch.equal(read_film(bent, 64, 1).image, plain)
    signed = read_film(2 * ramp - 1, 64, 1).image
    assert (signed - plain).abs().max() < 0.01


def test_a_photograph_with_an_orientation_is_framed_and_mapped_back_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    stored = np.zeros((40, 60), np.uint8)
    stored[:, 45:] = 200
    Image.fromarray(stored).save(tmp_path / "film.png", exif=exif)
    framed = read_film(tmp_path / "film.png", 30, 1)
    assert framed.frame == Frame(60, 40, 30)
    (answer,) = in_film(Prediction(image=framed.image), [framed.frame])
    assert answer.image.shape == (1, 1, 60, 40)
    assert (to_uint8(answer.image)[0, 0, 47:] == 200).all()
    assert not to_uint8(answer.image)[0, 0, :43].any()


def test_a_tensor_of_half_precision_is_a_film():
    film = torch.linspace(0, 1, 1600).view(40, 40)
    for dtype in (torch.float16, torch.bfloat16):
        off = read_film(film.to(dtype), 40, 1).image - read_film(film, 40, 1).image
        assert off.abs().max() <= 0.016  # a step of 2 levels


# What is refused


@pytest.mark.parametrize(
    ("film", "error", "words"),
    [
        (np.linspace(0, 255, 512 * 512).reshape(512, 512), ValueError, r"got \[0, 255\].*uint8"),
        (np.full((8, 8), -1.5), ValueError, r"\[-1, 1\] or \[0, 1\], got \[-1.5, -1.5\]"),
        (np.where(np.eye(8), np.nan, 0.5), ValueError, "expected finite values, got NaN"),
        (np.where(np.eye(8), np.inf, 0.5), ValueError, "expected finite values, got NaN or inf"),
        (np.zeros((8, 8), np.int64), TypeError, "expected uint8, or floats .*, got int64"),
        (np.zeros((8, 8), np.uint16), TypeError, "got uint16.*scale_to_uint8"),
        (np.zeros((8, 8), bool), TypeError, "got bool"),
        (torch.zeros(8, 8, dtype=torch.int64), TypeError, "got int64"),
        (np.zeros(8, np.uint8), ValueError, r"expected \(H, W\).*got shape \(8,\)"),
        (np.zeros((2, 8, 8), np.uint8), ValueError, r"got shape \(2, 8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), ValueError, r"got shape \(8, 8, 4\)"),
        (np.zeros((2, 1, 8, 8), np.uint8), ValueError, r"got shape \(2, 1, 8, 8\)"),
        (np.zeros((1, 1, 1, 8, 8), np.uint8), ValueError, "got shape"),
        (np.zeros((0, 8), np.uint8), ValueError, r"expected pixels, got shape \(0, 8\)"),
    ],
)
def test_what_is_no_film_is_refused_with_words(film, error, words):
    with pytest.raises(error, match=words):
        read_film(film, 16, 1)


def test_a_file_that_is_missing_or_no_image_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"none\.png: expected an image file, found none"):
        read_film(tmp_path / "none.png", 16, 1)
    with pytest.raises(ImageError, match="expected an image file, found none"):
        read_film(tmp_path, 16, 1)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageError, match=r"text\.png"):
        read_film(str(tmp_path / "text.png"), 16, 1)


# The way back

SHAPES = [(90, 60), (60, 90), (64, 64), (37, 101), (200, 30), (20, 33)]


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_a_point_of_a_film_is_found_again_within_a_pixel(height, width):
    y, x = 0.7 * height, 0.3 * width
    grid_y, grid_x = np.mgrid[:height, :width] + 0.5
    spread = min(height, width) / 10  # more than a pixel of the network's, and inside the film
    blob = np.exp(-((grid_y - y) ** 2 + (grid_x - x) ** 2) / (2 * spread**2))
    framed = read_film(blob, 64, 1)
    [back] = in_film(Prediction(heatmap=(framed.image + 1) / 2), [framed.frame])
    assert back.heatmap.shape == (1, 1, height, width)
    heat = back.heatmap[0, 0].numpy()
    top, left = np.unravel_index(heat.argmax(), heat.shape)
    larger = max(1.0, max(height, width) / 64)  # a pixel of the network's
    assert abs(top + 0.5 - y) <= larger and abs(left + 0.5 - x) <= larger
    weight = heat * (heat > 0.2 * heat.max())
    centre = [(weight * grid).sum() / weight.sum() for grid in (grid_y, grid_x)]
    assert np.abs(np.array(centre) - (y, x)).max() < 1


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_a_smooth_film_comes_back_as_it_was_to_its_borders(height, width):
    """A ramp has no other value at the border than beside it, and black there would show."""
    ramp = np.linspace(0.4, 0.9, height)[:, None] + np.linspace(0, 0.1, width)
    framed = read_film(ramp, 64, 1)
    [back] = in_film(Prediction(image=framed.image), [framed.frame])
    assert back.image.shape == (1, 1, height, width)
    step = 1.5 * max(1, max(height, width) / 64) * (0.5 / height + 0.1 / width) + 2 / 255
    assert np.abs((back.image[0, 0].numpy() + 1) / 2 - ramp).max() < step


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_boxes_go_there_and_back(height, width):
    frame = Frame(height, width, 64)
    boxes = np.array([[0, 0, width, height], [2, 3, 11, 17], [width - 9, 1, width - 1, 8]], float)
    there = torch.from_numpy(frame.boxes(boxes.tolist())).float()
    found = Detections(there, torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0, 2, 1]))
    [back] = in_film(Prediction(boxes=(found,)), [frame])
    assert np.abs(back.boxes[0].boxes.numpy() - boxes).max() < 1e-3
    assert torch.equal(back.boxes[0].scores, found.scores)
    assert torch.equal(back.boxes[0].labels, found.labels)


def test_a_box_on_the_black_beside_a_film_ends_at_its_border():
    found = Detections(torch.tensor([[0.0, 0.0, 64.0, 64.0]]), torch.ones(1), torch.zeros(1).long())
    [back] = in_film(Prediction(boxes=(found,)), [Frame(120, 60, 64)])
    assert back.boxes[0].boxes.tolist() == [[0, 0, 60, 120]]


def test_each_film_gets_its_own_answer_in_its_own_pixels():
    frames = [Frame(20, 10, 8), Frame(9, 30, 8)]
    boxes = tuple(
        Detections(
            torch.tensor([[3.0, 3.0, 5.0, 5.0]]).repeat(n, 1), torch.zeros(n), torch.zeros(n).long()
        )
        for n in (1, 2)
    )
    answer = Prediction(
        scores=torch.tensor([[0.1, 0.2], [0.3, 0.4]]), heatmap=torch.rand(2, 2, 8, 8),
        image=torch.zeros(2, 1, 8, 8), boxes=boxes,
    )  # fmt: skip
    one, other = in_film(answer, frames)
    assert one.heatmap.shape == (1, 2, 20, 10) and other.heatmap.shape == (1, 2, 9, 30)
    assert one.image.shape == (1, 1, 20, 10) and other.image.shape == (1, 1, 9, 30)
    assert torch.equal(one.scores, answer.scores[:1])
    assert torch.equal(other.scores, answer.scores[1:])
    assert [len(film.boxes[0].boxes) for film in (one, other)] == [1, 2]
    inside = answer.heatmap[0, 0, :, 2:6].numpy()
    by_hand = cv2.resize(inside, (10, 20), interpolation=cv2.INTER_LINEAR)
    assert np.abs(one.heatmap[0, 0].numpy() - by_hand).max() < 1e-5


def test_what_was_not_answered_stays_unanswered():
    [back] = in_film(Prediction(), [Frame(9, 9, 8)])
    assert back.scores is back.heatmap is back.image is back.boxes is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_answers_of_half_precision_are_enlarged_in_float32(dtype):
    generator = torch.Generator().manual_seed(0)
    heat = torch.rand(1, 1, 30, 30, generator=generator).to(dtype)
    (half,), (single,) = (
        in_film(Prediction(heatmap=x), [Frame(700, 500, 30)]) for x in (heat, heat.float())
    )
    assert half.heatmap.dtype == dtype
    assert torch.equal(half.heatmap, single.heatmap.to(dtype))
