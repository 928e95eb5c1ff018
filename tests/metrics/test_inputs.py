"""What every measure refuses, over all of them."""

import importlib
import inspect
import pkgutil

import pytest
import torch

from cxrtut import metrics
from cxrtut.metrics import (
    box_change,
    box_precision,
    box_thresholds,
    classification,
    correct_location,
    counterfactual,
    detection,
    feature_distance,
    froc,
    intervals,
    pixels,
    proportions,
    rsna_map,
    sameness,
)
from cxrtut.metrics.inputs import check_positions

F = torch.tensor([0.1, 0.4, 0.3, 0.2])
B = torch.tensor([True, False, True, False])
MAPS, MASKS = F.view(1, 2, 2), B.view(1, 2, 2)
IMAGE, CLASS = F.view(1, 1, 2, 2), torch.tensor([0, 1, 0, 1])
BOXES = torch.tensor([[0.0, 0.0, 2.0, 2.0]])

# Right arguments, in the order of the signature. Of each, tensors of floats, bools and integers
# (and lists of tensors) are replaced by wrong ones.
MEASURES = {
    classification.auroc: (F, B),
    classification.auroc_by_class: (F[:, None], B[:, None]),
    pixels.precision_recall_curve: (F, B),
    pixels.average_precision: (F, B),
    pixels.pixel_average_precision: (MAPS, MASKS),
    pixels.image_average_precision: (MAPS, MASKS),
    pixels.pixel_auroc: (MAPS, MASKS),
    pixels.image_auroc: (MAPS, MASKS),
    pixels.pixel_prevalence: (MASKS,),
    pixels.pointing_game: (MAPS, MASKS),
    counterfactual.residual_lesion_ratio: (IMAGE, IMAGE + 1, IMAGE, MASKS),
    counterfactual.background_change: (IMAGE, IMAGE, MASKS),
    counterfactual.pixel_change_rate: (IMAGE, IMAGE),
    detection.iou_matrix: (BOXES, BOXES),
    detection.best_iou: ([BOXES], [BOXES]),
    detection.localisation_accuracy: (F, 0.5),
    detection.accuracy_by_class: (F, CLASS, 2, 0.5),
    detection.macro_mean: (F,),
    detection.average_false_positives: ([BOXES], [BOXES], 0.5, 1),
    detection.oracle_threshold: (F[None], CLASS, 2, 0.5),
    box_thresholds.chosen_thresholds: (F[None], CLASS, 2, 0.5),
    box_thresholds.accuracy_with: (F[None], CLASS, torch.tensor([0, 0]), 0.5),
    box_thresholds.max_box_accuracy: (F[None],),
    correct_location.correct_location: (F, CLASS, 2, 0.5),
    box_change.box_change: (IMAGE, IMAGE, MASKS),
    box_precision.box_average_precision: ([BOXES], [F[:1]], [BOXES], 0.5),
    feature_distance.frechet_distance: (F.view(2, 2), F.view(2, 2)),
    feature_distance.kernel_distance: (F.view(2, 2), F.view(2, 2)),
    froc.froc: ([BOXES], [F[:1]], [BOXES], 0.5, 1),
    intervals.bootstrap_interval: (F, 0),
    rsna_map.rsna_map: ([BOXES], [BOXES]),
    rsna_map.precision_map: ([BOXES], [BOXES]),
    rsna_map.kernel_map: ([BOXES], [BOXES]),
    sameness.mean_of_others: (F.view(2, 1, 2),),
    sameness.likeness_to_others: (F.view(2, 1, 2),),
    sameness.rank_correlation: (F.view(2, 1, 2), F.view(2, 1, 2)),
}
WITHOUT_TENSORS = {
    classification.hanley_standard_error, pixels.step_area, pixels.trapezoid_area, pixels.best_f1,
    intervals.mean_and_margin, proportions.wilson_interval,
}  # fmt: skip
NAN_IS_LEFT_OUT = {detection.macro_mean, intervals.bootstrap_interval}


def public_functions():
    for module in pkgutil.iter_modules(metrics.__path__, f"{metrics.__name__}."):
        if not module.name.endswith(".inputs"):
            found = vars(importlib.import_module(module.name)).items()
            for name, value in found:
                here = getattr(value, "__module__", "") == module.name
                if here and inspect.isfunction(value) and not name.startswith("_"):
                    yield value


