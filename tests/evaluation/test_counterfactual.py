"""What is left of a lesion, and what else was changed, of any system that gives images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation.answers import Answers, split_by_hand

from cxrtut.data.device_store import pack_masks
from cxrtut.data.sample import from_uint8
from cxrtut.data.store import ArrayStore
from cxrtut.evaluation.counterfactual import (
    BETTER,
    TWIN_BETTER,
    lesion_removal,
    removal_measure,
    twin_distance,
    twin_measure,
)
from cxrtut.metrics.counterfactual import background_change, residual_lesion_ratio

SIZE, N = 12, 14


def split_of(*, twins=True):
    """Every other image has a bright patch on its healthy twin."""
    rng = np.random.default_rng(0)
    healthy = rng.integers(40, 120, (N, 1, SIZE, SIZE)).astype(np.uint8)
    healthy[:, :, 0, 0] = np.arange(N)[:, None]
    images, masks = healthy.copy(), np.zeros((N, 1, SIZE, SIZE), bool)
    masks[1::2, :, 3:7, 4:9] = True
    images[masks] += 60
    store = ArrayStore.from_arrays(
        images, (np.arange(N) % 2).astype(np.uint8)[:, None], ("A",), masks=pack_masks(masks),
        healthy=healthy if twins else None,
    )  # fmt: skip
    return split_by_hand(store, range(4), range(4, N))


def test_numbers_are_those_of_the_metrics_on_the_outlined_images():
    split = split_of()
    generator = torch.Generator().manual_seed(0)
    output = torch.rand(N - 4, 1, SIZE, SIZE, generator=generator) * 2 - 1
    found = lesion_removal(Answers(split, image=output), split, "test")
    batch = split.batch(np.arange(5, N, 2))
    given, truth = output[1::2], batch.mask[:, 0]
    left = residual_lesion_ratio(batch.image, batch.healthy, given, truth).mean()
    outside = background_change(batch.image, given, truth).mean()
    wanted = {"residual_ratio": float(left), "background_change": 127.5 * float(outside)}
    assert found == pytest.approx(wanted) and set(found) == set(BETTER)


def test_the_twin_leaves_nothing_and_the_image_itself_everything():
    split = split_of()
    twin = from_uint8(torch.from_numpy(split.store.store.healthy[4:]))
    found = lesion_removal(Answers(split, image=twin), split, "test")
    assert found["residual_ratio"] == 0 and found["background_change"] == pytest.approx(0, abs=1e-4)
    same = split.batch(split.test).image
    found = lesion_removal(Answers(split, image=same), split, "test")
    assert found == pytest.approx({"residual_ratio": 1.0, "background_change": 0.0})


def test_the_background_is_counted_in_grey_levels():
    split = split_of()
    brighter = split.batch(split.test).image + 10 / 127.5
    found = lesion_removal(Answers(split, image=brighter), split, "test")
    assert found["background_change"] == pytest.approx(10, abs=1e-3)


def test_without_an_image_a_twin_or_an_outline_nothing_is_said():
    split = split_of()
    assert lesion_removal(Answers(split, scores=torch.rand(10, 1)), split, "test") == {}
    alone = split_of(twins=False)
    image = torch.zeros(10, 1, SIZE, SIZE)
    assert lesion_removal(Answers(alone, image=image), alone, "test") == {}
    bare = ArrayStore.from_arrays(
        np.zeros((4, 1, 8, 8), np.uint8), np.ones((4, 1), np.uint8), ("A",),
        healthy=np.zeros((4, 1, 8, 8), np.uint8),
    )  # fmt: skip
    bare = split_by_hand(bare, [0], [1, 2, 3])
    system = Answers(bare, image=torch.zeros(3, 1, 8, 8))
    assert lesion_removal(system, bare, "test") == {} and system.asked == []


def test_at_most_so_many_images_are_asked_for():
    split = split_of()
    system = Answers(split, image=torch.zeros(10, 1, SIZE, SIZE))
    measure = removal_measure("test", at_most=2)
    assert set(measure.measure(system, split, measure.side)) == set(measure.better)
    assert system.asked == [2]


def written_out(a, b):
    """The mean difference of pixels in grey levels, as of images of 0 ... 255."""
    return 127.5 * np.abs(a.numpy().astype(float) - b.numpy().astype(float)).mean()


def test_the_distance_to_the_twin_is_over_all_pixels_and_in_grey_levels():
    split = split_of()
    output = torch.rand(N - 4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = twin_distance(Answers(split, image=output), split, "test")
    ill, well = split.batch(np.arange(5, N, 2)), split.batch(np.arange(4, N, 2))
    assert found == pytest.approx(
        {
            "twin_error": written_out(output[1::2], ill.healthy),
            "twin_error_untouched": written_out(ill.image, ill.healthy),
            "change_on_normal": written_out(output[::2], well.image),
        }
    )
    assert set(found) == set(TWIN_BETTER)
    lesion = 60 * 4 * 5 / SIZE**2  # 60 levels on 4 x 5 pixels
    assert found["twin_error_untouched"] == pytest.approx(lesion, abs=1e-4)


def test_who_does_nothing_is_as_far_from_the_twin_as_the_image_and_the_twin_is_not_far():
    split = split_of()
    same = split.batch(split.test).image
    found = twin_distance(Answers(split, image=same), split, "test")
    assert found["twin_error"] == found["twin_error_untouched"] > 0
    assert found["change_on_normal"] == 0
    twin = from_uint8(torch.from_numpy(split.store.store.healthy[4:]))
    found = twin_distance(Answers(split, image=twin), split, "test")
    assert found["twin_error"] == 0 < found["twin_error_untouched"]
    found = twin_distance(Answers(split, image=same + 3 / 127.5), split, "test")
    assert found["change_on_normal"] == pytest.approx(3, abs=1e-4)


def test_where_nobody_knows_the_twin_the_change_of_normal_images_is_left():
    split = split_of(twins=False)
    system = Answers(split, image=torch.zeros(N - 4, 1, SIZE, SIZE))
    assert set(twin_distance(system, split, "test")) == {"change_on_normal"}
    assert twin_distance(Answers(split, scores=torch.rand(10, 1)), split, "test") == {}


def test_a_side_of_one_kind_has_the_distances_of_that_kind():
    split = split_of()
    image = torch.zeros(5, 1, SIZE, SIZE)
    for rows, names in (
        (np.arange(5, N, 2), {"twin_error", "twin_error_untouched"}),
        (np.arange(4, N, 2), {"change_on_normal"}),
    ):
        side = replace(split, test=rows)
        assert set(twin_distance(Answers(side, image=image), side, "test")) == names
    only_normal = replace(split, test=np.arange(4, N, 2))
    assert twin_distance(Answers(only_normal, scores=torch.rand(5, 1)), only_normal, "test") == {}


def test_at_most_so_many_images_of_each_kind_are_translated():
    split = split_of()
    system = Answers(split, image=torch.zeros(10, 1, SIZE, SIZE))
    measure = twin_measure("test", at_most=3)
    assert set(measure.measure(system, split, measure.side)) == set(measure.better)
    assert system.asked == [3, 3]
    assert TWIN_BETTER["twin_error_untouched"] == "neither"


def test_an_abnormal_image_counts_also_where_nobody_has_outlined_it():
    split = split_of()
    bare = replace(split, store=replace(split.store, store=replace(split.store.store, masks=None)))
    assert not len(bare.with_truth("test"))
    system = Answers(bare, image=split.batch(split.test).image)
    assert twin_distance(system, bare, "test") == twin_distance(system, split, "test")
