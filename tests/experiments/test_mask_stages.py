"""The stages of the disease-masks paper: each once, in order, and none changed by a later one."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from cxrtut.experiments.alignment import AlignedLoader
from cxrtut.experiments.label_study import phantom_labels
from cxrtut.experiments.mask_stages import Method, Stages, masked
from torch.testing import assert_close

from cxrtut.data.loader import Loader
from cxrtut.experiments.disease_masks import ARMS
from cxrtut.localize.location_priors import pseudo_masks
from cxrtut.nn.backbones import stages as resnet_stages
from cxrtut.papers.disease_masks import (
    SMOKE,
    align,
    disease_mask,
    make_aligner,
    make_classifier,
    read,
    select_confident,
    shared,
    smooth,
)

FEW = ".* maps of P >= "
pytestmark = pytest.mark.filterwarnings(f"ignore:{FEW}:UserWarning")  # of so few images
TINY = replace(
    SMOKE, size=32, cells=8, classifier_width=4, epochs=1.0, alignment_epochs=1.0, batch_size=16,
    anchor_images=1000,
)  # fmt: skip
ALIGNED = ["plain", "aligner", "aligned"]


@pytest.fixture(scope="module")
def study():
    return phantom_labels(32, n=120)


@pytest.fixture(scope="module")
def stages(study):
    return Stages(TINY, study)


@pytest.fixture
def watched(study):
    """Stages, and the names of those that were trained."""
    trained = []

    def watch(stage):
        trained.append(stage)
        return lambda report: None

    return Stages(TINY, study, watch=watch), trained


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def images_of(study, rows):
    return study.store.batch(rows).image


def test_nothing_is_trained_before_it_is_asked_for_and_nothing_twice(watched):
    stages, trained = watched
    assert stages.anchor is stages.anchor and trained == []
    assert stages.aligner is stages.aligner and trained == ["plain", "aligner"]
    assert stages.plain is stages.plain and stages.aligned is stages.aligned
    assert stages.disease_masks is stages.disease_masks
    assert trained == ALIGNED


@pytest.mark.parametrize(
    ("arm", "needed"),
    [
        ("plain", ["plain"]),
        ("aligned", ALIGNED),
        ("aligned + DM", [*ALIGNED, "aligned + DM"]),
        ("aligned, longer", [*ALIGNED, "aligned, longer"]),
        ("aligned + PDM", [*ALIGNED, "aligned + PDM"]),
        ("centre prior", [*ALIGNED, "centre prior"]),
        ("plain + DM", ["plain", "plain + DM"]),
        ("plain, BCE", ["plain, BCE"]),
        ("Wang", ["Wang"]),
        ("Cai", ["plain", "Cai"]),
        ("Liu", ["plain", "aligner", "Liu"]),
        ("Liu, noisy-or", ["plain", "aligner", "Liu, noisy-or"]),
        ("Li (boxes)", ["Li"]),
        ("average box (boxes)", []),
    ],
)
def test_an_arm_trains_the_stages_that_it_begins_with(watched, arm, needed):
    stages, trained = watched
    method = ARMS[arm](stages)
    assert trained == needed
    assert (method.aligner is stages.aligner) if "aligner" in needed else method.aligner is None


def test_a_second_arm_goes_on_from_the_stages_of_the_first(watched):
    stages, trained = watched
    for arm in ("aligned + DM", "DM, binary", "DM, no flip", "DM, shared", "aligned, longer"):
        ARMS[arm](stages)
    assert trained == [
        *ALIGNED, "aligned + DM", "DM, binary", "DM, no flip", "DM, shared", "aligned, longer"
    ]  # fmt: skip


def test_two_runs_of_a_seed_are_equal_and_of_two_seeds_differ(study, stages):
    again, other = Stages(TINY, study), Stages(TINY, study, seed=1)
    assert same(state(stages.aligned), state(again.aligned))
    assert same(state(stages.aligner), state(again.aligner))
    assert not same(state(stages.plain), state(other.plain))


def test_stages_move_their_networks(stages):
    assert not same(state(stages.plain), state(stages.classifier()))
    assert not same(state(stages.aligned), state(stages.plain))
    assert not same(state(stages.aligner), state(make_aligner(TINY, 0)))


def test_the_anchor_is_the_mean_of_normal_images_to_learn_from(study, stages):
    mean = images_of(study, study.normal).mean(0, keepdim=True)
    assert torch.allclose(stages.anchor, mean, atol=1e-6)
    one = Stages(replace(TINY, anchor_images=1), study).anchor
    assert min(float((one - x).abs().max()) for x in images_of(study, study.normal)) < 1e-6


def test_the_anchors_features_can_be_the_mean_of_normal_images(study, stages, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        Stages, "fit", lambda self, stage, task, *rest: seen.update({self.config: task})
    )
    own, mean = TINY, replace(TINY, anchor_features="mean")
    for config in (own, mean):
        one = Stages(config, study)
        one.__dict__["plain"] = stages.plain
        assert one.aligner is seen[config].networks["aligner"]
    network = seen[own].features
    assert_close(seen[own].anchor_features, resnet_stages(network, stages.anchor))
    images = smooth(images_of(study, study.normal), TINY.cells)
    expected = [layer.mean(0, keepdim=True) for layer in resnet_stages(network, images)]
    assert_close(seen[mean].anchor_features, expected)
    assert not torch.allclose(seen[mean].anchor_features[3], seen[own].anchor_features[3])


@pytest.mark.parametrize(
    "arm", ["aligned + DM", "aligned, longer", "plain + DM", "DM, shared", "Cai", "Liu"]
)
def test_the_stages_before_are_left_as_they_were(stages, arm):
    before = state(stages.plain), state(stages.aligner), state(stages.aligned)
    masks = stages.disease_masks.clone()
    network = ARMS[arm](stages).network
    assert same(before[0], state(stages.plain)) and same(before[1], state(stages.aligner))
    assert same(before[2], state(stages.aligned)) and torch.equal(masks, stages.disease_masks)
    assert network is not stages.plain and network is not stages.aligned
    for stage in (stages.plain, stages.aligned):
        assert not stage.masks.any() and not same(state(stage), state(network))


def test_retraining_begins_at_the_weights_of_the_stage_before(study, stages, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        Stages, "fit", lambda self, stage, task, *rest: seen.update({stage: task.networks})
    )
    masks = stages.disease_masks
    stages.retrained("on", masks)
    stages.retrained("plain", None, aligned=False)
    expected = state(stages.aligned) | {"masks": masks}
    assert same(state(seen["on"]["classifier"]), expected)
    assert same(state(seen["plain"]["classifier"]), state(stages.plain))


def test_each_stage_learns_from_images_as_they_are_or_from_aligned_ones(stages, monkeypatch):
    fed = {}
    monkeypatch.setattr(
        Stages, "fit", lambda self, stage, task, feed, *rest: fed.update({stage: feed})
    )
    for arm in ("aligned, longer", "aligned + DM", "plain + DM", "plain, BCE", "Wang", "Liu"):
        ARMS[arm](stages)
    stages.classify("aligned", stages.classifier(), stages.aligned_feed)
    for stage, feed in fed.items():
        aligned = stage.startswith("aligned") or stage == "Liu"
        assert isinstance(feed, AlignedLoader if aligned else Loader), stage
        assert not aligned or feed.aligner is stages.aligner
    assert len(fed) == 7


def test_masks_are_not_trained(stages):
    method = stages.retrained("half", torch.full_like(stages.aligned.masks, 0.5))
    assert (method.network.masks == 0.5).all()
    assert "masks" not in dict(method.network.named_parameters())


def test_each_arm_has_the_masks_that_its_name_says(stages):
    of = {
        name: ARMS[name](stages).network.masks
        for name in (
            "plain", "aligned", "aligned, longer", "plain + DM", "aligned + DM", "DM, binary",
            "DM, shared", "DM, no flip", "aligned + PDM", "centre prior",
        )
    }  # fmt: skip
    for name in ("plain", "aligned", "aligned, longer"):
        assert not of[name].any()
    masks = stages.disease_masks
    assert torch.equal(of["aligned + DM"], masks)
    assert torch.equal(of["plain + DM"], stages.masks(stages.plain, None))
    assert torch.equal(of["DM, binary"], (masks > 0).float())
    assert set(of["DM, binary"].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(of["DM, shared"], shared(masks))
    assert (of["DM, shared"] == of["DM, shared"][0]).all() and of["DM, shared"].any()
    assert torch.equal(of["DM, no flip"], stages.masks(stages.aligned, stages.aligner, flip=False))
    assert torch.equal(of["aligned + PDM"], pseudo_masks(stages.study.store.classes, 4))
    assert (of["centre prior"] > 0).all()
    assert (of["centre prior"] == of["centre prior"][0]).all()
    different = [of[name] for name in of if of[name].any()]
    for i, one in enumerate(different):
        assert all(not torch.equal(one, other) for other in different[i + 1 :])


@pytest.mark.parametrize(("min_probability", "fewest"), [(0.8, 20), (0.0, 1), (1.0, 1)])
@pytest.mark.parametrize("aligned", [True, False])
def test_a_mask_is_equation_3_on_the_positives_to_learn_from(
    study, stages, min_probability, fewest, aligned
):
    config = replace(TINY, min_probability=min_probability, fewest=fewest)
    mine = Stages(config, study)
    network, aligner = stages.aligned, stages.aligner if aligned else None
    masks = mine.masks(network, aligner)
    images = images_of(study, study.train)
    images = align(aligner, images)[0] if aligned else images
    maps, logits = read(network, images)
    labels = torch.from_numpy(study.store.labels[study.train]).float()
    for k, name in enumerate(study.store.classes):
        rows = select_confident(
            logits[:, k].sigmoid(), labels[:, k], min_probability=min_probability, fewest=fewest
        )
        assert len(rows) and labels[rows, k].all()
        by_hand = disease_mask(maps[rows, k], symmetric=name != "Cardiomegaly")
        assert torch.allclose(masks[k], by_hand, atol=1e-4)


def test_masks_reach_one_and_have_nothing_below_the_threshold(stages):
    masks = stages.disease_masks
    assert torch.equal(masks.amax((1, 2)), torch.ones(len(masks)))
    assert masks[masks > 0].min() >= TINY.mask_threshold
    assert not masks.requires_grad


def test_all_masks_but_the_hearts_are_mirror_images_unless_they_are_not_flipped(study, stages):
    flipped = stages.disease_masks
    not_flipped = stages.masks(stages.aligned, stages.aligner, flip=False)
    heart = study.store.classes.index("Cardiomegaly")
    for k in range(8):
        symmetric = torch.allclose(flipped[k], flipped[k].flip(-1), atol=1e-6)
        assert symmetric == (k != heart)
    assert torch.equal(flipped[heart], not_flipped[heart])
    assert not torch.equal(flipped, not_flipped)


def test_making_masks_in_parts_gives_the_same(stages, monkeypatch):
    masks = stages.masks(stages.aligned, stages.aligner)
    monkeypatch.setattr(
        "cxrtut.experiments.mask_stages.row_parts",
        lambda rows: [rows[i : i + 7] for i in range(0, len(rows), 7)],
    )
    assert torch.allclose(masks, stages.masks(stages.aligned, stages.aligner), atol=1e-4)


def test_test_images_do_not_shape_the_masks(study, stages):
    store = study.store
    labels, images = store.labels.copy(), store.images.copy()
    labels[study.test], images[study.test] = 1, 0
    blind = replace(study, store=replace(store, labels=labels, images=images))
    masks = Stages(TINY, blind).masks(stages.aligned, stages.aligner)
    assert torch.equal(masks, stages.disease_masks)


def test_a_class_without_a_positive_gets_an_empty_mask_and_a_warning(study, stages):
    labels = study.store.labels.copy()
    labels[np.ix_(study.train, [3])] = 0
    without = Stages(TINY, replace(study, store=replace(study.store, labels=labels)))
    with pytest.warns(UserWarning, match="Infiltration: no positive image to learn from, no mask"):
        masks = without.masks(stages.aligned, stages.aligner)
    assert not masks[3].any() and masks[[0, 1, 2, 4, 5, 6, 7]].flatten(1).any(1).all()


def test_too_few_sure_maps_are_warned_of_and_counted(study, stages):
    counted = {}
    told = r"Mass: \d maps of P >= 0.99; the mask is of the \d+ with the highest P"
    sterner = Stages(replace(TINY, min_probability=0.99), study)
    with pytest.warns(UserWarning, match=told):
        sterner.masks(stages.aligned, stages.aligner, counted=counted)
    assert set(counted) == set(study.store.classes) and max(counted.values()) < 20


@pytest.mark.filterwarnings("error")
def test_where_all_positives_are_sure_there_is_nothing_to_warn_of(study, stages):
    Stages(replace(TINY, min_probability=0.0), study).masks(stages.aligned, stages.aligner)


def test_sure_maps_are_counted_by_class(study, stages):
    labels = study.store.labels[study.train] > 0
    aligned, _ = align(stages.aligner, images_of(study, study.train))
    probability = read(stages.aligned, aligned)[1].sigmoid().numpy()
    middle = float(np.median(probability[labels]))
    counted = {}
    lower = Stages(replace(TINY, min_probability=middle, fewest=1), study)
    lower.masks(stages.aligned, stages.aligner, counted=counted)
    by_hand = ((probability >= middle) & labels).sum(0)
    assert len(set(by_hand)) > 2
    assert counted == dict(zip(study.store.classes, by_hand.tolist(), strict=True))


def test_how_many_maps_were_sure_is_kept(study, stages):
    assert stages.disease_masks is not None
    counted = {}
    stages.masks(stages.aligned, stages.aligner, counted=counted)
    assert stages.sure_maps == counted and list(counted) == list(study.store.classes)


def test_only_the_eight_classes_of_the_paper_have_masks(study, stages):
    names = tuple("Hernia" if name == "Mass" else name for name in study.store.classes)
    other = Stages(TINY, replace(study, store=replace(study.store, classes=names)))
    masks = other.masks(stages.aligned, stages.aligner)
    mass = names.index("Hernia")
    assert not masks[mass].any() and stages.disease_masks[mass].any()
    rest = [k for k in range(len(names)) if k != mass]
    assert torch.equal(masks[rest], stages.disease_masks[rest])


def test_a_method_reads_images_through_its_aligner(study, stages):
    images = images_of(study, study.test)
    maps, logits, matrix = masked(stages.aligned, stages.aligner).on(images)
    aligned, by_hand = align(stages.aligner, images)
    expected = read(stages.aligned, aligned)
    assert torch.equal(matrix, by_hand)
    assert torch.equal(maps, expected[0]) and torch.equal(logits, expected[1])
    plain = Method(stages.plain, lambda x: read(stages.plain, x)).on(images)
    assert plain[2] is None and torch.equal(plain[0], read(stages.plain, images)[0])


def test_a_retrained_method_reads_with_its_masks(study, stages):
    method = stages.retrained("read with masks", stages.disease_masks)
    images = images_of(study, study.test)
    without = copy.deepcopy(method.network)
    without.masks.zero_()
    masked_maps, bare = method.read(images)[0], read(without, images)[0]
    assert torch.allclose(masked_maps, (1 + stages.disease_masks) * bare, atol=1e-5)


def test_a_classifier_has_a_column_for_each_class(study):
    network = Stages(TINY, study, seed=3).classifier()
    assert network.masks.shape == (8, 4, 4)
    assert same(state(network), state(make_classifier(TINY, 8, 3)))


def test_a_folder_gets_a_log_and_checkpoints_of_each_stage(study, tmp_path):
    stages = Stages(TINY, study, out=tmp_path)
    assert stages.aligner is not None
    assert {path.name for path in tmp_path.iterdir()} == {
        "plain.jsonl", "aligner.jsonl", "checkpoints"
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"plain", "aligner"}


def test_without_a_folder_nothing_is_written(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Stages(TINY, study).plain is not None
    assert not list(tmp_path.iterdir())
