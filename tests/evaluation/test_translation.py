"""Whether a judge takes translated images for healthy ones, and how much was changed for it."""

import numpy as np
import pytest
import torch
from evaluation.answers import Answers, split_by_hand
from sklearn.metrics import accuracy_score, recall_score

from cxrtut.data.sample import Prediction, from_uint8
from cxrtut.data.store import ArrayStore
from cxrtut.evaluation.translation import (
    CHANGE_BETTER,
    SHARES,
    TOLERANCES,
    TRANSLATION_BETTER,
    kinds_of,
    looks_healthy,
    pixel_change,
    pixel_change_measure,
    translation,
    translation_measure,
)
from cxrtut.metrics.counterfactual import pixel_change_rate

SIZE = 6


def split_of(labels, images=None, classes=("A",)):
    """All images are tested, and grey unless they are given."""
    labels = np.array(labels, np.uint8).reshape(len(labels), -1)
    if images is None:
        images = np.full((len(labels), 1, SIZE, SIZE), 128, np.uint8)
    return split_by_hand(ArrayStore.from_arrays(images, labels, classes), [], range(len(labels)))


class Judge:
    """Calls abnormal what is brighter than 0 in its last pixel: a linear judge."""

    classes, size, channels, networks = ("A",), SIZE, 1, {}

    def __init__(self, threshold=0.0):
        self.threshold, self.seen = threshold, []

    def predict(self, images):
        self.seen.append(images)
        return Prediction(scores=torch.sigmoid(50 * (images[:, :, -1, -1] - self.threshold)))


class Says:
    """A judge that says the same of every image."""

    classes, size, channels, networks = ("A", "B"), SIZE, 1, {}

    def __init__(self, *scores):
        self.scores = torch.tensor([scores])

    def predict(self, images):
        return Prediction(scores=self.scores.expand(len(images), -1))


class InOrder:
    """Has a given output for every test image, also beyond the 256 rows that a mark can name: asked
    about the abnormal images first.
    """

    classes, size, channels, networks = ("A",), SIZE, 1, {}

    def __init__(self, split, outputs):
        abnormal = split.store.labels[split.test].any(1)
        self.outputs = torch.cat([outputs[abnormal], outputs[~abnormal]])

    def predict(self, images):
        answer, self.outputs = self.outputs[: len(images)], self.outputs[len(images) :]
        return Prediction(image=answer)


def bright(levels):
    """Images of one grey level each, 0 ... 255, of which the last pixel counts."""
    images = np.zeros((len(levels), 1, SIZE, SIZE), np.uint8)
    images[:, 0, :, :] = np.array(levels)[:, None, None]
    return images


def constant(values):
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, SIZE, SIZE)


def test_shares_are_of_each_kind_and_the_pooled_one_is_of_all_images():
    """Five normal and three abnormal images; of these the judge sees one as it is not."""
    labels = [1, 0, 0, 1, 0, 0, 1, 0]
    split = split_of(labels, bright([200, 50, 200, 200, 50, 50, 50, 50]))
    output = constant([-0.5, -0.5, -0.5, 0.5, 0.5, -0.5, -0.5, -0.5])
    found = translation(Answers(split, image=output), Judge(), split, "test")
    assert found["translated_abnormal"] == pytest.approx(2 / 3)
    assert found["translated_normal"] == pytest.approx(4 / 5)
    assert found["translated"] == pytest.approx(6 / 8)
    assert found["judge_abnormal"] == pytest.approx(2 / 3)
    assert found["judge_normal"] == pytest.approx(4 / 5)
    assert found["judge"] == pytest.approx(6 / 8)
    assert set(found) == set(TRANSLATION_BETTER)


def test_the_shares_of_many_images_are_those_of_scikit_learn():
    """More than one part of each kind, and in the first no image that the judge calls abnormal."""
    rng = np.random.default_rng(0)
    labels = rng.random(700) < 0.45
    levels = rng.integers(0, 256, 700)
    levels[np.flatnonzero(labels)[:256]] = 10
    assert labels.sum() > 256 and (~labels).sum() > 256
    images = bright(levels)
    store = ArrayStore.from_arrays(images, labels.astype(np.uint8)[:, None], ("A",))
    output = torch.rand(700, generator=torch.Generator().manual_seed(1)) * 2 - 1

    split = split_by_hand(store, [], range(700))
    system = InOrder(split, output[:, None, None, None].expand(-1, 1, SIZE, SIZE))
    found = translation(system, Judge(), split, "test")
    before, after = levels > 127.5, output.numpy() > 0
    assert found["judge"] == pytest.approx(accuracy_score(labels, before))
    assert found["judge_abnormal"] == pytest.approx(recall_score(labels, before))
    assert found["judge_normal"] == pytest.approx(recall_score(~labels, ~before))
    assert found["translated"] == pytest.approx(accuracy_score(np.zeros(700), after))
    assert found["translated_abnormal"] == pytest.approx((~after[labels]).mean())
    assert found["translated_normal"] == pytest.approx((~after[~labels]).mean())
    counted = labels & before
    level = 2 * levels / 255 - 1
    for share in SHARES:
        moved = np.clip(level + share * (output.numpy() - level), -1, 1)
        assert found[f"flipped@{share:g}"] == pytest.approx((moved[counted] <= 0).mean())


