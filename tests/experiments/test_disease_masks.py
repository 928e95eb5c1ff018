"""The comparisons of the disease-masks paper, in small."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from cxrtut.engine.records import write_json
from cxrtut.experiments.label_study import phantom_labels
from cxrtut.experiments.localisation import score_classification, score_localisation
from cxrtut.experiments.mask_stages import Method, Stages
from cxrtut.experiments.sources import Source

from cxrtut.data.boxes import mask_to_box
from cxrtut.data.store import StoreError
from cxrtut.engine.checkpoint import CheckpointError
from cxrtut.engine.distributed import Ranks
from cxrtut.experiments import disease_masks as experiment
from cxrtut.experiments.disease_masks import (
    ARMS,
    KEPT,
    WITH_BOXES,
    check_boxes,
    class_table,
    compare,
    comparison_table,
    run_arm,
    score,
    study_of,
)
from cxrtut.papers.disease_masks import SMOKE, align, read

pytestmark = pytest.mark.filterwarnings("ignore:.* maps of P >= :UserWarning")  # so few images
TINY = replace(
    SMOKE, size=32, cells=8, classifier_width=4, epochs=1.0, alignment_epochs=1.0, batch_size=16,
    anchor_images=20,
)  # fmt: skip
MEASURES = [f"T .{t}{which}" for t in (3, 5, 7) for which in ("", ", any", ", oracle")]
COMPARATORS = ("Wang", "Cai", "Liu", "Liu, noisy-or", "Li (boxes)", "average box (boxes)")


@pytest.fixture(scope="module")
def study():
    return phantom_labels(32, n=120)


@pytest.fixture(scope="module")
def stages(study):
    return Stages(TINY, study)


def with_boxes_of(study, rows):
    """The study with the boxes of some rows alone."""
    table = study.store.boxes
    kept = np.isin(table.row, rows)
    assert kept.any()
    boxes = replace(
        table, row=table.row[kept], label=table.label[kept], xyxy=table.xyxy[kept],
        origin=table.origin[kept],
    )  # fmt: skip
    return replace(study, store=replace(study.store, boxes=boxes))


def run(arm, study, out, *, resume=False, watch=None, config=TINY, **settings):
    return run_arm(
        arm, config, study, seed=0, device=torch.device("cpu"), out=out, resume=resume,
        ranks=Ranks(), watch=watch, **settings,
    )  # fmt: skip


def same_weights(one, other):
    for name in one:
        pairs = zip(one[name].state_dict().values(), other[name].state_dict().values(), strict=True)
        if not all(torch.equal(a, b) for a, b in pairs):
            return False
    return one.keys() == other.keys()


def test_the_papers_own_arm_is_one_of_the_arms():
    assert experiment.OWN == "aligned + DM" and {experiment.OWN, *KEPT} < set(ARMS)
    assert list(experiment.PRESETS) == ["paper", "colab", "smoke"]


@pytest.mark.parametrize("arm", COMPARATORS)
def test_comparators_run_and_are_scored(stages, study, arm):
    method = ARMS[arm](stages)
    maps, logits, _ = method.on(study.store.batch(study.test).image)
    assert maps.shape[:2] == logits.shape == (len(study.test), 8) and maps.isfinite().all()
    scores = score(method, study, TINY, "cpu")
    for name in MEASURES:
        assert 0 <= scores[name] <= 1
    if method.classifies:
        assert 0 <= scores["AUROC"] <= 1 and scores["false positives"] >= 0


def test_the_reference_of_contrast_attention_is_made_of_aligned_normal_images(
    stages, study, monkeypatch
):
    seen = []
    kept = experiment.ContrastAttention.set_reference
    monkeypatch.setattr(
        experiment.ContrastAttention, "set_reference",
        lambda task, images, *rest: (seen.append(images), kept(task, images, *rest))[1],
    )  # fmt: skip
    ARMS["Liu"](stages)
    rows = study.some_normal(TINY.anchor_images, 0)
    expected, _ = align(stages.aligner, study.store.batch(rows).image)
    (given,) = seen
    assert torch.equal(given, expected)


def test_the_two_arms_of_contrast_attention_differ_in_their_pooling(stages, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        Stages, "fit", lambda self, stage, task, *rest: seen.update({stage: task.pooling})
    )
    for arm in ("Liu", "Liu, noisy-or"):
        ARMS[arm](stages)
    assert seen == {"Liu": "mean", "Liu, noisy-or": "noisy-or"}


def test_the_average_box_is_that_of_the_training_images_in_every_image(stages, study):
    method = ARMS["average box (boxes)"](stages)
    maps, _, matrix = method.on(study.store.batch(study.test).image)
    assert matrix is None and torch.equal(maps[0], maps[-1])
    found = mask_to_box(maps[0] > 0)
    expected = study.average_boxes()
    assert (expected[:, 2:] > expected[:, :2]).all()
    assert (found - expected).abs().max() <= 0.5
    scores = score(method, study, TINY, "cpu")
    assert scores["false positives"] is None and scores["AUROC"] is None  # it says nothing of both
    assert set(scores["by class"]["AUROC"].values()) == {None} and scores["T .3"] > 0


def test_the_prior_for_the_centre_is_for_the_classes_that_have_masks(study, monkeypatch):
    names = tuple("Hernia" if name == "Mass" else name for name in study.store.classes)
    other = Stages(TINY, replace(study, store=replace(study.store, classes=names)))
    seen = []
    monkeypatch.setattr(Stages, "retrained", lambda self, stage, masks: seen.append(masks))
    ARMS["centre prior"](other)
    (masks,) = seen
    assert masks.flatten(1).any(1).tolist() == [name != "Hernia" for name in names]


def test_only_limited_supervision_is_given_boxes(study, monkeypatch):
    fed = {}
    monkeypatch.setattr(
        Stages, "fit", lambda self, stage, task, feed, *rest: fed.setdefault(stage, feed)
    )
    ARMS["Li (boxes)"](Stages(TINY, study))
    batch = next(fed["Li"].batches(batch_size=len(study.train), seed=0))
    whole = study.store.batch(batch.index)
    known, all_known = ((b.box_label >= 0).any(1).sum().item() for b in (batch, whole))
    assert 0 < known < 0.5 * all_known


def test_scores_are_those_of_the_maps_on_the_test_images(stages, study):
    method = ARMS["aligned"](stages)
    aligned, matrix = align(stages.aligner, study.store.batch(study.test).image)
    maps, logits = read(stages.aligned, aligned)
    where = score_localisation(maps, logits, matrix, study, cut=TINY.cut)
    whether = score_classification(logits, study)
    scores = score(method, study, TINY, "cpu")
    assert scores["AUROC"] == whether["AUROC"] and scores["pairs"] == len(study.pairs[0])
    for name in [*MEASURES, "false positives"]:
        assert scores[name] == pytest.approx(where[name])
    assert list(scores["by class"]) == ["T .3", "T .5", "T .7", "pairs", "AUROC"]
    for by_class in scores["by class"].values():
        assert tuple(by_class) == study.store.classes


def test_the_cut_of_the_configuration_is_used(study):
    def peaked(images):
        """A small hot part in a large warm one: the cut decides which it is."""
        maps = torch.zeros(len(images), 8, 32, 32)
        maps[:, :, 4:28, 4:28], maps[:, :, 12:16, 12:16] = 0.5, 1.0
        return maps, torch.ones(len(images), 8)

    method = Method(torch.nn.Identity(), peaked)
    low, high = (score(method, study, replace(TINY, cut=c), "cpu") for c in (0.3, 0.7))
    assert low["by class"]["T .3"] != high["by class"]["T .3"]
    assert low["T .3, any"] == high["T .3, any"]


def test_without_boxes_to_learn_from_the_arms_with_boxes_are_left_out(study):
    blind_training = with_boxes_of(study, study.test)
    assert study.boxes_to_learn_from and not blind_training.boxes_to_learn_from
    assert not blind_training.average_boxes().any()
    arms = ["Wang", "Li (boxes)", "average box (boxes)"]
    record = compare(TINY, lambda _: blind_training, seeds=1, arms=arms)
    assert list(record["results"]) == ["Wang"]


@pytest.mark.parametrize("arm", WITH_BOXES)
def test_an_arm_that_needs_boxes_is_refused_where_there_are_none(study, tmp_path, arm):
    blind_training = with_boxes_of(study, study.test)
    with pytest.raises(StoreError, match="expected boxes of training images, got none"):
        run(arm, blind_training, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_study_without_boxes_is_refused_before_anything_is_trained(study, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "Stages", None)  # would fail, were it called
    told = "expected boxes on the test images, got none"
    with pytest.raises(StoreError, match=told):
        compare(TINY, lambda seed: with_boxes_of(study, study.train), seeds=1)
    with pytest.raises(StoreError, match=told):
        run("plain", with_boxes_of(study, study.train), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_boxes(study)


def test_an_arm_leaves_a_log_and_checkpoints_of_its_stages(study, tmp_path):
    told = []
    networks, scores = run(
        "aligned + DM", study, tmp_path, watch=lambda stage: (told.append(stage), print)[1]
    )
    names = ["plain", "aligner", "aligned", "aligned + DM"]
    assert told == names
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoints", *(f"{name}.jsonl" for name in names)
    }  # fmt: skip
    assert set(networks) == {"classifier", "aligner"}
    assert networks["classifier"].masks.any() and set(scores) == {"held out"}


def test_an_arm_without_alignment_has_no_aligner(study, tmp_path):
    networks, _ = run("plain", study, tmp_path)
    assert set(networks) == {"classifier"}


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def in_one_go(study, tmp_path_factory):
    return run("aligned + DM", study, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("stage", ["plain", "aligner", "aligned", "aligned + DM"])
def test_a_stopped_arm_goes_on_where_it_was(study, in_one_go, tmp_path, stage):
    whole, scores = in_one_go

    def stop_in(name):
        def tell(report):
            if name == stage and report.step == 3:
                raise Stopped

        return tell

    each = {"checkpoint_every": 2, "report_every": 1}
    out = tmp_path / "parts"
    with pytest.raises(Stopped):
        run("aligned + DM", study, out, watch=stop_in, **each)
    went_on = []

    def resumed_at(name):
        return lambda report: went_on.append((name, report.step))

    parts, again = run("aligned + DM", study, out, resume=True, watch=resumed_at, **each)
    assert went_on[0] == (stage, 3), "stages that were done are not trained again"
    assert same_weights(whole, parts)
    numbers = [s["held out"][name] for s in (scores, again) for name in [*MEASURES, "AUROC"]]
    assert numbers[: len(numbers) // 2] == numbers[len(numbers) // 2 :]


@pytest.mark.parametrize("arm", ["Cai", "Liu"])
def test_a_comparator_that_was_done_is_read_from_its_folder(study, tmp_path, arm):
    whole, scores = run(arm, study, tmp_path)
    again, same = run(arm, study, tmp_path, resume=True)
    assert same_weights(whole, again)
    assert scores["held out"]["AUROC"] == same["held out"]["AUROC"]


def test_a_folder_is_not_begun_in_again_nor_with_another_configuration(study, tmp_path):
    run("plain", study, tmp_path)
    with pytest.raises(CheckpointError, match="goes on"):
        run("plain", study, tmp_path)
    with pytest.raises(CheckpointError, match="learning_rate"):
        run("plain", study, tmp_path, resume=True, config=replace(TINY, learning_rate=0.5))
    with pytest.raises(CheckpointError, match="data"):
        run("plain", phantom_labels(32, n=120, seed=1), tmp_path, resume=True)


@pytest.fixture(scope="module")
def compared():
    kept = []
    record = compare(
        TINY, lambda seed: phantom_labels(32, n=120, seed=seed), seeds=2, command="here",
        arms=("plain", "aligned", "aligned + DM", "Wang"),
        keep=lambda name, network: kept.append((name, network)),
    )  # fmt: skip
    return record, kept


def test_a_comparison_has_every_arm_and_every_seed(compared):
    record, _ = compared
    assert list(record["results"]) == [
        "plain",
        "aligned",
        "aligned + DM",
        "Wang",
        "masks",
        "alignment",
    ]
    assert all(len(runs) == 2 for runs in record["results"].values())
    assert record["seeds"] == [0, 1] and record["command"] == "here"
    assert "eight diseases" in record["data"]["name"]
    prints = [record["data"][f"fingerprint, seed {seed}"] for seed in (0, 1)]
    assert prints[0] != prints[1] and record["configuration"]["size"] == 32


def test_a_comparison_has_the_fields_of_the_tables(compared):
    record, _ = compared
    for arm, runs in record["results"].items():
        for done in runs:
            if arm == "masks":
                assert len(done["sure maps"]) == 8
                continue
            found = done["held out"]
            if arm == "alignment":
                names = ("anchor distance", "pose error", "frame width", "misplaced")
                assert set(found) == {f"{n} {when}" for n in names for when in ("before", "after")}
                continue
            assert done["seconds"] >= 0 and found["pairs"] > 0
            assert set(found) == {*MEASURES, "AUROC", "false positives", "pairs", "by class"}
            assert set(found["by class"]) == {"T .3", "T .5", "T .7", "AUROC", "pairs"}
    plain = [done["held out"] for done in record["results"]["plain"]]
    assert plain[0] != plain[1], "each seed has its own data and weights"


def test_a_comparison_becomes_a_file_and_tables(compared, tmp_path):
    record, _ = compared
    write_json(tmp_path / "record.json", record)
    rows = comparison_table(record)
    assert [row["method"] for row in rows] == ["plain", "aligned", "aligned + DM", "Wang"]
    assert list(rows[0]) == ["method", "T .3", "T .5", "T .7", "AUROC"]
    wide = class_table(record, "AUROC", ["plain", "Wang"])
    assert [row["method"] for row in wide] == ["plain", "Wang"] and len(wide[0]) == 9


def test_networks_of_the_first_seed_are_kept(compared):
    _, kept = compared
    assert [name for name, _ in kept] == ["plain", "aligned", "aligned + DM", "aligner"]
    networks = dict(kept)
    assert networks["aligned + DM"].masks.any() and not networks["aligned"].masks.any()


def test_without_an_aligned_arm_no_aligner_is_trained(study):
    told = []
    record = compare(
        TINY, lambda seed: study, seeds=1, arms=("Wang",),
        progress=lambda name: (told.append(name), lambda report: None)[1],
    )  # fmt: skip
    assert list(record["results"]) == ["Wang"] and told == ["Wang, seed 0"]


def test_all_arms_of_a_comparison_are_the_same_as_each_alone(compared, study):
    """What an arm scores does not depend on the arms before it."""
    record, _ = compared
    alone = score(ARMS["aligned + DM"](Stages(TINY, study)), study, TINY, "cpu")
    assert record["results"]["aligned + DM"][0]["held out"]["AUROC"] == alone["AUROC"]


def by_hand():
    """Two arms, two seeds, two classes; B has no boxes, and for some seeds no area."""

    def found(t, area, a, b):
        by_class = {"T .3": {"A": t, "B": None}, "AUROC": {"A": a, "B": b}}
        whole = {"T .3": t, "T .5": t / 2, "T .7": 0.0, "AUROC": area, "by class": by_class}
        return {"held out": whole}

    return {
        "results": {
            "Wang": [found(0.5, 0.5, 0.25, None), found(0.1, 0.6, 0.75, math.nan)],
            "plain": [found(0.2, 0.6, 0.5, 0.7), found(0.4, 0.7, 0.7, None)],
            "alignment": [{"held out": {"anchor distance before": 1.0}}] * 2,
        }
    }


def test_a_table_has_means_over_seeds_and_their_intervals():
    plain, wang = comparison_table(by_hand())  # in the order of the arms
    assert list(plain) == ["method", "T .3", "T .5", "T .7", "AUROC"]
    assert plain["method"] == "plain" and wang["method"] == "Wang"
    # seeds .2 and .4: a standard error of .1, and 12.706 times that with two seeds
    assert plain["T .3"] == "0.300\u00a0±\u00a01.271" and plain["T .7"] == "0.000\u00a0±\u00a00.000"
    (row, _) = comparison_table(by_hand(), ["AUROC"])
    assert list(row) == ["method", "AUROC"] and row["AUROC"].startswith("0.650\u00a0± ".strip())


def test_a_measure_of_a_table_may_be_a_path():
    (plain, wang) = comparison_table(by_hand(), ["by class > AUROC > A", "by class > AUROC > B"])
    assert plain["by class > AUROC > A"].startswith("0.600")
    assert wang["by class > AUROC > B"] is None


def test_a_table_of_one_seed_has_no_interval_and_of_nothing_measured_none():
    run = {"held out": {"T .3": 0.25, "AUROC": None}}
    (row,) = comparison_table({"results": {"plain": [run]}}, ["T .3", "AUROC"])
    assert row == {"method": "plain", "T .3": "0.250", "AUROC": None}


def test_a_table_by_class_leaves_out_what_is_not_defined():
    plain, wang = class_table(by_hand(), "AUROC", ["plain", "Wang"])
    assert plain == {"method": "plain", "A": pytest.approx(0.6), "B": pytest.approx(0.7)}
    assert wang == {"method": "Wang", "A": 0.5, "B": None}
    (last,) = class_table(by_hand(), "T .3", ["Wang"])
    assert last == {"method": "Wang", "A": pytest.approx(0.3), "B": None}


def test_the_study_has_the_size_and_seed_that_were_asked_for():
    study = study_of(Source(images=40), TINY, 3)
    assert study.store.size == 32 and len(study.store) == 40
    assert study.store.fingerprint == phantom_labels(32, n=40, seed=3).store.fingerprint
