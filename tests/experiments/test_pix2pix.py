"""The arms of the Pix2Pix paper: what each of them learns from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cxrtut.data.augment import Augmentation
from cxrtut.data.sample import to_uint8
from cxrtut.data.store import StoreError
from cxrtut.experiments.comparison import measure_all
from cxrtut.experiments.pix2pix import (
    CLASSICAL,
    COMPARISON,
    DISEASES,
    kept_at,
    make_detector,
    split_of,
    train_reader,
)
from cxrtut.experiments.run import Run
from cxrtut.experiments.source import Source
from cxrtut.experiments.synthetic_images import (
    GENERATORS,
    healthy_images,
    in_own_domain,
    learnt,
    make_stargan,
    pairs_of,
)
from cxrtut.nn.inception_rcnn import InceptionBackbone
from cxrtut.papers.pix2pix import CPU, PAPER, SMOKE

TINY = replace(
    SMOKE, size=32, base=4, halvings=4, patch_halvings=1, batch_size=4, steps=3, detector_steps=2,
    detector_batch_size=4, annotated=30, healthy=20, synthetic=25, stargan_base=4,
    stargan_blocks=1, stargan_steps=3, stargan_batch_size=4, reader_steps=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def split():
    return split_of(Source(images=240), TINY, 0)


class Kept:
    """A run that trains nothing and keeps what each stage was given."""

    def __init__(self, split, *arms, config=TINY, seed=0):
        self.stages, self.arm = [], {}
        self.run = Run(seed=seed, trainer=self.trainer)
        for name in arms:
            before = len(self.stages)
            COMPARISON.arm(name).train(config, split, self.run)
            self.arm[name] = self.stages[before:]

    def trainer(self, task, loader, **how):
        self.stages.append((how["configuration"]["stage"], task, loader, how))
        return []


def images_of(stage):
    """The images of a stage's loader, as bytes."""
    return [image.numpy().tobytes() for image in stage[2].source.images]


def test_the_split_has_the_six_diseases_and_no_patient_twice(split):
    assert split.classes == DISEASES
    sides = [set(split.patients(split.rows(s))) for s in ("train", "validation", "test")]
    assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_images_that_are_learnt_from_are_as_many_as_the_paper_has_at_most(split):
    rows, left = learnt(TINY, split, 0)
    assert len(rows) == 30 and len(left) > 0 and not set(rows) & set(left)
    assert set(rows) | set(left) == set(split.train) & set(split.store.boxes.row)
    assert learnt(TINY, split, 1)[0].tolist() != rows.tolist()
    everything, none = learnt(replace(TINY, annotated=10_000), split, 0)
    assert len(everything) == len(rows) + len(left) and len(none) == 0


def test_every_arm_learns_from_the_annotated_images_and_from_what_its_name_says(split):
    names = [name for name in COMPARISON.arms if name != "average box"]
    kept = Kept(split, *names)
    rows, left = learnt(TINY, split, 0)

    def pixels(chosen):
        return [to_uint8(x).numpy().tobytes() for x in split.batch(chosen).image]

    annotated, others = pixels(rows), pixels(left[:25])
    extra = {name: images_of(kept.arm[name][-1])[30:] for name in names}
    for name in names:
        assert images_of(kept.arm[name][-1])[:30] == annotated, name
    assert extra["Ori"] == extra["Ori, augmented"] == []
    assert extra["Ori, oversampled"] == annotated[:25]
    assert extra["Ori + further patients"] == others
    for name in ("Ori + Pix2Pix", "Ori + Pix2Pix-N", "Ori + StarGAN"):
        assert len(extra[name]) == 25 and not set(extra[name]) & set(annotated)


def test_all_detectors_take_as_many_steps_of_as_many_images_and_two_are_augmented(split):
    names = [name for name in COMPARISON.arms if name != "average box"]
    kept = Kept(split, *names)
    augmented = {"Ori, augmented": CLASSICAL, "Ori, mirrored": Augmentation(flip=0.5)}
    for name in names:
        stage, task, loader, how = kept.arm[name][-1]
        assert (stage, how["steps"], how["batch_size"]) == ("main", 2, 4)
        assert loader.augmentation == augmented.get(name)
        assert task.optimizers["detector"].param_groups[0]["lr"] == TINY.detector_learning_rate
    first = [kept.arm[name][-1][1].networks["detector"].state_dict() for name in names]
    for other in first[1:]:
        assert all(torch.equal(v, other[k]) for k, v in first[0].items())


