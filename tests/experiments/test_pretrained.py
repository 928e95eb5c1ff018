"""Trained systems loaded from what `train` and `reproduce` wrote, asked and measured."""

from dataclasses import fields, replace
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import cxrtut
from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.sample import Prediction, to_uint8
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.engine.initial_weights import WeightsError
from cxrtut.experiments import pretrained
from cxrtut.experiments.comparison import How, reproduce, train
from cxrtut.experiments.pretrained import MEASURES, Pretrained
from cxrtut.experiments.registered import COMPARISONS
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.records.run_record import Weights
from cxrtut.records.weights import read_description

pytestmark = pytest.mark.filterwarnings("ignore:.* maps of P >= :UserWarning")  # so few images
SETTINGS = {
    "biomarker": (
        "size=32", "base=4", "depth=1", "critic_base=4", "classifier_width=4", "batch_size=8",
        "steps=2", "pretraining_steps=1", "warm_up_steps=1", "comparator_steps=2",
    ),
    "disease_masks": (
        "size=32", "grid_size=8", "classifier_width=4", "epochs=0.5", "alignment_epochs=0.5",
        "batch_size=16", "anchor_images=20",
    ),
    "pillet_gan": (
        "size=32", "base=4", "residual_blocks=1", "discriminator_base=4", "halvings=2",
        "batch_size=4", "steps=2", "critic_steps=2", "classifier_steps=2", "vagan_base=2",
        "vagan_long=1", "vagan_first=1",
    ),
    "pix2pix": (
        "size=32", "base=4", "halvings=4", "patch_halvings=1", "batch_size=4", "steps=2",
        "detector_steps=2", "detector_batch_size=4", "annotated=12", "healthy=8", "synthetic=6",
    ),
    "granet": (
        "size=32", "base=4", "residual_blocks=1", "batch_size=4", "features_width=4", "steps=1",
        "features_steps=1", "alignment_steps=1", "realistic_steps=1", "detector_steps=1",
    ),
}  # fmt: skip
HOW = {
    paper: How(settings=settings, source=Source(images=80), callbacks=None)
    for paper, settings in SETTINGS.items()
}
EVERY = [(paper, arm) for paper in SETTINGS for arm in COMPARISONS[paper].arms]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """paper -> its split, its systems in memory by arm, and the folder `reproduce` wrote."""
    found = {}
    for paper, how in HOW.items():
        comparison = COMPARISONS[paper]
        config = comparison.configuration(how.preset, how.settings)
        split, run = comparison.images(how.source, config, 0), Run()
        systems = {name: arm.train(config, split, run) for name, arm in comparison.arms.items()}
        folder = tmp_path_factory.mktemp(paper)
        record = reproduce(comparison, how, seeds=1, weights_folder=folder)
        found[paper] = split, systems, record, folder
    return found


def alike(one, other):
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if a is None or b is None:
            assert a is b, field.name
        elif isinstance(a, tuple):
            for found, known in zip(a, b, strict=True):
                alike(found, known)
        else:
            assert torch.equal(a, b), field.name


def test_every_registered_paper_is_tested_here():
    assert set(SETTINGS) == set(COMPARISONS)


@pytest.mark.parametrize(("paper", "arm"), EVERY)
def test_what_reproduce_wrote_predicts_as_the_system_in_memory(made, paper, arm):
    split, systems, record, folder = made[paper]
    found = cxrtut.load(folder / record.weights[arm].file)
    assert (found.paper, found.arm, found.size, found.channels) == (paper, arm, 32, 1)
    assert found.classes == systems[arm].classes
    assert set(found.networks) == set(systems[arm].networks)
    images = split.batch(split.test).image
    alike(found.system.predict(images), systems[arm].predict(images))


@pytest.mark.parametrize(("paper", "arm"), EVERY)
def test_what_train_wrote_predicts_as_the_system_in_memory(made, tmp_path, paper, arm):
    split, systems, _, _ = made[paper]
    train(COMPARISONS[paper], HOW[paper], arm=arm, seed=0, folder=tmp_path / "run")
    found = cxrtut.load(tmp_path / "run")
    assert (found.paper, found.arm) == (paper, arm)
    images = split.batch(split.test).image
    alike(found.system.predict(images), systems[arm].predict(images))


@pytest.fixture
def localiser(made):
    _, _, record, folder = made["biomarker"]
    return cxrtut.load(folder / record.weights["G-D-C"].file)


@pytest.fixture
def masked(made):
    _, _, record, folder = made["disease_masks"]
    return cxrtut.load(folder / record.weights["aligned + DM"].file)


