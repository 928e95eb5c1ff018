"""What measures are called in result tables, and a sentence for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

THRESHOLDS = (0.3, 0.5, 0.7)
TOLERANCES = (0, 1, 2, 4)  # grey levels of 255
SHARES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # of a change
_KINDS = (
    ("_abnormal", ", P to H", "; images with the disease only (P to H)."),
    ("_normal", ", H to H", "; images without the disease only (H to H)."),
    ("", ", both", "; all images."),
)


@dataclass(frozen=True)
class Word:
    """What an identifier is called in a table, and a sentence that explains it."""

    name: str
    meaning: str


_AP = (
    "Average precision, the area under the precision-recall curve, when each pixel is ranked by "
    "its heat; 1 is perfect."
)
MEASURES: Mapping[str, Word] = {
    "pixel_ap": Word(
        "pixel AP",
        f"{_AP} The heat of each image is first scaled to the range from 0 to 1; then the pixels "
        "of all images are ranked together.",
    ),
    "pixel_ap_global_norm": Word(
        "pixel AP, unscaled", "The pixel AP without scaling the heat of each image first."
    ),
    "pixel_ap_smoothed": Word(
        "pixel AP, smoothed",
        "The pixel AP after each heat map was blurred by a mean over 5 x 5 pixels.",
    ),
    "pixel_ap_image": Word(
        "pixel AP by image",
        "The pixels of each image are ranked on their own; this is the mean over images.",
    ),
    "chance": Word(
        "chance",
        "The share of pixels inside the outlines: the pixel AP that random heat would reach.",
    ),
    "residual_ratio": Word(
        "lesion left",
        "How much of the lesion is still there after a method has removed it, measured against the "
        "same patient without the disease: 0 is none of it, 1 all of it, more than 1 is worse than "
        "doing nothing.",
    ),
    "background_change": Word(
        "change outside",
        "How much a method changes the image outside the lesion, where nothing had to change: the "
        "mean over pixels in grey levels of 255.",
    ),
    "accuracy": Word("accuracy", "The share of images that are classified correctly."),
    "auroc_mean_heat": Word(
        "AUROC, mean heat",
        "The area under the ROC curve when images are ranked by their mean heat: .5 is chance.",
    ),
    "auroc": Word(
        "AUROC",
        "The area under the ROC curve: how often a random image with the disease is ranked above a "
        "random one without; .5 is chance. With several diseases, the mean over them.",
    ),
    "pixel_auroc": Word(
        "pixel AUC",
        "The area under the ROC curve when each pixel is ranked by its heat: how often a pixel "
        "inside the outlines is hotter than one outside; .5 is chance. The heat of each image is "
        "first scaled to the range from 0 to 1; then the pixels of all images are ranked together.",
    ),
    "pixel_auroc_image": Word(
        "pixel AUC by image",
        "The pixel AUC of each image on its own; this is the mean over images.",
    ),
    "auroc_max_heat": Word(
        "AUROC, largest heat",
        "The area under the ROC curve when images are ranked by their largest heat: .5 is chance.",
    ),
    "pixel_ap_others": Word(
        "pixel AP, others' map",
        "The pixel AP when each image is given the mean map of all other images, which has not "
        "seen it: what knowing the usual places is worth.",
    ),
    "pixel_ap_twin": Word(
        "pixel AP, healthy twin",
        "The pixel AP of the difference to the true healthy twin: the most that can be expected, "
        "since a lesion fades towards its outline.",
    ),
    "likeness_to_others": Word(
        "likeness to others",
        "How alike the map of an image and the mean map of the others are, as a correlation over "
        "the pixels; the mean over images.",
    ),
    "randomised_likeness": Word(
        "likeness without learning",
        "Whether the map changes when the numbers of each layer are put in a random order: the "
        "rank correlation over the pixels before and after. Near 1 it shows the image, and not "
        "what was learnt.",
    ),
    "twin_error": Word(
        "distance to the twin",
        "How far the pseudo-healthy image is from the same patient without the disease: the mean "
        "over pixels in grey levels of 255.",
    ),
    "twin_error_untouched": Word(
        "distance to the twin, untouched",
        "The same distance for the image as it was: what a method reaches that does nothing.",
    ),
    "change_on_normal": Word(
        "change of normal images",
        "How much a method changes an image that has no disease, where nothing had to change: the "
        "mean over pixels in grey levels of 255.",
    ),
    **{
        f"{name}{kind}": Word(
            f"{shown}{which.removesuffix(end)}", f"{meaning}{of.replace(end, '') if end else of}"
        )
        for name, end, shown, meaning in (
            (
                "translated",
                "",
                "passes for healthy",
                "The share of images translated to healthy that the judge, a frozen classifier, "
                "calls healthy",
            ),
            (
                "judge",
                " to H",
                "judge is right",
                "The share of images as they were, not translated, that the judge classifies "
                "correctly",
            ),
        )
        for kind, which, of in _KINDS
    },
    **{
        f"pixel_change{kind}@{t}": Word(
            f"pixels changed{which}" + (f", by more than {t}" if t else ""),
            "The share of pixels that a translation to healthy changes"
            + (f" by more than {t} of 255 grey levels" if t else " by at least one grey level")
            + of,
        )
        for t in TOLERANCES
        for kind, which, of in _KINDS
    },
    **{
        f"flipped@{share:g}": Word(
            f"flipped at {share:g}",
            "Of the abnormal images that the judge calls abnormal, the share that it calls healthy "
            f"once {share:g} times the change is added to them.",
        )
        for share in SHARES
    },
    "false_positives": Word(
        "false boxes",
        "Boxes an image that meet no true box at an IoU of .3, with one box for each disease that "
        "the method predicts.",
    ),
    **{
        f"loc_acc@{t}": Word(
            f"found, IoU > {t}",
            "The share of pairs of an image and a disease whose true box and predicted box overlap "
            f"with an intersection over union above {t}, averaged over diseases. Only pairs with "
            "a true box count.",
        )
        for t in THRESHOLDS
    },
    **{
        f"loc_acc_chosen@{t}": Word(
            f"chosen cut, IoU > {t}",
            f"The share found at an IoU above {t} when each disease has the cut that was best on "
            "the validation images: what somebody with a few boxes can expect.",
        )
        for t in THRESHOLDS
    },
    **{
        f"region_acc{end}@{t}": Word(
            f"region{shown}, IoU ≥ {t}",
            "The share of pairs in which all places with a probability above .5 together overlap "
            f"the true boxes with an intersection over union of {t} or more (the protocol of Li "
            f"and Liu){where}; the mean over diseases.",
        )
        for end, shown, where in (
            ("", "", ""),
            ("_aligned", " (aligned)", ", both in the aligned image"),
        )
        for t in THRESHOLDS
    },
    **{
        f"cl@{t}": Word(
            f"correct location, IoU ≥ {t}",
            "The share of pairs of an image and a disease that it has, whose surest box of that "
            f"disease overlaps a true box with an intersection over union of {t} or more; the mean "
            "over diseases.",
        )
        for t in (0.1, 0.3, 0.5)
    },
    **{
        f"cl@0.1_{end}": Word(
            f"correct location, {end}",
            f"The {kind} end of the 95 % interval of the correct location at an IoU of .1 over "
            "patients (bootstrap).",
        )
        for end, kind in (("low", "lower"), ("high", "upper"))
    },
    "cl_any@0.1": Word(
        "any box, IoU ≥ 0.1",
        "The correct location at an IoU of .1 when any box of the disease may be the hit, however "
        "unsure: more boxes never lower it.",
    ),
    "cl_best@0.1": Word(
        "best checkpoint, IoU ≥ 0.1",
        "The correct location at an IoU of .1 of the best of the last five checkpoints, of each "
        "disease by its own, found on the very images that are scored. It flatters, and no claim "
        "rests on it.",
    ),
    "taken_for_real": Word(
        "taken for real",
        "The share of added images that a network takes for real. It has learnt, from images of "
        "other patients, to tell them from real ones, and is as lenient as to take 95 % of real "
        "images for real.",
    ),
    "frechet": Word(
        "Frechet distance",
        "How far the added images are from as many real ones of other patients: the Frechet "
        "distance between the features that a classifier of radiographs gives them; 0 for the same "
        "mean and covariance. It depends on the number of images.",
    ),
    "kernel": Word(
        "kernel distance",
        "How far the added images are from real ones of other patients: the kernel distance "
        "(squared maximum mean discrepancy) between the same features; about 0 for images of one "
        "kind.",
    ),
    "box_change": Word(
        "change in the box",
        "The largest change of a pixel in the box of an added image, against the image it was made "
        "from, in grey levels of 255; the mean over images.",
    ),
    "map@0.1": Word(
        "mAP, IoU ≥ 0.1",
        "Average precision of boxes: all boxes of a disease in all images, from the surest down, "
        "right where they overlap a true box with an IoU of .1 or more, which each true box grants "
        "once; the mean over diseases. Unlike the correct location it counts boxes that lie where "
        "nothing is.",
    ),
    **{
        f"{name}{end}": Word(f"{shown}{which}", f"{meaning}{of}")
        for name, shown, meaning in (
            (
                "rsna_map",
                "mAP (RSNA)",
                "Of each image the share of right boxes among all boxes, predicted and missed ones "
                "together, and the mean over images with any box; boxes with a score that was best "
                "on other patients or a higher one",
            ),
            (
                "precision_map",
                "precision (RSNA)",
                "Of each image the share of right boxes among the predicted ones, 0 where there is "
                "none but a true one; the mean over images with any box",
            ),
            (
                "voc_ap",
                "average precision",
                "Boxes from the surest down: the area under the curve of precision over recall",
            ),
        )
        for end, which, of in (
            ("", "", "; the mean over the overlaps that the paper has."),
            *(
                (f"@{t}", f", IoU {t}", f". A box is right at an IoU of {t}.")
                for t in (0.4, 0.5, 0.6)
            ),
        )
    },
    "rsna_map_oracle": Word(
        "mAP (RSNA), best score",
        "The mAP (RSNA) with the score that is best on the images themselves: an upper bound, not "
        "a result.",
    ),
    **{
        f"box_froc@{rate}": Word(
            f"FROC of boxes at {rate}",
            f"The share of true boxes found (IoU > .4) at {rate} false boxes an image, when boxes "
            "are ranked by their score.",
        )
        for rate in (0.05, 0.1, 0.2)
    },
    "max_box_acc": Word(
        "MaxBoxAccV2",
        "The share of pairs with a box of an IoU of at least T, from any region of the heat map, "
        "at the cut that is best for all pairs together; the mean over T of .3, .5 and .7.",
    ),
    **{
        f"loc_acc_{size}": Word(
            f"found, {size}",
            f"The share found at an IoU above .3 of {size} lesions only: those as large as a "
            f"square whose side is {side} of the image's.",
        )
        for size, side in (
            ("small", "up to an eighth"),
            ("medium", "between an eighth and a quarter"),
            ("large", "more than a quarter"),
        )
    },
    **{
        f"pairs_{size}": Word(f"pairs, {size}", f"How many {size} lesions there are.")
        for size in ("small", "medium", "large")
    },
    **{
        f"froc@{rate}": Word(
            f"FROC at {rate}",
            f"The share of true boxes found (IoU > .3) at {rate} false boxes an image, when boxes "
            "are ranked by their heat; the mean over diseases.",
        )
        for rate in (0.05, 0.1, 0.2)
    },
    **{
        f"loc_acc_any@{t}": Word(
            f"any box, IoU > {t}",
            f"The share found at an IoU above {t} when any region of the heat map, at either of "
            "two cuts, may be the one that overlaps (the protocol of ChestX-ray8).",
        )
        for t in THRESHOLDS
    },
    **{
        f"loc_acc_oracle@{t}": Word(
            f"best cut, IoU > {t}",
            f"The share found at an IoU above {t} with the best cut of each disease, chosen on the "
            "very boxes that are scored: an upper bound, not a result.",
        )
        for t in THRESHOLDS
    },
    **{
        f"{name}_{when}": Word(f"{shown}, {when}", f"{meaning} This is {when} alignment.")
        for name, shown, meaning in (
            (
                "anchor_distance",
                "distance from anchor",
                "The mean difference between a blurred image and the anchor, in [0, 2].",
            ),
            (
                "pose_error",
                "pose error (cm)",
                "How far apart, in cm of patient, one point of the image lies in the patients.",
            ),
            (
                "field_of_view_cm",
                "field of view (cm)",
                "Centimetres of patient that an image shows.",
            ),
            (
                "relative_pose_error",
                "relative pose error",
                "The pose error as a share of the field of view, because zooming in makes the "
                "error in cm smaller without aligning anything.",
            ),
        )
        for when in ("before", "after")
    },
}
