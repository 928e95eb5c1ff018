"""The instruments that measure realism, and, where real images are at hand, what they show."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrtut.data.decode import decode_image
from cxrtut.data.phantom import CLASSES, PRESETS, ChestPhantom
from cxrtut.data.sample import to_uint8
from cxrtut.data.store import ArrayStore
from cxrtut.experiments import realism

REAL = os.environ.get("CXRTUT_REAL_DATA")
needs_real_images = pytest.mark.skipif(not REAL, reason="CXRTUT_REAL_DATA is not set")


def test_rank_equalising_forgets_every_monotone_change_of_display():
    image = torch.rand(2, 1, 16, 16) * 2 - 1
    changed = torch.exp(2 * image) - 1
    equal = realism.rank_equalise(image)
    assert torch.equal(equal, realism.rank_equalise(changed))
    assert equal.amin() == -1 and equal.amax() == 1
    assert torch.equal(equal.flatten(1).argsort(1), image.flatten(1).argsort(1))


def test_white_noise_has_a_flat_spectrum_and_unrelated_images():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(64, 1, 256, 256, generator=generator) * 2 - 1
    found = realism.image_statistics(noise)
    assert abs(found["mean"] - 0.5) < 0.01
    assert abs(found["sd within an image"] - 12**-0.5) < 0.01
    assert abs(found["spectral slope 32-110"]) < 0.05
    assert abs(found["pairwise correlation"]) < 0.05


def test_a_copy_of_one_image_correlates_perfectly():
    image = (torch.rand(1, 1, 256, 256) * 2 - 1).expand(4, -1, -1, -1)
    assert realism.image_statistics(image)["pairwise correlation"] > 0.999


def test_training_on_phantoms_lowers_the_loss_and_fills_the_table(tmp_path):
    lines = []
    network = realism.train_on_phantoms(
        n=48, size=32, steps=200, batch_size=8, seed=0, preset=PRESETS["easy"], device="cpu",
        progress=lines.append,
    )  # fmt: skip
    assert lines[0].startswith("rendered 48 of 48") and "step 200 of 200" in lines[-1]
    assert float(lines[-1].split()[-1]) < 0.5  # chance, with 8 labels at prevalence ~.08: about .3
    sample = ChestPhantom(64, seed=5).sample(torch.arange(40))
    classes = (*CLASSES, "Hernia")
    labels = np.zeros((40, 9), np.uint8)
    labels[:, :8] = sample.label_vector.numpy()
    table_rows = [
        {"name": str(i), "patient": str(i), "split": "test", "view": "PA" if i % 2 else "AP"}
        for i in range(40)
    ]
    store = ArrayStore.from_arrays(
        to_uint8(sample.image).numpy(), labels, classes, table_rows=table_rows
    )
    table = realism.evaluate_on_real(network, store, size=32, device="cpu")
    assert [row["class"] for row in table] == list(CLASSES)
    for row in table:
        k = classes.index(row["class"])
        assert row["n all"] == labels[:, k].sum()
        assert np.isnan(row["auroc all"]) or 0 <= row["auroc all"] <= 1


@needs_real_images
def test_simulated_images_have_the_statistics_of_real_ones():
    """Figures of the specification: mean .515 against .533, sd within .219 against .227, slopes."""
    files = sorted((Path(REAL) / "nih_cxr" / "images").iterdir())[::12][:96]
    pixels = np.stack([decode_image(file) for file in files]).reshape(-1, 1, 256, 256)
    real = realism.image_statistics(torch.from_numpy(pixels).float() / 127.5 - 1)
    simulated = realism.phantom_statistics(64, size=256, seed=3)
    assert abs(real["mean"] - simulated["mean"]) < 0.05
    assert abs(real["sd within an image"] - simulated["sd within an image"]) < 0.03
    assert abs(real["sd of the image mean"] - simulated["sd of the image mean"]) < 0.03
    for slope in ("spectral slope 8-32", "spectral slope 32-110"):
        assert abs(real[slope] - simulated[slope]) < 0.35
    ratio = np.array(simulated["power"]) / np.array(real["power"])
    assert (ratio > 0.4).all() and (ratio < 1.7).all()
    assert simulated["pairwise correlation"] < real["pairwise correlation"] + 0.15


@needs_real_images
def test_simulated_boxes_have_the_sizes_and_places_of_the_nih_boxes():
    with (Path(REAL) / "nih_rsna_metadata" / "BBox_List_2017.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    phantom = ChestPhantom(128)
    for k, name in enumerate(CLASSES):
        nih = np.array(
            [
                [float(v) / 1024 for v in row[2:6]]
                for row in rows
                if row[1].replace("Infiltrate", "Infiltration") == name
            ]
        )
        labels = torch.zeros(48, len(CLASSES))
        labels[:, k] = 1
        sample = phantom.sample(torch.arange(48) + 100 * k, labels=labels)
        box = sample.boxes[sample.box_label == k].numpy() / 128
        width, height = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
        for ours, theirs in ((width, nih[:, 2]), (height, nih[:, 3])):
            ratio = np.median(ours) / np.median(theirs)
            assert 0.6 < ratio < 1.65, (
                f"{name}: median {np.median(ours):.2f}, NIH {np.median(theirs):.2f}"
            )
        centre = (box[:, :2] + box[:, 2:]) / 2
        centre_nih = nih[:, :2] + nih[:, 2:] / 2
        assert np.abs(centre.mean(0) - centre_nih.mean(0)).max() < 0.14, name