def test_pix2pix_learns_from_annotations_and_pix2pix_n_from_healthy_images_too(split):
    kept = Kept(split, "Ori + Pix2Pix", "Ori + Pix2Pix-N")
    (name, _, loader, how), _ = kept.arm["Ori + Pix2Pix"]
    pairs = pairs_of(TINY, split, kept.run)
    assert (name, how["steps"], how["batch_size"]) == ("Pix2Pix", 3, 4)
    assert torch.equal(loader.source.boxes, pairs.boxes) and loader.augmentation == GENERATORS
    (name, _, more, _), _ = kept.arm["Ori + Pix2Pix-N"]
    assert name == "Pix2Pix-N" and len(more.source) == len(pairs) + 20
    healthy = more.source.index[len(pairs) :].numpy()
    assert set(healthy) <= set(split.normal("train")) and len(set(healthy)) == 20
    assert (more.source.label_vector[len(pairs) :] == 0).all()
    rows = set(learnt(TINY, split, 0)[0].tolist())
    assert set(pairs.index.tolist()) == rows  # of nobody whose boxes are not to be known


def test_a_generator_is_trained_once_for_all_who_ask_and_anew_for_another_seed(split):
    kept = Kept(split, "Ori + Pix2Pix", "Ori + Pix2Pix")
    assert [stage[0] for stage in kept.stages] == ["Pix2Pix", "main", "main"]
    first, second = (
        images_of(kept.arm["Ori + Pix2Pix"][-1])
        for kept in (kept, Kept(split, "Ori + Pix2Pix", seed=1))
    )
    assert first[30:] != second[30:]


def test_stargan_has_a_domain_for_each_disease_and_one_for_healthy_images(split):
    kept = Kept(split, "Ori + StarGAN")
    (name, task, loader, how), _ = kept.arm["Ori + StarGAN"]
    pairs = pairs_of(TINY, split, kept.run)
    assert (name, how["steps"], how["batch_size"]) == ("StarGAN", 3, 4)
    assert task.domains == 7 and task.critic_steps == TINY.stargan_critic_steps
    labels = loader.source.label_vector
    assert len(labels) == len(pairs) + 20 and labels[: len(pairs)].sum(1).eq(1).all()
    assert labels[len(pairs) :].eq(0).all() and loader.with_targets
    image = torch.zeros(1, 1, 32, 32)
    with torch.no_grad():
        assert task.networks["discriminator"](image)[1].shape == (1, 7)


def test_images_of_stargan_are_those_of_annotations_in_their_own_domain_with_their_box(
    split, monkeypatch
):
    asked = []

    def translate(network, image, target):
        asked.append(target)
        return image + 0.1

    monkeypatch.setattr("cxrtut.experiments.synthetic_images.translate", translate)
    kept = Kept(split, "Ori + StarGAN")
    source = kept.arm["Ori + StarGAN"][-1][2].source
    made = source.moved(lambda tensor: tensor[30:])
    assert torch.equal(torch.cat(asked)[:, 1:], made.label_vector)
    assert not torch.cat(asked)[:, 0].any() and len(made) == 25
    before = split.batch(made.index.numpy()).image
    mirrored = torch.stack([before, before.flip(-1)])
    error = (made.batch(torch.arange(25)).image - mirrored - 0.1).clamp(-1, 1).abs()
    assert error[..., 8:24, 8:24].amax((2, 3, 4)).amin(0).max() < 0.02