def test_every_measure_is_asked_here():
    assert set(public_functions()) == set(MEASURES) | WITHOUT_TENSORS


def changed(change):
    """(measure, arguments, position): each argument that is of tensors, changed in turn."""
    for measure, arguments in MEASURES.items():
        for position, argument in enumerate(arguments):
            tensor = argument[0] if isinstance(argument, list) else argument
            if not isinstance(tensor, torch.Tensor):
                continue
            wrong = change(tensor)
            if wrong is None:
                continue
            wrong = [wrong] if isinstance(argument, list) else wrong
            yield pytest.param(
                measure, (*arguments[:position], wrong, *arguments[position + 1 :]),
                list(inspect.signature(measure).parameters)[position],
                id=f"{measure.__name__}-{position}",
            )  # fmt: skip


@pytest.mark.parametrize(("measure", "arguments"), MEASURES.items())
def test_the_right_arguments_are_taken(measure, arguments):
    inspect.unwrap(measure)(*arguments)


def other_types(x):
    return [t for t in (torch.bool, torch.uint8, torch.int64, torch.float32) if t != x.dtype]


@pytest.mark.parametrize("kind", range(3))
def test_an_argument_of_another_type_is_named_and_never_measured(kind):
    def change(x):
        kinds = other_types(x)
        if not (x.is_floating_point() or x.dtype == torch.bool):  # any integers are positions
            kinds = [torch.bool, torch.float32, torch.float64]
        return x.to(kinds[kind])

    for case in changed(change):
        measure, arguments, name = case.values
        with pytest.raises(TypeError, match=rf"{name}.*: expected .*, got torch\."):
            inspect.unwrap(measure)(*arguments)


def test_an_argument_that_is_no_tensor_is_named():
    for case in changed(lambda x: x.numpy()):
        measure, arguments, name = case.values
        with pytest.raises(TypeError, match=rf"{name}.*: expected .*, got ndarray"):
            inspect.unwrap(measure)(*arguments)


def test_an_argument_of_another_shape_is_named():
    for case in changed(lambda x: x[None]):
        measure, arguments, name = case.values
        with pytest.raises(ValueError, match=rf"{name}.*: expected .*, got .*"):
            inspect.unwrap(measure)(*arguments)


@pytest.mark.parametrize("truth", [[0, 1, 1, 0], [0, -1, 1, 1], [2, 0, 1, 0]])
def test_labels_of_numbers_are_told_what_makes_bools(truth):
    for measure in (classification.auroc, pixels.average_precision):
        with pytest.raises(TypeError, match=r"positive: expected torch.bool, .*labels == 1 makes"):
            inspect.unwrap(measure)(F, torch.tensor(truth))


def test_scores_and_pixels_that_are_nan_are_refused_by_every_measure():
    def change(x):
        if not x.is_floating_point():
            return None
        x = x.clone()
        x.view(-1)[-1] = torch.nan
        return x

    for case in changed(change):
        measure, arguments, name = case.values
        if measure in NAN_IS_LEFT_OUT:
            inspect.unwrap(measure)(*arguments)
            continue
        with pytest.raises(ValueError, match=rf"{name}.*: expected .*, got .*(NaN|nan)"):
            inspect.unwrap(measure)(*arguments)


def test_half_precision_and_double_precision_are_floats():
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert classification.auroc(F.to(dtype), B) == classification.auroc(F, B)
        assert pixels.average_precision(F.to(dtype), B) == pixels.average_precision(F, B)


def test_any_integers_are_positions():
    for dtype in (torch.uint8, torch.int32, torch.int64):
        check_positions("class_index", CLASS.to(dtype), (4,))


def test_numbers_that_cannot_be_are_named():
    with pytest.raises(ValueError, match=r"area: expected a number in \[0, 1\], got 1.5"):
        classification.hanley_standard_error(1.5, 3, 3)
    with pytest.raises(ValueError, match="n1, n0: expected numbers of images, got -1 and 3"):
        classification.hanley_standard_error(0.5, -1, 3)
    for strange in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"values: expected finite values, got {strange}"):
            intervals.mean_and_margin([0.5, strange])