def test_a_judge_that_calls_everything_healthy_lets_all_pass_and_is_never_right_about_disease():
    split = split_of([1, 0, 1, 0, 0])
    found = translation(Answers(split, image=constant([0.5] * 5)), Says(0.1), split, "test")
    assert found["translated"] == found["translated_abnormal"] == found["translated_normal"] == 1
    assert found["judge_abnormal"] == 0 and found["judge_normal"] == 1
    assert found["judge"] == pytest.approx(3 / 5)
    assert not any(name.startswith("flipped") for name in found)


def test_a_judge_that_calls_everything_abnormal_lets_nothing_pass():
    split = split_of([1, 0, 1, 0, 0])
    found = translation(Answers(split, image=constant([0.5] * 5)), Says(0.9), split, "test")
    assert found["translated"] == 0 and found["judge_abnormal"] == 1 and found["judge_normal"] == 0
    assert [found[f"flipped@{share:g}"] for share in SHARES] == [0] * len(SHARES)


def test_healthy_is_what_has_no_disease_above_a_half():
    images = torch.zeros(2, 1, SIZE, SIZE)
    assert looks_healthy(Says(0.5), images).all()
    assert not looks_healthy(Says(0.51), images).any()
    assert looks_healthy(Says(0.5, 0.2), images).tolist() == [True, True]
    assert not looks_healthy(Says(0.1, 0.9), images).any()
    assert not looks_healthy(Says(0.9, 0.1), images).any()


def test_an_image_flips_once_enough_of_its_change_is_added():
    """At .4 above the threshold: a change of d is enough from .4 / d on."""
    enough = [0.2, 0.6, 0.9, 1.1, 1.4, 2.0]
    split = split_of([1] * 6, bright([178] * 6))
    start = 2 * 178 / 255 - 1
    output = constant([start - start / at for at in enough])
    found = translation(Answers(split, image=output), Judge(), split, "test")
    wanted = [sum(at <= share for at in enough) / 6 for share in SHARES]
    assert [found[f"flipped@{share:g}"] for share in SHARES] == pytest.approx(wanted)
    assert wanted == sorted(wanted) and len(set(wanted)) == 5


def test_more_of_a_change_that_darkens_never_flips_fewer_before_a_linear_judge():
    rng = np.random.default_rng(2)
    split = split_of([1] * 40, bright(rng.integers(100, 256, 40)))
    image = split.batch(split.test).image
    output = image - torch.rand(40, 1, 1, 1, generator=torch.Generator().manual_seed(3))
    found = translation(Answers(split, image=output), Judge(), split, "test")
    flipped = [found[f"flipped@{share:g}"] for share in SHARES]
    assert flipped == sorted(flipped) and 0 < flipped[0] < flipped[-1]


def test_of_the_flips_only_abnormal_images_count_that_the_judge_calls_abnormal():
    """The second abnormal image looks healthy as it is, and comes out of it bright."""
    split = split_of([1, 1, 1, 0], bright([200, 50, 200, 200]))
    output = constant([-0.5, 0.9, 0.5, -0.5])
    found = translation(Answers(split, image=output), Judge(), split, "test")
    assert found["flipped@1"] == 1 / 2 and found["translated_abnormal"] == pytest.approx(1 / 3)
    assert found["flipped@1.5"] == 1 / 2


def test_the_judge_is_shown_the_images_as_they_are_and_as_they_came_out_within_their_range():
    split = split_of([1, 1], bright([200, 250]))
    output = constant([-3.0, 0.1])
    judge = Judge()
    translation(Answers(split, image=output), judge, split, "test")
    assert all(seen.abs().max() <= 1 for seen in judge.seen)
    assert torch.equal(judge.seen[0], split.batch(split.test).image)
    assert torch.equal(judge.seen[1], output.clamp(-1, 1))
    wanted = [split.batch(split.test).image[1, 0, -1, -1] * (1 - s) + 0.1 * s for s in SHARES]
    shown = [float(seen[1, 0, -1, -1]) for seen in judge.seen[2:]]
    assert shown == pytest.approx([float(w) for w, s in zip(wanted, SHARES, strict=True) if s != 1])