@pytest.fixture(scope="module")
def film():
    return to_uint8(ChestPhantom(64).batch(torch.arange(3)).image)[1, 0].numpy()


def test_a_file_an_array_and_a_tensor_of_one_film_are_answered_alike(localiser, film, tmp_path):
    path = tmp_path / "film.png"
    cv2.imwrite(str(path), film)
    one = localiser.predict(path)
    assert one.heatmap.shape == one.image.shape == (1, 1, 64, 64) and one.scores is None
    as_float = torch.from_numpy(film).float() / 127.5 - 1
    for other in (str(path), film, torch.from_numpy(film), as_float, as_float.numpy()):
        found = localiser.predict(other)
        torch.testing.assert_close(found.heatmap, one.heatmap, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.image, one.image, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (50, 90), (131, 40), (20, 20)])
def test_a_film_of_any_size_is_answered_in_its_own_pixels(localiser, masked, film, shape):
    image = cv2.resize(film, shape[::-1])
    for system in (localiser, masked):
        found = system.predict(image)
        k = len(system.classes)
        assert found.heatmap.shape == (1, k, *shape) and (found.heatmap >= 0).all()
        (detections,) = found.boxes
        boxes = detections.boxes
        assert len(boxes) <= k and detections.labels.tolist() == sorted(
            set(detections.labels.tolist())
        )
        assert (boxes >= 0).all()
        assert (boxes[:, 2] <= shape[1]).all() and (boxes[:, 3] <= shape[0]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert localiser.predict(image).image.shape == (1, 1, *shape)
    scores = masked.predict(image).scores
    assert scores.shape == (1, 8) and ((scores >= 0) & (scores <= 1)).all()


def test_a_film_at_the_systems_size_is_what_the_system_sees(localiser, made):
    split = made["biomarker"][0]
    image = split.batch(split.test[:1]).image
    expected, found = localiser.system.predict(image), localiser.predict(image[0])
    torch.testing.assert_close(found.heatmap, expected.heatmap)
    torch.testing.assert_close(found.image, expected.image)


def test_measures_are_those_asked_for(localiser, made):
    split = made["biomarker"][0]
    numbers = cxrtut.evaluate(localiser, split, ["pixel_ap", "residual_ratio", "loc_acc@0.3"])
    assert {name.partition("/")[0] for name in numbers} == {
        "pixel_ap", "residual_ratio", "loc_acc@0.3"
    }  # fmt: skip
    record = made["biomarker"][2]
    assert numbers["residual_ratio"] == record.values("G-D-C", "test", "residual_ratio")[0]
    assert cxrtut.evaluate(localiser.system, split, ["pixel_ap"])["pixel_ap"] == numbers["pixel_ap"]


def test_measures_of_single_classes_come_with_them(masked, made):
    split, _, record, _ = made["disease_masks"]
    numbers = cxrtut.evaluate(masked, split, ["auroc"])
    assert set(numbers) == {"auroc", *(f"auroc/{name}" for name in split.classes)}
    assert numbers["auroc"] == record.values("aligned + DM", "test", "auroc")[0]


def test_a_store_is_measured_whole(localiser, made):
    split = made["biomarker"][0]
    numbers = cxrtut.evaluate(localiser, split.store.store, ["pixel_ap", "auroc_mean_heat"])
    assert all(0 <= value <= 1 for value in numbers.values()) and len(numbers) == 2


def test_measures_that_cannot_be_are_answered_with_those_that_can(localiser, made):
    split = made["biomarker"][0]
    with pytest.raises(ValueError, match=r"expected measures of accuracy, .*, got 'dice'"):
        cxrtut.evaluate(localiser, split, ["pixel_ap", "dice"])
    with pytest.raises(ValueError, match="auroc: cannot be measured here; the system answers for"):
        cxrtut.evaluate(localiser, split, ["pixel_ap", "auroc"])  # it has no scores
    grey = split.store.store
    colour = ArrayStore.from_arrays(
        images=np.repeat(grey.images, 3, axis=1), labels=grey.labels, classes=grey.classes
    )
    with pytest.raises(StoreError, match="expected images of 1 channels, got 3"):
        cxrtut.evaluate(localiser, colour, ["pixel_ap"])


def test_what_a_translation_changes_is_measured_of_any_system_that_gives_images(made, localiser):
    split, _, record, folder = made["pillet_gan"]
    asked = ["pixel_auroc", "auroc_max_heat", "pixel_change@0", "pixel_change_normal@4",
             "twin_error", "change_on_normal"]  # fmt: skip
    system = cxrtut.load(folder / record.weights["A * G'"].file)
    numbers = cxrtut.evaluate(system, split, asked)
    assert numbers == {name: record.values("A * G'", "test", name)[0] for name in asked}
    other = cxrtut.evaluate(localiser, made["biomarker"][0], asked)
    assert set(other) == set(asked) and all(value >= 0 for value in other.values())


def test_what_needs_no_judge_can_be_asked_for_and_what_needs_one_cannot(localiser, made):
    known = {name for measure in MEASURES for name in measure.better}
    ours = COMPARISONS["pillet_gan"]
    assert {name for measure in ours.measures for name in measure.better} <= known
    assert not {name for measure in ours.judged for name in measure.better} & known
    with pytest.raises(ValueError, match=r"expected measures of .*, got 'translated'"):
        cxrtut.evaluate(localiser, made["biomarker"][0], ["translated"])


def test_no_identifier_is_of_two_measures():
    names = [name for measure in MEASURES for name in measure.better]
    assert len(names) == len(set(names))


def test_a_published_system_is_loaded_by_its_name(made, monkeypatch):
    _, _, record, folder = made["biomarker"]
    known = {("biomarker", arm): weights for arm, weights in record.weights.items()}
    monkeypatch.setattr(pretrained, "published", lambda: known)
    monkeypatch.setattr(pretrained, "weights_file", lambda weights: folder / weights.file)
    found = cxrtut.load("biomarker/G-D")
    assert isinstance(found, Pretrained) and (found.paper, found.arm) == ("biomarker", "G-D")
    for name in ("biomarker", "biomarker/G-D-X", "masks/G-D", "nowhere"):
        with pytest.raises(FileNotFoundError, match="one of biomarker/G-D-C, biomarker/G-D, "):
            cxrtut.load(name)


@pytest.fixture
def offline(made, monkeypatch):
    """Two published systems of which the files of `missing` cannot be had."""
    _, _, record, folder = made["biomarker"]
    known = {("biomarker", arm): record.weights[arm] for arm in ("G-D-C", "G-D")}
    missing = set()

    def file(weights):
        if weights in missing:
            raise FileNotFoundError(f"{weights.file} is neither here nor online")
        return folder / weights.file

    monkeypatch.setattr(pretrained, "published", lambda: known)
    monkeypatch.setattr(pretrained, "weights_file", file)
    return lambda *arms: missing.update(known["biomarker", arm] for arm in arms)


def test_recorded_systems_are_the_published_ones(offline, made, capsys):
    split, systems = made["biomarker"][:2]
    found = pretrained.recorded_systems("biomarker", ["G-D-C", "G-D"], instead={})
    assert list(found) == ["G-D-C", "G-D"]
    images = split.batch(split.test).image
    alike(found["G-D"].predict(images), systems["G-D"].predict(images))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("missing", [("G-D",), ("G-D-C", "G-D")])
def test_where_they_cannot_be_had_a_page_says_so_and_goes_on(offline, made, capsys, missing):
    offline(*missing)
    mine = {"G-D-C": made["biomarker"][1]["G-D-C"]}
    found = pretrained.recorded_systems("biomarker", ["G-D-C", "G-D"], mine)
    assert found == mine and found is not mine
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and "networks of biomarker (G-D-C, G-D) are left out" in told
    assert told.endswith("goes on with what was trained here: G-D-C.\n")
    assert pretrained.recorded_systems("biomarker", ["G-D"], {}) == {}


def test_networks_that_stand_in_for_the_published_ones_come_to_the_cpu_as_those(
    offline, made, monkeypatch
):
    offline("G-D-C", "G-D")
    mine = made["biomarker"][1]["G-D-C"]
    moved = []
    monkeypatch.setattr(nn.Module, "to", lambda network, *to: moved.append((network, *to)))
    pretrained.recorded_systems("biomarker", ["G-D"], {"G-D-C": mine})
    assert moved == [(network, "cpu") for network in mine.networks.values()] != []


def test_a_recorded_system_that_never_was_is_an_error_also_without_a_network(offline):
    offline("G-D-C", "G-D")
    with pytest.raises(FileNotFoundError, match="biomarker/G-X: expected one of biomarker/G-D-C"):
        pretrained.recorded_systems("biomarker", ["G-D", "G-X"], {})


def test_loading_fetches_no_weights_that_it_would_put_others_in_the_place_of(made, monkeypatch):
    """A system of the paper's size began with ImageNet's; the file has what they have become."""
    _, _, record, folder = made["disease_masks"]
    file = folder / record.weights["plain"].file
    about, asked = read_description(file), []
    begun = replace(about, configuration={**about.configuration, "imagenet": True})
    ours = COMPARISONS["disease_masks"]

    def build(config, classes, seed):
        asked.append(config.imagenet)
        return ours.arm("plain").build(config, classes, seed)

    watched = replace(ours, arms={"plain": replace(ours.arm("plain"), build=build)})
    monkeypatch.setattr(pretrained, "read_description", lambda path: begun)
    monkeypatch.setattr(pretrained, "comparison", lambda paper: watched)
    assert cxrtut.load(file).arm == "plain" and asked == [False]


def test_what_is_published_is_what_the_records_name():
    known = pretrained.published()
    assert all(isinstance(weights, Weights) for weights in known.values())
    records = {name: pretrained.read_record(name) for name, _ in known}
    assert set(COMPARISONS) & set(records) == {"biomarker", "disease_masks", "pillet_gan"}
    assert all(records[name].weights[arm] == weights for (name, arm), weights in known.items())
    assert all(name.startswith(record.paper) for name, record in records.items())


def test_a_second_record_of_a_paper_does_not_hide_the_first(made, monkeypatch, tmp_path):
    """Both have networks of the same arm; each is found under its own name."""
    _, _, record, _ = made["disease_masks"]
    other = replace(record.weights["plain"], file="other.safetensors")
    records = {
        "disease_masks": record, "disease_masks_nih": replace(record, weights={"plain": other})
    }  # fmt: skip
    for name in records:
        (tmp_path / f"{name}.json").touch()
    monkeypatch.setattr(pretrained, "RUNS", tmp_path)
    monkeypatch.setattr(pretrained, "read_record", records.__getitem__)
    known = pretrained.published()
    assert known["disease_masks", "plain"] == record.weights["plain"]
    assert known["disease_masks_nih", "plain"] == other


def test_what_is_no_system_is_refused(made, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"system.safetensors: expected the folder of a"):
        cxrtut.load(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"x.safetensors: expected a file of weights"):
        cxrtut.load(tmp_path / "x.safetensors")


class Named:
    """Scores A by how bright an image is, B by how dark, and C always alike."""

    size, channels = 8, 1
    networks: ClassVar[dict[str, nn.Module]] = {}

    def __init__(self, *classes):
        self.classes = classes
        self.seen = []

    def predict(self, images):
        self.seen.append(images.shape)
        level = (images.mean((1, 2, 3)) + 1) / 2
        by_name = {"A": level, "B": 1 - level, "C": 0.5 + 0 * level}
        return Prediction(scores=torch.stack([by_name[name] for name in self.classes], 1))


def labelled(*classes, size=8):
    """Bright images have A, dark ones B, none has C; `classes` in their order."""
    level = np.repeat(np.array([50, 200], np.uint8), 6)
    images = np.broadcast_to(level[:, None, None, None], (12, 1, size, size)).copy()
    truth = {"A": level > 100, "B": level < 100, "C": level < 0, "D": np.arange(12) < 3}
    labels = np.stack([truth[name] for name in classes], 1).astype(np.uint8)
    return ArrayStore.from_arrays(images, labels, classes)


@pytest.mark.parametrize("classes", [("A", "B"), ("B", "A"), ("C", "A", "B"), ("A",)])
@pytest.mark.parametrize("data", [("A", "B"), ("B", "A"), ("D", "B", "A")])
def test_classes_of_a_system_and_of_images_go_together_by_name(classes, data):
    numbers = cxrtut.evaluate(Named(*classes), labelled(*data), ["auroc"])
    assert numbers["auroc"] == 1.0
    assert set(numbers) == {"auroc", *(f"auroc/{name}" for name in data if name in classes)}


def test_images_without_any_class_of_the_system_are_refused():
    with pytest.raises(ValueError, match="labelled with some of A, B, got D"):
        cxrtut.evaluate(Named("A", "B"), labelled("D"), ["auroc"])


def test_images_are_shown_at_the_systems_size_and_smaller_ones_refused():
    system = Named("A", "B")
    cxrtut.evaluate(system, labelled("A", "B", size=32), ["auroc"])
    assert {tuple(shape[1:]) for shape in system.seen} == {(1, 8, 8)}
    with pytest.raises(StoreError, match="expected images of 8 px or more, got 4 px"):
        cxrtut.evaluate(system, labelled("A", "B", size=4), ["auroc"])
