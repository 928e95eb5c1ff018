"""The comparison of the disease-masks paper, in small."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from cxrtut.data.boxes import mask_to_box
from cxrtut.data.sample import Prediction, System
from cxrtut.data.store import StoreError
from cxrtut.engine.checkpoint import CheckpointError
from cxrtut.evaluation.localisation import localisation_accuracy
from cxrtut.experiments import disease_masks as experiment
from cxrtut.experiments.comparison import How, reproduce, train
from cxrtut.experiments.disease_masks import ARMS, COMPARISON, IMAGES, check, split_of
from cxrtut.experiments.mask_stages import Stages
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.metrics.classification import auroc
from cxrtut.nn.spatial_transformer import align
from cxrtut.papers.disease_masks import SMOKE, smooth

pytestmark = pytest.mark.filterwarnings("ignore:.* maps of P >= :UserWarning")  # so few images
SETTINGS = (
    "size=32", "grid_size=8", "classifier_width=4", "epochs=1.0", "alignment_epochs=1.0",
    "batch_size=16", "anchor_images=20",
)  # fmt: skip
TINY = COMPARISON.configuration("smoke", SETTINGS)
MEASURES = [f"loc_acc{which}@{t}" for t in (0.3, 0.5, 0.7) for which in ("", "_any", "_oracle")]
COMPARATORS = (
    "Wang", "Cai", "Liu", "Liu, noisy-or", "Liu, softmax", "Li (boxes)", "average box (boxes)",
)  # fmt: skip
WITH_BOXES = ("Li (boxes)", "average box (boxes)")
SOURCE = Source(images=120)
HOW = How(settings=SETTINGS, source=SOURCE, callbacks=None)


@pytest.fixture(scope="module")
def split():
    return split_of(SOURCE, TINY, 0)


@pytest.fixture(scope="module")
def run():
    """Its stages are shared by the arms."""
    return Run()


@pytest.fixture(scope="module")
def stages(run, split):
    return experiment.stages_of(TINY, split, run)


def scores_of(system, split):
    found = {}
    for measure in COMPARISON.measures:
        found |= measure.measure(system, split, measure.side)
    return found


def held_out(split):
    return np.sort(np.concatenate([split.validation, split.test]))


def with_boxes_of(split, rows):
    """The split with the boxes of some rows alone."""
    store = split.store.store
    kept = np.isin(store.boxes.row, rows)
    assert kept.any()
    boxes = replace(
        store.boxes,
        **{k: getattr(store.boxes, k)[kept] for k in ("row", "label", "xyxy", "origin")},
    )
    return replace(split, store=replace(split.store, store=replace(store, boxes=boxes)))


def same_weights(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name].state_dict()[key])
        for name in one
        for key, value in one[name].state_dict().items()
    )


def test_the_papers_own_arm_is_one_of_the_arms():
    assert COMPARISON.own == "aligned + DM" and COMPARISON.own in ARMS
    assert list(COMPARISON.presets) == ["paper", "colab", "smoke"]
    assert COMPARISON.faithful == {"paper"} and COMPARISON.arms is ARMS
    assert [name for name, arm in ARMS.items() if arm.needs_boxes] == list(WITH_BOXES)


@pytest.mark.parametrize("arm", COMPARATORS)
def test_comparators_run_and_are_scored(run, split, arm):
    system = ARMS[arm].train(TINY, split, run)
    assert isinstance(system, System) and system.classes == split.classes
    found = system.predict(split.batch(split.test).image)
    assert found.heatmap.shape == (len(split.test), 8, 32, 32) and found.heatmap.isfinite().all()
    scores = scores_of(system, split)
    assert all(0 <= scores[name] <= 1 for name in MEASURES)
    if found.scores is not None:
        assert 0 <= scores["auroc"] <= 1 and scores["false_positives"] >= 0


def test_contrast_attention_compares_with_aligned_normal_images_from_the_beginning(
    run, stages, split, monkeypatch
):
    assert stages.aligner is not None  # trained before nothing is any more
    seen = []
    monkeypatch.setattr(
        Stages, "fit", lambda self, stage, task, *rest: seen.append(task.networks["normal"])
    )
    ARMS["Liu"].train(TINY, split, run)
    rows = split.some_normal(TINY.anchor_images, 0)
    expected, _ = align(stages.aligner, split.batch(rows).image)
    (given,) = seen
    assert torch.equal(given.image, expected) and given.row.tolist() == rows.tolist()


def test_the_arms_of_contrast_attention_differ_in_pooling_and_temperature(
    run, stages, split, monkeypatch
):
    assert stages.aligner is not None  # trained before nothing is any more
    seen = {}
    monkeypatch.setattr(
        Stages,
        "fit",
        lambda self, stage, task, *rest: seen.update({stage: (task.pooling, task.temperature)}),
    )
    for arm in ("Liu", "Liu, noisy-or", "Liu, softmax"):
        ARMS[arm].train(TINY, split, run)
    assert seen == {
        "Liu": ("mean", None), "Liu, noisy-or": ("noisy-or", None), "Liu, softmax": ("mean", 1.5),
    }  # fmt: skip


def test_the_average_box_is_that_of_the_training_images_in_every_image(run, split):
    system = ARMS["average box (boxes)"].train(TINY, split, run)
    found = system.predict(split.batch(split.test).image)
    assert torch.equal(found.heatmap[0], found.heatmap[-1]) and found.scores is None
    boxes = mask_to_box(found.heatmap[0] > 0)
    expected = split.average_boxes()
    assert (expected[:, 2:] > expected[:, :2]).all()
    assert (boxes - expected).abs().max() <= 0.5
    scores = scores_of(system, split)
    assert scores["loc_acc@0.3"] > 0
    assert "false_positives" not in scores and "auroc" not in scores  # it says nothing of both


def test_the_prior_for_the_centre_is_for_the_classes_that_have_masks(split, monkeypatch):
    names = tuple("Hernia" if name == "Mass" else name for name in split.classes)
    store = replace(split.store, store=replace(split.store.store, classes=names), classes=names)
    seen = []
    monkeypatch.setattr(Stages, "retrained", lambda self, stage, masks: seen.append(masks))
    monkeypatch.setattr(experiment, "stages_of", Stages)
    with pytest.raises(TypeCheckError):  # nothing was trained, so no system is given back
        ARMS["centre prior"].train(TINY, replace(split, store=store), Run())
    (masks,) = seen
    assert masks.flatten(1).any(1).tolist() == [name != "Hernia" for name in names]


def test_only_limited_supervision_is_given_boxes(split, monkeypatch):
    fed = {}
    monkeypatch.setattr(
        Stages, "fit", lambda self, stage, task, loader, *rest: fed.setdefault(stage, loader)
    )
    ARMS["Li (boxes)"].train(TINY, split, Run())
    batch = next(fed["Li"].batches(batch_size=len(split.train), seed=0))
    whole = split.store.batch(batch.index.numpy())
    known, all_known = ((b.box_label >= 0).any(1).sum().item() for b in (batch, whole))
    assert 0 < known < 0.5 * all_known


def test_scores_are_those_of_the_predictions_on_the_test_images(run, split):
    system = ARMS["aligned"].train(TINY, split, run)
    scores = scores_of(system, split)
    where = localisation_accuracy(system, split, "test")
    assert {k: scores[k] for k in where} == pytest.approx(where, abs=0, rel=0, nan_ok=True)
    found = system.predict(split.batch(split.test).image).scores
    labels = split.store.labels[split.test]
    k = split.classes.index("Mass")
    expected = auroc(found[:, k], torch.from_numpy(labels[:, k] > 0))
    assert scores["auroc/Mass"] == pytest.approx(float(expected))
    assert scores["pairs"] == len(split.pairs()[0])
    for name in ("loc_acc@0.3", "loc_acc@0.5", "loc_acc@0.7", "pairs"):
        assert all(f"{name}/{k}" in scores for k in split.classes)


class Peaked:
    """A small hot part in a large warm one: the threshold decides which it is."""

    size, channels, networks = 32, 1, MappingProxyType({})

    def __init__(self, classes):
        self.classes = classes

    def predict(self, images):
        heat = torch.zeros(len(images), len(self.classes), 32, 32)
        heat[:, :, 4:28, 4:28], heat[:, :, 12:16, 12:16] = 0.5, 1.0
        return Prediction(heatmap=heat)


def test_the_threshold_of_boxes_is_used(split):
    system = Peaked(split.classes)
    low, high = (localisation_accuracy(system, split, "test", threshold=c) for c in (0.3, 0.7))
    by_class = [f"loc_acc@0.3/{name}" for name in split.classes]
    assert [low[k] for k in by_class] != [high[k] for k in by_class]
    assert low["loc_acc_any@0.3"] == high["loc_acc_any@0.3"]


def given(split):
    """The comparison on a split that is made already."""
    return replace(COMPARISON, split=lambda source, config, seed: split)


def test_without_boxes_to_learn_from_the_arms_with_boxes_are_left_out(split):
    blind = with_boxes_of(split, held_out(split))
    assert split.has_boxes_to_learn_from and not blind.has_boxes_to_learn_from
    assert not blind.average_boxes().any()
    arms = ["Wang", "Li (boxes)", "average box (boxes)"]
    record = reproduce(given(blind), HOW, seeds=1, arms=arms)
    assert list(record.results) == ["Wang"]


@pytest.mark.parametrize("arm", WITH_BOXES)
def test_an_arm_that_needs_boxes_is_refused_where_there_are_none(split, tmp_path, arm):
    blind = given(with_boxes_of(split, held_out(split)))
    with pytest.raises(StoreError, match="expected boxes of training images, got none"):
        train(blind, HOW, arm=arm, seed=0, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("boxed", "lacks"), [("train", "validation"), ("validation", "test")])
def test_a_split_without_boxes_is_refused_before_anything_is_trained(
    boxed, lacks, split, tmp_path, monkeypatch
):
    blind = given(with_boxes_of(split, split.rows(boxed)))
    monkeypatch.setattr(experiment, "stages_of", None)  # would fail, were it called
    told = f"expected boxes on the {lacks} images, got none"
    with pytest.raises(StoreError, match=told):
        reproduce(blind, HOW, seeds=1)
    with pytest.raises(StoreError, match=told):
        train(blind, HOW, arm="plain", seed=0, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check(split)


def train_in(folder, arm, *, resume=False, callbacks=None, split=None, config=TINY, **more):
    how = {"callbacks": callbacks} if callbacks else {}
    return ARMS[arm].train(config, split, Run(folder=folder, resume=resume, **how, **more))


def test_an_arm_leaves_a_log_and_checkpoints_of_its_stages(split, tmp_path):
    told = []
    system = train_in(
        tmp_path, "aligned + DM", split=split, callbacks=lambda stage: told.append(stage) or ()
    )
    names = ["plain", "aligner", "aligned", "aligned + DM"]
    assert told == names
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoints", *(f"{name}.jsonl" for name in names)
    }  # fmt: skip
    assert set(system.networks) == {"classifier", "aligner", "anchor"}
    assert system.networks["classifier"].masks.any()


def test_an_arm_without_alignment_has_no_aligner(run, split):
    assert set(ARMS["plain"].train(TINY, split, run).networks) == {"classifier"}


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def in_one_go(split):
    return ARMS["aligned + DM"].train(TINY, split, Run())


@pytest.mark.parametrize("stage", ["plain", "aligner", "aligned", "aligned + DM"])
def test_a_stopped_arm_goes_on_where_it_was(split, in_one_go, tmp_path, stage):
    each = {"trainer": often}

    def stop_in(name):
        def tell(report):
            if name == stage and report.step == 3:
                raise Stopped

        return (tell,)

    with pytest.raises(Stopped):
        train_in(tmp_path, "aligned + DM", split=split, callbacks=stop_in, **each)
    went_on = []

    def resumed_at(name):
        return (lambda report: went_on.append((name, report.step)),)

    parts = train_in(
        tmp_path, "aligned + DM", split=split, resume=True, callbacks=resumed_at, **each
    )
    assert went_on[0] == (stage, 3), "stages that were done are not trained again"
    assert same_weights(in_one_go.networks, parts.networks)
    assert scores_of(in_one_go, split) == pytest.approx(scores_of(parts, split), nan_ok=True)


def often(task, loader, **how):
    """The loop, with checkpoints and reports in nearly every step."""
    from cxrtut.engine.loop import train as loop

    return loop(task, loader, **how | {"checkpoint_every": 2, "report_every": 1})


@pytest.mark.parametrize("arm", ["Cai", "Liu"])
def test_a_comparator_that_was_done_is_read_from_its_folder(split, tmp_path, arm):
    whole = train_in(tmp_path, arm, split=split)
    again = train_in(tmp_path, arm, split=split, resume=True)
    assert same_weights(whole.networks, again.networks)


def test_a_folder_is_not_begun_in_again_nor_with_another_configuration(tmp_path: Path):
    def run_it(**change):
        resume = change.pop("resume", False)
        train(
            COMPARISON, replace(HOW, **change), arm="plain", seed=change.pop("seed", 0),
            folder=tmp_path, resume=resume,
        )  # fmt: skip

    run_it()
    with pytest.raises(CheckpointError, match="goes on"):
        run_it()
    with pytest.raises(CheckpointError, match="learning_rate"):
        run_it(resume=True, settings=(*SETTINGS, "learning_rate=0.5"))
    with pytest.raises(CheckpointError, match="data"):
        run_it(resume=True, source=Source(images=120, phantom_preset="hard"))


ARMS_COMPARED = ("plain", "aligned", "aligned + DM", "Wang")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    how = replace(HOW, command="here")
    return reproduce(
        COMPARISON, how, seeds=2, arms=ARMS_COMPARED, weights_folder=folder
    ), folder  # fmt: skip


def test_a_comparison_has_every_arm_and_every_seed(compared):
    record, _ = compared
    assert tuple(record.results) == ARMS_COMPARED
    assert all(len(runs) == 2 for runs in record.results.values())
    assert record.seeds == (0, 1) and record.command == "here" and not record.faithful
    assert "eight diseases" in record.what and record.configuration["size"] == 32
    assert [about["seed"] for about in record.data] == [0, 1]


def test_a_comparison_has_the_numbers_of_the_tables(compared):
    record, _ = compared
    names = {*MEASURES, "auroc", "false_positives", "pairs"}
    posed = {f"{n}_{when}" for n in ("anchor_distance",) for when in ("before", "after")}
    for arm, runs in record.results.items():
        for done in runs:
            whole = {name for name in done.test if "/" not in name}
            assert done.seconds >= 0 and done.test["pairs"] > 0 and names <= whole
            assert (posed <= whole) == arm.startswith("aligned")
            assert bool(done.train) == (arm == "aligned + DM")
            assert whole <= set(record.better)
    counted = record.results["aligned + DM"][0].train
    assert set(counted) == {f"n_confident/{name}" for name in record.classes}
    plain = [done.test for done in record.results["plain"]]
    assert plain[0] != plain[1], "each seed has its own data and weights"


def test_networks_of_the_first_seed_are_kept(compared):
    record, folder = compared
    assert tuple(record.weights) == ARMS_COMPARED
    assert {path.name for path in folder.iterdir()} == {
        f"disease_masks-smoke-{name}.safetensors"
        for name in ("plain", "aligned", "aligned_DM", "Wang")
    }


def test_without_an_aligned_arm_no_aligner_is_trained():
    told = []
    how = replace(HOW, callbacks=lambda name: told.append(name) or (lambda report: None))
    record = reproduce(COMPARISON, how, seeds=1, arms=("Wang",))
    assert list(record.results) == ["Wang"] and told == ["disease_masks, seed 0, Wang"]


def test_all_arms_of_a_comparison_are_the_same_as_each_alone(compared, in_one_go, split):
    """What an arm scores does not depend on the arms before it."""
    record, _ = compared
    alone = scores_of(in_one_go, split)
    assert record.results["aligned + DM"][0].test["auroc"] == alone["auroc"]


def test_the_split_has_the_size_and_seed_that_were_asked_for(monkeypatch):
    split = split_of(Source(images=80), TINY, 3)
    assert split.size == 32 and len(split.store) == 80 and split.identity["seed"] == 3
    assert len(split.validation) and split.identity["validation share"] == experiment.VALIDATION
    other = split_of(Source(images=80), TINY, 0)
    assert not np.array_equal(split.store.store.images, other.store.store.images)
    seen = []
    whole = Source(images=80).all_diseases(32, 3, 0)
    monkeypatch.setattr(Source, "all_diseases", lambda self, *how: seen.append(how) or whole)
    split_of(Source(), SMOKE, 5)
    assert seen == [(64, 5, IMAGES)]


@pytest.mark.parametrize("side", ["validation", "test"])
def test_alignment_is_measured_by_smoothed_images_of_the_side(split, side):
    system = ARMS["aligned"].build(TINY, split.classes, 0)  # the anchor is 0: nothing is learnt
    found = experiment.alignment(system, split, side)["anchor_distance_before"]
    images = smooth(split.batch(split.rows(side)).image, TINY.grid_size)
    assert found == pytest.approx(images.abs().mean().item(), rel=1e-5)


def test_the_arms_of_contrast_attention_are_built_as_they_are_trained():
    built = [ARMS[arm].build(TINY, ("Mass",), 0).system for arm in COMPARATORS[2:5]]
    expected = [("mean", None), ("noisy-or", None), ("mean", experiment.TEMPERATURE)]
    assert [(system.pooling, system.temperature) for system in built] == expected
