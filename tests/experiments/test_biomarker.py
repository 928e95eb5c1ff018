"""The comparison of the Biomarker paper, in small."""

from dataclasses import replace
from itertools import islice
from types import MappingProxyType

import pytest
import torch

from cxrtut.baselines.difference_classifier import DifferenceClassifier
from cxrtut.data.sample import Prediction, System
from cxrtut.data.store import StoreError
from cxrtut.evaluation.classification import normal_or_not
from cxrtut.experiments import biomarker as experiment
from cxrtut.experiments.biomarker import (
    COMPARISON,
    check,
    make_classifiers,
    train_localiser,
    train_maps,
)
from cxrtut.experiments.comparison import How, reproduce
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.nn.backbones import VGG19, ResNet10, ResNet18
from cxrtut.nn.small_vgg import SmallVGG
from cxrtut.papers.biomarker import (
    PAPER,
    Biomarker,
    BiomarkerLocaliser,
    Generator,
    Pretraining,
    ResidualGenerator,
    WithoutClassifier,
    WithoutCritic,
)

SETTINGS = (
    "size=32", "base=4", "depth=1", "critic_base=4", "classifier_width=4", "batch_size=8",
    "steps=3", "pretraining_steps=2", "warm_up_steps=1", "comparator_steps=3",
)  # fmt: skip
TINY = COMPARISON.configuration("smoke", SETTINGS)
SOURCE = Source(images=60)


@pytest.fixture(scope="module")
def split():
    return COMPARISON.images(SOURCE, TINY, 0)


def flat(network):
    return torch.cat([w.detach().flatten() for w in network.parameters()])


def test_stages_before_the_main_training_move_what_they_should(split):
    def begins_with(kind, warm_up=True, **change):
        seen = {}

        def trainer(task, loader, **how):
            from cxrtut.engine.loop import train

            if how["configuration"]["stage"] != "main":
                return train(task, loader, **how)
            seen.update({name: flat(network) for name, network in task.networks.items()})
            return []

        run = Run(trainer=trainer)
        train_localiser(kind, replace(TINY, **change), split, run, warm_up=warm_up)
        return seen["generator"], seen["classifier"]

    g, c = begins_with(WithoutCritic, pretraining_steps=0, warm_up_steps=0)
    begun, same_c = begins_with(WithoutCritic, pretraining_steps=2, warm_up_steps=0)
    assert torch.equal(g, begun) and torch.equal(c, same_c)  # the residual one is a copy already
    g, c = begins_with(WithoutCritic, residual=False, pretraining_steps=0, warm_up_steps=0)
    pretrained, same_c = begins_with(
        WithoutCritic, residual=False, pretraining_steps=2, warm_up_steps=0
    )
    assert not torch.equal(g, pretrained) and torch.equal(c, same_c)
    g, c = begins_with(WithoutCritic, pretraining_steps=0, warm_up_steps=0)
    same_g, warm = begins_with(WithoutCritic, pretraining_steps=0, warm_up_steps=2)
    assert not torch.equal(c, warm) and torch.equal(g, same_g)
    _, cold = begins_with(WithoutClassifier, False, pretraining_steps=0, warm_up_steps=2)
    assert torch.equal(c, cold)


@pytest.mark.parametrize(
    ("arm", "stages"),
    [
        ("G-D-C", ["warm-up", "main"]),
        ("G-D-C, direct", ["pre-training", "warm-up", "main"]),
        ("G-D", ["main"]),
        ("G-C", ["warm-up", "main"]),
        ("ED", ["main"]),
        ("CAM", ["classifier ResNet10"]),
        ("Grad-CAM-1", ["classifier SmallVGG"]),
    ],
)
def test_an_arm_has_its_stages(split, arm, stages):
    told = []
    run = Run(callbacks=lambda stage: told.append(stage) or ())
    system = COMPARISON.arms[arm].train(TINY, split, run)
    assert told == stages and isinstance(system, System)


def test_an_arm_resumes_where_it_was(split, tmp_path):
    def trained(steps, **how):
        config = replace(TINY, steps=steps, residual=False)
        return train_localiser(Biomarker, config, split, Run(**how), warm_up=True)

    whole = trained(3)
    trained(2, folder=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "pre-training.jsonl", "warm-up.jsonl", "main.jsonl", "checkpoints", "samples"
    }  # fmt: skip
    resumed = trained(3, folder=tmp_path, resume=True)
    assert torch.equal(flat(whole.networks["generator"]), flat(resumed.networks["generator"]))


def test_the_classifiers_are_those_of_the_paper_or_small_ones():
    for_cam, for_grad_cam = make_classifiers(TINY, 0)
    assert isinstance(for_cam, ResNet10) and isinstance(for_grad_cam, SmallVGG)
    with torch.device("meta"):
        for_cam, for_grad_cam = make_classifiers(PAPER, 0)
    assert isinstance(for_cam, ResNet18) and isinstance(for_grad_cam, VGG19)


