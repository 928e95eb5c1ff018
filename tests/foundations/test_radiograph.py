"""The instruments that measure realism, and, where real images are at hand, what they show."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrtut.data.decode import decode_image
from cxrtut.data.phantom import CLASSES, PRESETS, ChestPhantom
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.engine.task import Report
from cxrtut.foundations import radiograph

REAL = os.environ.get("CXRTUT_REAL_DATA")
needs_real_images = pytest.mark.skipif(not REAL, reason="CXRTUT_REAL_DATA is not set")


def test_rank_equalising_forgets_every_monotone_change_of_display():
    image = torch.rand(2, 1, 16, 16) * 2 - 1
    changed = torch.exp(2 * image) - 1
    equal = radiograph.rank_equalise(image)
    assert torch.equal(equal, radiograph.rank_equalise(changed))
    assert equal.amin() == -1 and equal.amax() == 1
    assert torch.equal(equal.flatten(1).argsort(1), image.flatten(1).argsort(1))


def test_white_noise_has_a_flat_spectrum_and_unrelated_images():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(64, 1, 256, 256, generator=generator) * 2 - 1
    found = radiograph.image_statistics(noise)
    assert abs(found["mean"] - 0.5) < 0.01
    assert abs(found["sd_within"] - 12**-0.5) < 0.01
    assert abs(found["slope_32_110"]) < 0.05
    assert abs(found["pairwise_correlation"]) < 0.05


def test_a_copy_of_one_image_correlates_perfectly():
    image = (torch.rand(1, 1, 256, 256) * 2 - 1).expand(4, -1, -1, -1)
    assert radiograph.image_statistics(image)["pairwise_correlation"] > 0.999


class Knows(torch.nn.Module):
    """A network that reads the labels from the image's first pixels; its logits are never wrong."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image[:, 0, 0, : len(CLASSES)]


def coded_store(n: int, size: int = 256) -> tuple[ArrayStore, np.ndarray]:
    """Images whose first row of blocks codes the labels, and labels in another class order."""
    rng = np.random.default_rng(0)
    labels = (rng.random((n, len(CLASSES))) < 0.25).astype(np.uint8)
    images = rng.integers(100, 140, (n, 1, size, size), dtype=np.uint8)
    block = size // 32
    for k in range(len(CLASSES)):
        part = images[:, 0, :block, k * block : (k + 1) * block]
        part[:] = np.where(labels[:, k], 255, 0)[:, None, None]
    table = [
        {"name": str(i), "patient": str(i), "split": "test", "view": "PA" if i % 3 else "AP"}
        for i in range(n)
    ]
    order = [*range(len(CLASSES))][::-1]
    names = [CLASSES[k] for k in order]
    return ArrayStore.from_arrays(images, labels[:, order], names, table_rows=table), labels


def test_a_network_that_knows_the_labels_scores_one_in_every_class():
    store, labels = coded_store(60)
    numbers = radiograph.evaluate_on_real(Knows(), store, size=32, device="cpu")
    healthy = ~labels.any(1)
    pa = np.arange(60) % 3 > 0
    for k, name in enumerate(CLASSES):
        assert numbers[f"auroc/{name}"] == 1.0 and numbers[f"auroc_pa/{name}"] == 1.0
        assert numbers[f"n/{name}"] == labels[:, k].sum()
        assert numbers[f"n_normal/{name}"] == healthy.sum()
        assert numbers[f"n_pa/{name}"] == labels[pa, k].sum()
        assert numbers[f"n_normal_pa/{name}"] == healthy[pa].sum()


def test_training_on_phantoms_beats_the_best_constant_answer():
    reports: list[Report] = []
    network = radiograph.train_on_phantoms(
        n=96, size=32, steps=200, batch_size=16, seed=0, preset=PRESETS["easy"], device="cpu",
        callbacks=[reports.append],
    )  # fmt: skip
    assert (reports[-1].step, reports[-1].steps) == (200, 200)
    label = ChestPhantom(64, "easy").labels(torch.arange(96))
    rate = label.mean(0).clamp(1e-6, 1 - 1e-6)
    constant = -(rate * rate.log() + (1 - rate) * (1 - rate).log()).mean()
    assert reports[-1].terms["C/loss"] < 0.8 * float(constant)
    known = radiograph.evaluate_on_phantoms(
        network, size=32, n=200, seed=0, preset=PRESETS["easy"], device="cpu"
    )
    assert known["auroc_simulated/Cardiomegaly"] > 0.8, (
        "the easiest finding, on patients it has not seen"
    )


