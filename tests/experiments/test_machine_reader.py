"""Networks that look at what an arm adds: real images pass, drawings do not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cxrtut.data.annotated import one_box_each, with_all_boxes
from cxrtut.experiments import machine_reader
from cxrtut.experiments.machine_reader import synthetic_images, synthetic_measure
from cxrtut.experiments.pix2pix import split_of, train_reader
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.papers.pix2pix import SMOKE

TINY = replace(SMOKE, size=32, halvings=4, reader_steps=20)


@pytest.fixture(scope="module")
def split():
    return split_of(Source(images=400), TINY, 0)


@pytest.fixture(scope="module")
def judge(split):
    return train_reader(TINY, split, Run())


class Detector:
    """A system of which nothing but the images that were added is looked at."""

    classes, size, channels, networks = ("any",), 32, 1, {}

    def __init__(self, added=None):
        self.added = added

    def predict(self, images):
        raise AssertionError("nobody asks")


def others(split):
    """Real images with boxes that are learnt from."""
    return with_all_boxes(split, split.train[np.isin(split.train, split.store.boxes.row)])


def test_real_images_of_other_patients_are_near_and_mostly_pass(split, judge):
    found = synthetic_images(Detector(others(split)), judge, split, "test")
    assert found["box_change"] == 0
    assert found["taken_for_real"] > 0.8
    noise = others(split)
    noise = replace(noise, images=torch.randint_like(noise.images, 256))
    drawn = synthetic_images(Detector(noise), judge, split, "test")
    assert drawn["taken_for_real"] < 0.05
    assert drawn["frechet"] > 3 * found["frechet"] and drawn["kernel"] > found["kernel"]
    assert drawn["box_change"] > 100


def test_a_mirrored_box_is_the_same_box_and_a_changed_level_is_told(split, judge):
    pairs = one_box_each(split)
    left, top, right, bottom = pairs.boxes.unbind(-1)
    turned = replace(
        pairs, images=pairs.images.flip(-1),
        boxes=torch.stack((32 - right, top, 32 - left, bottom), dim=-1),
    )  # fmt: skip
    assert synthetic_images(Detector(turned), judge, split, "test")["box_change"] == 0
    darker = replace(pairs, images=pairs.images.clamp_min(3) - 3)
    found = synthetic_images(Detector(darker), judge, split, "test")["box_change"]
    assert found == pytest.approx(3, abs=0.01)


def test_a_reader_is_asked_about_patients_that_it_has_not_seen(split, judge, monkeypatch):
    seen, asked = [], []
    trained, looks = machine_reader._reader, machine_reader._looks_real
    monkeypatch.setattr(machine_reader, "_reader", lambda *a: seen.extend(a[:2]) or trained(*a))
    monkeypatch.setattr(
        machine_reader, "_looks_real", lambda r, images: asked.append(images) or looks(r, images)
    )
    synthetic_images(Detector(others(split)), judge, split, "test")
    known = {image.numpy().tobytes() for store in seen for image in store.images}
    new = {image.numpy().tobytes() for images in asked for image in images}
    assert known and new and not known & new
    patients = [set(split.patients(store.index.numpy())) for store in seen]
    assert patients[0] <= set(split.patients(split.train))
    assert patients[1] <= set(split.patients(split.test))


def test_nothing_of_a_system_without_added_images(split, judge):
    measure = synthetic_measure("test")
    few = [Detector(others(split).moved(lambda t, n=n: t[:n])) for n in (0, 1)]
    for system in (Detector(), *few):
        assert measure.by(judge).measure(system, split, "test") == {}
    found = synthetic_images(Detector(others(split)), judge, split, "test")
    assert set(found) == set(measure.better)
