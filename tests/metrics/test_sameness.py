"""Whether a heat map is of its image or the same for all."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cxrtut.metrics.sameness import likeness_to_others, mean_of_others, rank_correlation


def heat(*rows: list[float]) -> Tensor:
    """Heat maps of one row of pixels each."""
    return torch.tensor(rows)[:, None]


def test_the_mean_of_the_others_leaves_the_image_itself_out() -> None:
    maps = heat([0.0, 3.0], [6.0, 1.0], [2.0, 5.0])
    assert mean_of_others(maps).equal(heat([4.0, 3.0], [1.0, 4.0], [3.0, 2.0]))


def test_one_map_for_all_images_is_like_the_others_whatever_its_strength() -> None:
    template = torch.rand(1, 5, 7, generator=torch.Generator().manual_seed(0))
    maps = torch.cat([template, 3 * template, 0.5 * template + 2])
    torch.testing.assert_close(likeness_to_others(maps), torch.ones(3).double())


def test_maps_of_which_each_has_its_own_place_are_unlike_the_others() -> None:
    # Two images: the mean of the others is the other image, which is the opposite.
    assert likeness_to_others(heat([1.0, 0.0], [0.0, 1.0])).tolist() == pytest.approx([-1, -1])


def test_likeness_is_the_correlation_of_numpy() -> None:
    maps = torch.rand(4, 6, 6, generator=torch.Generator().manual_seed(1))
    flat = maps.numpy().reshape(4, -1)
    expected = [
        np.corrcoef(flat[i], np.delete(flat, i, axis=0).mean(0))[0, 1] for i in range(len(flat))
    ]
    assert likeness_to_others(maps).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_constant_map_has_no_likeness() -> None:
    assert likeness_to_others(heat([1.0, 1.0], [0.0, 1.0])).isnan().all()


def test_one_image_alone_has_no_others() -> None:
    for measure in (mean_of_others, likeness_to_others):
        with pytest.raises(ValueError, match="two images or more, got 1"):
            measure(heat([1.0, 2.0]))


def test_heat_that_is_not_of_floats_is_refused() -> None:
    with pytest.raises(TypeError, match="heatmap"):
        mean_of_others(heat([1, 2], [3, 4]))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_ranks_are_taken_in_any_precision(kind) -> None:
    rising = heat([0.0, 1.0, 2.0, 7.0], [0.0, 1.0, 2.0, 3.0]).to(kind)
    falling = heat([3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 9.0]).to(kind)
    found = rank_correlation(rising, falling)
    assert found.dtype == torch.float64 and found.tolist() == pytest.approx([-1, 1])


def test_heat_that_cannot_be_ranked_is_refused_in_either_place() -> None:
    good, nan = heat([1.0, 2.0]), heat([1.0, float("nan")])
    for name, pair in (("first", (nan, good)), ("second", (good, nan))):
        with pytest.raises(ValueError, match=f"{name}: expected numbers, got NaN in 1 of 2"):
            rank_correlation(*pair)
