"""What holds for every figure of the book: its size, its type, that no text is cut or covered."""

import functools
import importlib
import inspect
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from viz.sight import contrast, luminance

from cxrtut.viz import (
    boxed,
    curves,
    images,
    masks,
    overlays,
    pseudo_healthy,
    surfaces,
    translation,
)

MODULES = (
    "images", "overlays", "masks", "pseudo_healthy", "curves", "surfaces", "translation", "boxed",
)  # fmt: skip
DISEASES = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration",
    "Mass", "Nodule", "Pneumonia", "Pneumothorax",
)  # fmt: skip
LANDMARKS = ("right apex", "left apex", "right dome", "left dome", "right costophrenic angle",
             "left costophrenic angle", "carina", "aortic knob", "heart apex")  # fmt: skip
GAMES = ("as above", "no penalty (λ = 0)", "one step of D, not five", "learning rate × 10",
         "cross-entropy, one", "cross-entropy, five")  # fmt: skip


def films(n: int, size: int) -> torch.Tensor:
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(n)) * 2 - 1


def squares(n: int, size: int) -> torch.Tensor:
    mask = torch.zeros(n, size, size, dtype=torch.bool)
    mask[:, size // 4 : size // 2, size // 4 : size // 2] = True
    return mask


def boxes(n: int, size: int) -> list[torch.Tensor]:
    return [torch.tensor([[size * 0.2, size * 0.3, size * 0.6, size * 0.7]])] * n


def heat(n: int, cells: int) -> torch.Tensor:
    return torch.linspace(0, 1, cells * cells).reshape(cells, cells).expand(n, -1, -1)


def gallery(size: int) -> Figure:
    return images.gallery(films(8, size), [f"{name}\nEffusion" for name in DISEASES])


def boxed_rows(size: int) -> Figure:
    names = ("as it is", "the box alone", "Pix2Pix-N", "StarGAN")
    rows = {name: films(4, size) for name in names}
    return boxed.boxed_rows(rows, dict.fromkeys(names[::2], boxes(4, size)), DISEASES[:4])


def twins(size: int) -> Figure:
    return images.twins(
        films(3, size), films(3, size), squares(3, size), boxes(3, size), DISEASES[5:]
    )


def planes(size: int) -> Figure:
    maps = [scale * films(1, size)[0, 0] for scale in (0.1, 4.0, 300.0, 1e-3)]
    return images.planes(maps, ["lung, cm", "vessels, cm", "heart", "optical depth"])


def named_points(size: int) -> Figure:
    places = (0.3 + 0.05 * torch.arange(9))[:, None].expand(9, 2).flip(0)
    apart = places * torch.tensor([1.0, 1.6]) * size
    return images.named_points(films(1, size)[0, 0], apart, LANDMARKS)


def evidence_rows(size: int) -> Figure:
    signed = [2 * heat(4, cells) - 1 for cells in (8, 8, 16, 32)]
    names = ["evidence", "Grad-CAM, 8 x 8", "16 x 16", "32 x 32"]
    titles = ["ill", "ill", "healthy", "healthy"]
    return overlays.evidence_rows(films(4, size), signed, names, squares(4, size), titles)


def found_boxes(size: int) -> Figure:
    inside = squares(4, size)
    return overlays.found_boxes(films(4, size), heat(4, size), inside, boxes(4, size), inside)


def masks_over(size: int) -> Figure:
    sets = {name: heat(8, 8) for name in ("learnt", "drawn by hand", "the truth")}
    return masks.masks_over(films(1, size)[0], sets, DISEASES)


def before_and_after(size: int) -> Figure:
    return masks.before_and_after(films(5, size), films(5, size), list(films(2, size)))


def localisations(size: int) -> Figure:
    found = {arm: (heat(7, size), boxes(7, size)) for arm in ("plain", "aligned", "aligned + DM")}
    return masks.localisations(films(7, size), squares(7, size), found, DISEASES[:7])


def rows_of_arms(size: int) -> Figure:
    outputs = {name: films(2, size) for name in ("G-D-C", "G-D", "G-C", "healthy twin")}
    return pseudo_healthy.rows_of_arms(films(2, size), outputs, squares(2, size))


def terms_over_steps(size: int) -> Figure:
    names = ("D/distance", "D/penalty", "GC/CE", "GC/ED", "G/adversarial")
    terms = {name: [1e-4 * 30.0**k, 0.0, -(30.0**k)] for k, name in enumerate(names)}
    return curves.terms_over_steps([10, 200, 400], terms)


def learning_curves(size: int) -> Figure:
    seeds = [([500, 1000], [0.4, 0.8]), ([500, 1000], [0.5, 0.9])]
    return curves.learning_curves(dict.fromkeys(SYSTEMS, seeds), "pixel AUC")


def precision_over_recall(size: int) -> Figure:
    recall = torch.linspace(0, 1, 9)
    names = ("G-D-C", "G-D", "G-C", "ED", "Grad-CAM-1", "Grad-CAM-2", "CAM", "mean of the others")
    return curves.precision_over_recall(dict.fromkeys(names, (recall, 1 - recall)), 0.05)


SYSTEMS = ("VA-GAN", "StarGAN", "Fixed-Point GAN", "w/o SAB", "PILLET-GAN", "no origin identity")


def flip_rates(size: int) -> Figure:
    return translation.flip_rates([0.0, 0.5, 1.5], {name: [0.0, 0.4, 1.0] for name in SYSTEMS})


def change_rates(size: int) -> Figure:
    of = {name: [1.0, 0.8, 0.5, 0.0] for name in SYSTEMS}
    kinds = ("pneumonia to healthy", "healthy to healthy")
    return translation.change_rates([0, 1, 2, 4], dict.fromkeys(kinds, of))


POINTS = torch.tensor([[0.5, 0.5], [-0.5, 0.5]])


def score_maps(size: int) -> Figure:
    scores = [scale * heat(1, 9)[0] for scale in (0.1, 9.0, 200.0, 2e3, 1.0, 1.0, 1.0, 1.0)]
    titles = [f"step {20 * k}" for k in range(8)]
    return surfaces.score_maps(scores, POINTS, [POINTS] * 8, titles, limit=2.0)


def slope_maps(size: int) -> Figure:
    return surfaces.slope_maps([heat(1, 9)[0], 200 * heat(1, 9)[0]], GAMES[:2], limit=2.0)


def clouds(size: int) -> Figure:
    return surfaces.clouds(POINTS, [POINTS] * 6, GAMES, limit=2.0, columns=3)


FIGURES: dict[str, Callable[[int], Figure]] = {
    make.__name__: make
    for make in (
        gallery, boxed_rows, twins, planes, named_points, evidence_rows, found_boxes, masks_over,
        before_and_after, localisations, rows_of_arms, terms_over_steps, learning_curves,
        precision_over_recall, score_maps, slope_maps, clouds, flip_rates, change_rates,
    )
}  # fmt: skip
WITH_A_BAR = set(FIGURES) - {
    "gallery", "boxed_rows", "named_points", "before_and_after", "terms_over_steps",
    "learning_curves",
    "precision_over_recall", "clouds", "flip_rates", "change_rates",
}  # fmt: skip
every_figure = pytest.mark.parametrize("name", FIGURES)


@functools.cache
def drawn(name: str) -> tuple[Figure, list[Text]]:
    """A figure, drawn once, and all texts in it that matplotlib really draws: it keeps more of
    them, such as ticks outside the axes.
    """
    figure = FIGURES[name](64)
    figure.canvas.draw()
    seen: list[Text] = []
    original = Text.draw

    def draw(self: Text, renderer: object) -> None:
        if self.get_visible() and self.get_text().strip():
            seen.append(self)
        original(self, renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", draw)
        figure.canvas.draw()
    plt.close(figure)
    return figure, seen


def test_every_function_that_makes_a_figure_is_looked_at_here() -> None:
    makers = {
        name
        for module in MODULES
        for name, made in vars(importlib.import_module(f"cxrtut.viz.{module}")).items()
        if inspect.isfunction(made) and inspect.signature(made).return_annotation == "Figure"
    }
    assert makers == set(FIGURES)


@every_figure
def test_a_figure_is_wide_fine_transparent_and_has_at_most_four_columns(name: str) -> None:
    figure, _ = drawn(name)
    assert figure.get_figwidth() == 7.5 and figure.dpi == 200
    assert figure.get_facecolor()[3] == 0
    middles = [round(axis.get_window_extent().ymax) for axis in figure.axes]
    assert max(middles.count(middle) for middle in middles) <= 4


CURVES = {
    "terms_over_steps",
    "precision_over_recall",
    "learning_curves",
    "flip_rates",
    "change_rates",
}


@pytest.mark.parametrize("name", sorted(set(FIGURES) - CURVES))
def test_pictures_fill_the_width_of_a_figure(name: str) -> None:
    """They become smaller, with gaps between them, where a figure is not high enough."""
    figure, _ = drawn(name)
    places = [axis.get_window_extent() for axis in figure.axes]
    first_row = [place.width for place in places if place.y0 == pytest.approx(places[0].y0, abs=2)]
    assert sum(first_row) >= 0.87 * figure.bbox.width


@every_figure
def test_text_is_large_inside_the_figure_and_on_no_other_text(name: str) -> None:
    figure, texts = drawn(name)
    assert all(text.get_fontsize() >= 10 for text in texts)
    places = [text.get_window_extent() for text in texts]
    for text, place in zip(texts, places, strict=True):
        inside = figure.bbox.padded(0.5)
        assert inside.x0 <= place.x0 and place.x1 <= inside.x1, f"cut: {text.get_text()}"
        assert inside.y0 <= place.y0 and place.y1 <= inside.y1, f"cut: {text.get_text()}"
        for other, there in zip(texts, places, strict=True):
            covered = text is not other and place.padded(-1).overlaps(there)
            assert not covered, f"{text.get_text()} on {other.get_text()}"
        for axis in figure.axes:
            if axis.images and text.axes is not axis:
                apart = not place.padded(-1).overlaps(axis.get_window_extent())
                assert apart, f"{text.get_text()} on a picture"


@every_figure
def test_a_figure_of_heat_or_differences_has_one_bar_that_says_what_it_shows(name: str) -> None:
    bars = [axis for axis in drawn(name)[0].axes if axis.get_label() == "<colorbar>"]
    assert len(bars) == (name in WITH_A_BAR)
    for bar in bars:
        assert bar.get_xlabel() and len(bar.get_xticks()) >= 2


@every_figure
def test_every_text_is_in_ink_but_those_in_a_picture(name: str) -> None:
    for text in drawn(name)[1]:
        assert text.get_path_effects() or to_rgb(text.get_color()) == to_rgb(images.INK)


def test_ink_has_a_contrast_of_four_and_a_half_on_white_and_on_black() -> None:
    ink = luminance(np.array(to_rgb(images.INK)))
    assert min(contrast(ink, 1.0), contrast(ink, 0.0)) >= 4.5