def test_activation_maps_look_where_their_arm_says():
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    found = {
        arm: COMPARISON.arms[arm].build(TINY, ("Pneumonia",), 0)
        for arm in ("CAM", *experiment.LAYERS)
    }
    assert [system.layer for system in found.values()] == [None, "norm2_2", "norm4_2"]
    assert all(s.predict(images).heatmap.shape == (2, 1, 32, 32) for s in found.values())
    with torch.device("meta"):
        large = [experiment.build_maps(arm, PAPER, ("x",), 0).layer for arm in experiment.LAYERS]
    assert large == ["conv3_4", "conv5_4"]


def test_arms_that_share_a_classifier_train_it_once(split):
    told = []
    run = Run(callbacks=lambda stage: told.append(stage) or ())
    systems = [train_maps(arm, TINY, split, run) for arm in ("CAM", *experiment.LAYERS)]
    assert told == ["classifier ResNet10", "classifier SmallVGG"]
    cam, first, second = (system.networks["classifier"] for system in systems)
    assert first is second is not cam


def test_a_comparison_has_every_method_and_every_seed():
    how = How(settings=SETTINGS, source=SOURCE, command="here", callbacks=None)
    record = reproduce(COMPARISON, how, seeds=2)
    assert list(record.results) == list(COMPARISON.arms)
    assert all(len(runs) == 2 for runs in record.results.values())
    assert record.seeds == (0, 1) and record.command == "here"
    assert "randomised_likeness" in record.results["G-D-C"][0].test
    assert [about["seed"] for about in record.data] == [0, 1]
    maps = ("CAM", *experiment.LAYERS)
    for arm, runs in record.results.items():
        for run in runs:
            for side in (run.train, run.test):
                assert 0 <= side["pixel_ap"] <= 1 and side["chance"] > 0
                assert ("residual_ratio" in side) == (arm not in maps)
                assert ("accuracy" in side) == (arm not in ("G-D", "ED"))
                assert 0 < side["pixel_ap_twin"] < 1 and 0 <= side["pixel_ap_others"] <= 1
            assert 0 <= run.test["auroc_mean_heat"] <= 1
            assert -1 <= run.test.get("randomised_likeness", 0) <= 1
            assert ("change_on_normal" in run.test) == (arm not in maps)
            assert [point.step for point in run.curve] == ([] if arm in maps else [1, 2, 3])


def test_the_direct_arm_has_the_generator_of_the_paper():
    for arm, kind in (("G-D-C", ResidualGenerator), ("G-D-C, direct", Generator)):
        built = COMPARISON.arms[arm].build(TINY, ("Pneumonia",), 0)
        assert isinstance(built.networks["generator"], kind)
    assert all(preset.pretraining_steps for preset in COMPARISON.presets.values())