def test_a_system_without_images_is_not_judged():
    split, judge = split_of([1, 0, 0]), Judge()
    assert translation(Answers(split, scores=torch.rand(3, 1)), judge, split, "test") == {}
    assert pixel_change(Answers(split, scores=torch.rand(3, 1)), split, "test") == {}
    assert judge.seen == []


@pytest.mark.parametrize(
    ("label", "kind", "other"), [(1, "abnormal", "normal"), (0, "normal", "abnormal")]
)
def test_a_kind_without_images_has_no_numbers(label, kind, other):
    split = split_of([label] * 3, bright([200] * 3))
    system = Answers(split, image=constant([-0.5] * 3))
    found = translation(system, Judge(), split, "test")
    assert found["translated"] == found[f"translated_{kind}"] == 1
    assert found["judge"] == found[f"judge_{kind}"] == label
    assert not any(name.endswith(f"_{other}") for name in found)
    assert any(name.startswith("flipped") for name in found) == (label == 1)
    changed = pixel_change(system, split, "test")
    assert len(changed) == 2 * len(TOLERANCES)
    assert not any(f"_{other}" in name for name in changed)
    assert translation(system, Judge(), split, "train") == {}
    assert pixel_change(system, split, "train") == {}


def test_a_judge_without_scores_is_refused():
    split = split_of([1, 0])
    mute = Answers(split, image=constant([0.0, 0.0]))
    with pytest.raises(ValueError, match="judge: expected a system that gives scores, got one"):
        translation(mute, mute, split, "test")


def test_at_most_so_many_images_of_each_kind_evenly():
    split = split_of([1, 0, 1, 0, 1, 0, 1, 0, 0])
    rows = kinds_of(split, "test", 2)
    assert {kind: found.tolist() for kind, found in rows.items()} == {
        "abnormal": [0, 6], "normal": [1, 8]
    }  # fmt: skip
    for measure in (translation_measure("test", 2).by(Judge()), pixel_change_measure("test", 2)):
        system = Answers(split, image=constant([-0.5] * 9))
        measure.measure(system, split, measure.side)
        assert system.asked == [2, 2]


def test_a_disease_of_another_class_makes_no_normal_image():
    split = split_of([[1, 0], [0, 1], [0, 0]], classes=("A", "B"))
    rows = kinds_of(split, "test")
    assert rows["abnormal"].tolist() == [0, 1] and rows["normal"].tolist() == [2]


def test_the_change_rates_are_means_over_the_images_of_each_kind_and_over_all():
    generator = torch.Generator().manual_seed(4)
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (600, 1, SIZE, SIZE)).astype(np.uint8)
    labels = np.arange(600) % 9 < 4
    assert 256 < labels.sum() < 300
    split = split_of(labels, images)
    image = split.batch(split.test).image
    noise = torch.randn(600, 1, SIZE, SIZE, generator=generator)
    noise *= 0.02 * torch.rand(600, 1, 1, 1, generator=generator)
    noise[labels] *= 4
    found = pixel_change(InOrder(split, image + noise), split, "test")
    assert set(found) == set(CHANGE_BETTER) and len(found) == 12
    for tolerance in TOLERANCES:
        rate = pixel_change_rate(image, image + noise, grey_levels=tolerance).numpy()
        assert found[f"pixel_change_abnormal@{tolerance}"] == pytest.approx(rate[labels].mean())
        assert found[f"pixel_change_normal@{tolerance}"] == pytest.approx(rate[~labels].mean())
        assert found[f"pixel_change@{tolerance}"] == pytest.approx(rate.mean())
    assert found["pixel_change@0"] < found["pixel_change_abnormal@0"] - 0.1


def test_a_system_that_does_nothing_changes_nothing_and_four_levels_are_more_than_two():
    split = split_of([1, 0], bright([100, 100]))
    same = split.batch(split.test).image
    assert set(pixel_change(Answers(split, image=same), split, "test").values()) == {0.0}
    four = from_uint8(torch.from_numpy(np.array(split.store.store.images) + np.uint8(4)))
    found = pixel_change(Answers(split, image=four), split, "test")
    assert [found[f"pixel_change_normal@{t}"] for t in TOLERANCES] == [1, 1, 1, 0]


def test_each_number_says_which_side_is_better():
    assert set(TRANSLATION_BETTER.values()) == {"higher"}
    assert set(CHANGE_BETTER.values()) == {"lower"}
    assert translation_measure("test").better == TRANSLATION_BETTER
    assert pixel_change_measure("validation").side == "validation"