def test_stargans_networks_are_those_of_the_seed():
    first, again, other = (make_stargan(TINY, 6, seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    assert any(not torch.equal(v, other[k]) for k, v in first.items())


def test_a_detector_has_the_images_that_were_added_and_five_states_of_the_end(split):
    run, config = Run(), replace(TINY, detector_steps=120)
    plain, more = (COMPARISON.arm(a).train(TINY, split, run) for a in ("Ori", "Ori, oversampled"))
    assert plain.added is None and len(more.added) == 25
    assert kept_at(15_000) == {14_000, 14_250, 14_500, 14_750}
    assert kept_at(400) == {374, 380, 387, 394} and kept_at(1) == frozenset()
    kept = Kept(split, "Ori", config=config)
    _, task, _, _ = kept.arm["Ori"][-1]
    system = task.before_step.__self__
    for step in range(120):
        list(task.phases(step, 0))
    assert set(system.kept) == kept_at(120) == {112, 114, 116, 118}


def test_without_further_patients_that_arm_says_so(split):
    config = replace(TINY, annotated=10_000)
    with pytest.raises(StoreError, match="more than 10000 training images with boxes"):
        COMPARISON.arm("Ori + further patients").train(config, split, Run())


def test_the_generator_is_kept_with_the_detector_and_can_be_put_back(split):
    run = Run()
    for name in ("Ori + Pix2Pix-N", "Ori + StarGAN"):
        arm = COMPARISON.arm(name)
        trained, fresh = arm.train(TINY, split, run), arm.build(TINY, split.classes, 5)
        assert set(trained.networks) == set(fresh.networks) == {"detector", "generator"}
        for key, network in trained.networks.items():
            fresh.networks[key].load_state_dict(network.state_dict())
    assert set(COMPARISON.arm("Ori").build(TINY, split.classes, 0).networks) == {"detector"}


def test_the_classifier_of_radiographs_is_trained_once_and_frozen(split):
    run = Run()
    judge = train_reader(TINY, split, run)
    assert train_reader(TINY, split, run) is judge
    network = judge.networks["classifier"]
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_the_average_box_is_that_of_the_annotations(split):
    system = COMPARISON.arm("average box").train(TINY, split, Run())
    pairs = pairs_of(TINY, split, Run())
    for k in range(6):
        mine = pairs.boxes[pairs.box_label[:, 0] == k, 0]
        expected = mine.mean(0) if len(mine) else torch.zeros(4)
        torch.testing.assert_close(system.networks["boxes"].xyxy[k], expected)


def test_an_arm_is_trained_and_measured(split):
    config = replace(TINY, detector_steps=60)
    for name in ("Ori", "average box"):
        system = COMPARISON.arm(name).train(config, split, Run())
        found = measure_all(system, split, COMPARISON.measures_of(config, split, Run()), 0.0).test
        assert ("cl_best@0.1" in found) == (name == "Ori") and "frechet" not in found
        assert 0 <= found["cl@0.1"] <= 1 and f"cl@0.1/{DISEASES[0]}" in found


def test_the_papers_detector_is_inception_and_the_others_are_small():
    with torch.device("meta"):
        assert isinstance(make_detector(PAPER, 6, 0).backbone, InceptionBackbone)
    small = make_detector(CPU, 6, 0)
    assert sum(p.numel() for p in small.parameters()) < 500_000
    again, other = make_detector(CPU, 6, 0), make_detector(CPU, 6, 1)
    weights = [d.state_dict()["roi_heads.box_head.fc6.weight"] for d in (small, again, other)]
    assert torch.equal(*weights[:2]) and not torch.equal(*weights[1:])


def test_the_generators_images_are_turned_no_further_than_a_patient_may_stand():
    assert isinstance(GENERATORS, Augmentation) and GENERATORS.rotation <= 10
    assert GENERATORS.flip == 0.5 and GENERATORS.brightness == GENERATORS.gamma == 0


def test_pasted_biomarkers_are_no_diseases():
    with pytest.raises(StoreError, match="--data pasted: expected phantom or store"):
        split_of(Source(data="pasted"), TINY, 0)


def test_validation_patients_are_none_of_the_others(split):
    assert np.isin(split.validation, np.concatenate([split.train, split.test])).sum() == 0
    assert np.isin(split.validation, split.store.boxes.row).any()


def test_translations_are_made_in_evaluation_mode_and_the_mode_is_put_back(split):
    modes = []
    network = make_stargan(TINY, 6, 0)[0].train()
    network.register_forward_hook(lambda module, *_: modes.append(module.training))
    batch = pairs_of(TINY, split, Run()).batch(torch.arange(2))
    found = in_own_domain(network, batch)
    assert modes == [False] and network.training and found.shape == batch.image.shape


def test_healthy_images_and_initial_weights_are_those_of_the_seed(split):
    rows = [healthy_images(TINY, split, Run(seed=seed)).index.tolist() for seed in (0, 0, 1)]
    assert rows[0] == rows[1] and rows[0] != rows[2]
    for name in ("Ori + Pix2Pix", "Ori + StarGAN"):
        first, other = (Kept(split, name, seed=s).arm[name][0][1] for s in (0, 1))
        a, b = (task.networks["generator"].state_dict() for task in (first, other))
        assert any(not torch.equal(v, b[k]) for k, v in a.items()), name


def test_the_judge_sees_normal_and_abnormal_images_in_turn(split):
    kept = Kept(split)
    train_reader(TINY, split, kept.run)
    ((name, _, loader, how),) = kept.stages
    batch = next(loader.batches(batch_size=how["batch_size"], seed=0))
    assert name == "classifier" and how["batch_size"] == 16
    assert batch.label_vector.amax(1).tolist() == [0, 1] * 8