def test_the_classifier_of_an_arm_can_be_asked_after_its_training(split):
    train = COMPARISON.arms["G-C"].train
    system = train(replace(TINY, steps=1), split, Run())
    images = split.batch(split.test).image
    scores = system.reader.predict(images).scores
    assert scores.shape == (len(images), 1) and scores.std() > 0
    assert system.reader.networks["generator"] is system.networks["generator"]
    classifier = system.reader.networks["classifier"]
    norms = [m for m in classifier.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(0 < int(m.num_batches_tracked) <= experiment.MEASURED for m in norms)
    known = normal_or_not(system.reader, split, "test")["accuracy"]
    assert experiment.read_from_differences(system, split, "test") == {"accuracy": known}
    assert system.predict(images).scores is None  # as one from a file of weights
    assert COMPARISON.arms["G-D"].train(TINY, split, Run()).reader is None


def test_a_split_without_ground_truth_is_refused_before_anything_is_trained(split, monkeypatch):
    monkeypatch.setattr(experiment, "train_localiser", None)  # would fail, were it called
    store = split.store.store
    none = {k: getattr(store.boxes, k)[:0] for k in ("row", "label", "xyxy", "origin")}
    bare = replace(store, masks=None, boxes=replace(store.boxes, **none))
    blind = replace(split, store=replace(split.store, store=bare))
    with pytest.raises(StoreError, match="expected masks or boxes to score against, got none"):
        check(blind)
    check(split)
    comparison = replace(COMPARISON, split=lambda *of: blind)
    with pytest.raises(StoreError, match="expected masks or boxes"):
        reproduce(comparison, How(settings=SETTINGS, source=SOURCE, callbacks=None), seeds=1)


def test_the_presets_are_those_of_the_paper_file():
    assert list(COMPARISON.presets) == ["paper", "colab", "cpu", "smoke"]
    assert COMPARISON.presets["paper"] == PAPER and COMPARISON.own == "G-D-C"


def recorded(seen):
    """A trainer that trains nothing and keeps what it was asked for, by stage."""

    def trainer(task, loader, **how):
        seen[how["configuration"]["stage"]] = (task, loader, how)
        return []

    return trainer


def test_each_stage_is_as_long_as_the_configuration_says(split):
    seen = {}
    config = replace(
        TINY, residual=False, pretraining_steps=5, warm_up_steps=7, steps=11, comparator_steps=13
    )
    run = Run(trainer=recorded(seen))
    train_localiser(Biomarker, config, split, run, warm_up=True)
    for arm in ("CAM", "Grad-CAM-1"):
        train_maps(arm, config, split, run)
    assert {stage: how["steps"] for stage, (_, _, how) in seen.items()} == {
        "pre-training": 5, "warm-up": 7, "main": 11,
        "classifier ResNet10": 13, "classifier SmallVGG": 13,
    }  # fmt: skip


def test_each_stage_sees_normal_and_abnormal_training_images_in_turn(split):
    seen = {}
    run = Run(trainer=recorded(seen))
    train_localiser(Biomarker, replace(TINY, residual=False), split, run, warm_up=True)
    train_maps("CAM", TINY, split, run)
    assert len(seen) == 4
    for _, loader, _ in seen.values():
        batch = next(loader.batches(batch_size=8, seed=0))
        assert batch.label_vector.amax(1).tolist() == [0, 1] * 4
        assert set(batch.index.tolist()) <= set(split.train.tolist())


@pytest.mark.parametrize(
    ("arm", "kind"),
    [
        ("G-D-C", Biomarker),
        ("G-D", WithoutClassifier),
        ("G-C", WithoutCritic),
        ("ED", Pretraining),
        ("G-D-C, direct", Biomarker),
    ],
)
def test_an_arm_is_trained_on_the_equations_of_its_name(split, arm, kind):
    seen = {}
    COMPARISON.arms[arm].train(TINY, split, Run(trainer=recorded(seen)))
    assert type(seen["main"][0]) is kind


@pytest.mark.parametrize("arm", ["G-D-C", "G-D", "G-D-C, direct", "CAM", "Grad-CAM-2"])
def test_training_begins_with_what_is_built_for_its_seed(split, arm, monkeypatch):
    monkeypatch.setattr(experiment, "MEASURED", 1)  # soon done

    def begun(seed):
        system = COMPARISON.arms[arm].train(TINY, split, Run(seed=seed, trainer=recorded({})))
        return [flat(network) for network in system.networks.values()]

    def built(seed):
        system = COMPARISON.arms[arm].build(TINY, split.classes, seed)
        return [flat(network) for network in system.networks.values()]

    first, second = begun(1), begun(2)
    assert all(map(torch.equal, first, built(1))) and all(map(torch.equal, second, built(2)))
    assert not any(map(torch.equal, first, second))


@pytest.mark.parametrize(
    ("arm", "layers", "rate"),
    [("CAM", 10, 1e-3), ("Grad-CAM-1", 10, 1e-3), ("CAM", 18, 3e-4), ("Grad-CAM-1", 18, 2e-5)],
)
def test_the_classifiers_learn_at_rates_of_their_own(split, arm, layers, rate):
    seen = {}
    config = replace(TINY, classifier_layers=layers, learning_rate=3e-4)
    with torch.device("meta"):
        run = Run(trainer=recorded(seen), device=torch.device("meta"))
        train_maps(arm, config, split, run)
    ((task, _, _),) = seen.values()
    (group,) = task.optimizers["classifier"].param_groups
    assert group["lr"] == rate


def test_the_statistics_of_c_are_measured_on_as_many_normal_as_abnormal_images(split, monkeypatch):
    measured = []
    monkeypatch.setattr(
        DifferenceClassifier, "measure_differences", lambda self, batches: measured.extend(batches)
    )
    run = Run(seed=3, trainer=recorded({}))
    train_localiser(Biomarker, TINY, split, run, warm_up=True)
    batches = split.loader("balanced").batches(batch_size=TINY.batch_size, seed=3)
    expected = [batch.image for batch in islice(batches, experiment.MEASURED)]
    assert all(map(torch.equal, measured, expected)) and len(measured) == len(expected)


class EverythingIsIll:
    """A reader that calls every image abnormal: its accuracy is the share of abnormal ones."""

    size, channels, networks, classes = 32, 1, MappingProxyType({}), ("Pneumonia",)

    def predict(self, images):
        return Prediction(scores=torch.ones(len(images), 1))


def test_c_is_asked_about_the_images_of_the_side_that_is_measured(split):
    system = BiomarkerLocaliser(TINY, split.classes, torch.nn.Identity())
    system.reader = EverythingIsIll()
    shares = {}
    for side in ("train", "test"):
        ill, well = len(split.with_truth(side)), len(split.normal(side))
        shares[side] = ill / (ill + well)
        found = experiment.read_from_differences(system, split, side)
        assert found == {"accuracy": pytest.approx(shares[side])}
    assert shares["train"] != pytest.approx(shares["test"])


def test_nobody_looks_at_test_images_while_an_arm_is_trained():
    assert COMPARISON.learning_curve.side == "train"