def test_a_record_holds_every_seed_and_becomes_the_tables_of_the_page(monkeypatch):
    store, _ = coded_store(40)
    monkeypatch.setattr(ArrayStore, "open", lambda path: store)
    record = radiograph.measure_realism("anywhere", size=32, n=16, steps=2, batch_size=4, seeds=2)
    name = CLASSES[1]
    areas = record.values(radiograph.SIM_TO_REAL, "test", f"auroc/{name}")
    assert len(areas) == 2 and record.seeds == (0, 1)
    assert record.data[0]["fingerprint"] == store.fingerprint and not record.is_stale
    assert "foundations/radiograph.py" in record.code
    table = radiograph.transfer_table(record)
    assert [line["disease"] for line in table] == list(CLASSES)
    assert table[1]["AUROC"] == pytest.approx(np.mean(areas))
    low, high = (float(v) for v in table[1]["range over seeds"].split("–"))
    assert low <= table[1]["AUROC"] + 0.005 and table[1]["AUROC"] - 0.005 <= high
    statistics = radiograph.statistics_table(record)
    assert {"mean", "correlation of two images"} <= {line["of the images"] for line in statistics}
    assert radiograph.STATISTICS.keys() == radiograph.EXPLAINED.keys()
    assert statistics[0]["real"] == record.results[radiograph.REAL][0].test["mean"]


def test_jittered_batches_are_a_pure_function_of_seed_and_step():
    images = radiograph.JitteredImages(torch.rand(10, 1, 8, 8).half(), torch.eye(10)[:, :2])
    assert images.steps_per_epoch(4) == 2
    whole = images.batches(batch_size=4, seed=1)
    batches = [next(whole) for _ in range(4)]
    later = next(images.batches(batch_size=4, seed=1, start=3))
    assert torch.equal(later.image, batches[3].image)
    assert torch.equal(later.index, batches[3].index)
    shares = [next(images.batches(batch_size=4, seed=1, rank=r, ranks=2)) for r in (0, 1)]
    assert torch.equal(torch.cat([share.image for share in shares]), batches[0].image)
    assert not torch.equal(next(images.batches(batch_size=4, seed=2)).image, batches[0].image)


def test_a_store_that_cannot_be_used_is_refused_before_any_training(monkeypatch):
    for store, message in (
        (coded_store(8, size=64)[0], "220 px or more"),
        (
            ArrayStore.from_arrays(
                np.zeros((3, 1, 256, 256), np.uint8), np.zeros((3, 1), np.uint8), ["Mass"]
            ),
            "column `view`",
        ),
    ):
        monkeypatch.setattr(ArrayStore, "open", lambda path, store=store: store)
        with pytest.raises(StoreError, match=message):
            radiograph.measure_realism("anywhere", watch=lambda name: pytest.fail(name))


def test_equal_grey_levels_share_a_rank():
    image = torch.rand(1, 1, 8, 8)
    image[..., :3] = -1.0
    equal = radiograph.rank_equalise(image)
    assert len(equal[..., :3].unique()) == 1
    assert abs(float(equal.mean())) < 1e-6


@needs_real_images
def test_simulated_images_have_the_statistics_of_real_ones():
    """Figures of the specification: mean .515 against .533, sd within .219 against .227, slopes."""
    files = sorted((Path(REAL) / "nih_cxr" / "images").iterdir())[::12][:96]
    pixels = np.stack([decode_image(file) for file in files]).reshape(-1, 1, 256, 256)
    real = radiograph.image_statistics(torch.from_numpy(pixels).float() / 127.5 - 1)
    simulated = radiograph.phantom_statistics(64, size=256, seed=3)
    assert abs(real["mean"] - simulated["mean"]) < 0.05
    assert abs(real["sd_within"] - simulated["sd_within"]) < 0.03
    assert abs(real["sd_of_mean"] - simulated["sd_of_mean"]) < 0.03
    for slope in ("slope_8_32", "slope_32_110"):
        assert abs(real[slope] - simulated[slope]) < 0.35
    for frequency in radiograph.SPECTRUM_FREQUENCIES:
        ratio = simulated[f"power@{frequency}"] / real[f"power@{frequency}"]
        assert 0.4 < ratio < 1.7, frequency
    assert simulated["pairwise_correlation"] < real["pairwise_correlation"] + 0.15


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
        labels = torch.zeros(120, len(CLASSES))
        labels[:, k] = 1
        sample = phantom.sample(torch.arange(120) + 200 * k, labels=labels)
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


def test_what_is_clearly_above_chance_is_named():
    rows = [
        {
            "disease": "A",
            "AUROC": 0.61,
            "standard error": 0.05,
            "AUROC, PA": 0.5,
            "standard error, PA": 0.1,
        },
        {
            "disease": "B",
            "AUROC": 0.60,
            "standard error": 0.05,
            "AUROC, PA": 0.4,
            "standard error, PA": 0.01,
        },
        {
            "disease": "C",
            "AUROC": 0.90,
            "standard error": 0.05,
            "AUROC, PA": 0.8,
            "standard error, PA": 0.1,
        },
    ]
    said = "More than two standard errors above .5: "
    assert radiograph.above_chance(rows) == f"{said}A, C."
    assert radiograph.above_chance(rows, ", PA") == f"{said}C."
    assert radiograph.above_chance(rows[:0]) == f"{said}none."
