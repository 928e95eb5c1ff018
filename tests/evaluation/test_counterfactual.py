"""What is left of a lesion, and what else was changed, of any system that gives images."""

import numpy as np
import pytest
import torch
from evaluation.answers import Answers, split_by_hand

from cxrtut.data.device_store import pack_masks
from cxrtut.data.sample import from_uint8
from cxrtut.data.store import ArrayStore
from cxrtut.evaluation.counterfactual import BETTER, lesion_removal, removal_measure
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
