"""The words of result tables: what a measure and an arm are called, and a sentence that says what
they are. An *arm* is one of the methods or variants that a table compares; all are trained and
measured alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cxrtut.records.measure_words import MEASURES

ARMS: Mapping[str, Mapping[str, str]] = {
    "biomarker": {
        "G-D-C": "The full method: generator, discriminator (a critic) and classifier.",
        "G-D": "Without the classifier: generator and discriminator.",
        "G-C": "Without the discriminator: generator and classifier.",
        "ED": "The encoder-decoder alone: the generator, trained only to copy its input.",
        "G-D-C, direct": "The full method with the paper's own generator: its output is the image.",
        "CAM": "The class activation map of a classifier.",
        "Grad-CAM-1": "Grad-CAM of a classifier at an intermediate convolution.",
        "Grad-CAM-2": "Grad-CAM of a classifier at its last convolution.",
    },
    "disease_masks": {
        "plain": "A classifier on images as they are, without alignment and masks.",
        "aligned": "The classifier on aligned images.",
        "aligned, longer": "Aligned images, trained as long as the arms with masks (our control).",
        "aligned + DM": "The full method: aligned images and learnt disease masks.",
        "aligned + PDM": "Aligned images and pseudo disease masks, which are drawn by hand.",
        "plain + DM": "Masks learnt from images that are not aligned.",
        "DM, no flip": "Learnt masks, without adding the mirror image.",
        "DM, binary": "Learnt masks that are 1 wherever they are above 0.",
        "DM, shared": "One mask for all diseases: the mean of the learnt ones.",
        "centre prior": "A fixed mask that prefers the centre of the image.",
        "plain, BCE": "The plain classifier, trained by a loss without class weights.",
        "Wang": "The ChestX-ray8 baseline of Wang et al.",
        "Cai": "Attention mining by Cai et al., which goes on from the plain classifier.",
        "Liu": "Contrast-induced attention by Liu et al.",
        "Liu, noisy-or": "The method of Liu et al. with a noisy-or from patches to images.",
        "Liu, softmax": "The method of Liu et al. with a softmax over places in its attention.",
        "Liu (boxes)": "The method of Liu et al. when some training images show their boxes.",
        "Li (boxes)": "Limited supervision by Li et al., which sees some boxes of training images.",
        "supervised (boxes)": "A network told where diseases are, in the validation images only.",
        "average box (boxes)": "The mean training box of each disease, whatever the image shows.",
    },
    "pillet_gan": {
        "CheXNet": "The class activation map of CheXNet, a classifier; it makes no images.",
        "VA-GAN": "A map generator and a critic, without domains.",
        "StarGAN": "A generator that makes the image anew in the domain that is asked for.",
        "Fixed-Point GAN": "StarGAN that learns what to add and to leave healthy images alone.",
        "PILLET-GAN": "The full method: a lesion map, with the spatial attention block.",
        "w/o SAB": "PILLET-GAN without the spatial attention block.",
        "no target identity": "PILLET-GAN without the first term of Eq. (8) (our ablation).",
        "no origin identity": "PILLET-GAN without the second term of Eq. (8) (our ablation).",
        "A * G'": "Features times attention, without the residual connection (our ablation).",
        "tanh of the sum": "The tanh around image and map, as in VA-GAN (our ablation).",
    },
    "pix2pix": {
        "Ori": "A detector that learns from the annotated images alone.",
        "Ori + Pix2Pix": "And from images made around their lesions by Pix2Pix.",
        "Ori + Pix2Pix-N": "The full method: a Pix2Pix that has learnt from healthy images, too.",
        "Ori + StarGAN": "The annotated images made anew by StarGAN, with their boxes (ours).",
        "Ori, oversampled": "The annotated images again instead of made ones (our control).",
        "Ori, mirrored": "The annotated images, mirrored half of the time (our control).",
        "Ori, augmented": "The annotated images, mirrored, moved and changed in contrast (ours).",
        "Ori + further patients": "As many real images of other patients, as a reference (ours).",
        "average box": "No network: the mean box of each disease in every image (ours).",
        "Real": "Real images, shown to the readers of Table 1.",
        "StarGAN": "Healthy images that StarGAN has given a disease, in Table 1.",
        "Pix2Pix": "Images of Pix2Pix, in Table 1.",
        "Pix2Pix-N": "Images of Pix2Pix-N, in Table 1.",
    },
    "granet": {
        "RetinaNet": "RetinaNet, on ResNet-50 in the paper.",
        "RetinaNet + DGM": "RetinaNet that also sees the normal image and the residue of DGM.",
        "RetinaNet-dagger": "RetinaNet† of Gabruseva et al., which the paper builds on.",
        "+ align": "RetinaNet-dagger on aligned images.",
        "+ align, attn.": "And features weighted by what a generator would change.",
        "+ align, syn.": "RetinaNet-dagger on aligned images, and normal ones made abnormal.",
        "+ align, attn., syn.": "The full method: alignment, attention and synthetic images.",
        "Faster R-CNN": "Faster R-CNN, a detector of two stages.",
        "SSD": "SSD, a detector of one stage; its loss of images without a box is mended.",
        "YOLOv3": "YOLOv3, a detector of one stage, with anchors that fit the boxes.",
        "PYolo": "YOLOv3 as PYolo may have changed it: only its abstract could be read.",
        "Mask R-CNN": "Mask R-CNN, to which each box is a mask (our control: without alignment).",
        "Mask R-CNN + align": "Mask R-CNN on aligned images.",
        "Mask R-CNN + align, attn.": "The same with features weighted by what a generator changes.",
        "joint": "RetinaNet-dagger and generator move on every batch (Table 3).",
        "1:1": "One epoch of the detector, then one of the generator.",
        "1:2": "One epoch of the detector, then two of the generator.",
        "1:3": "One epoch of the detector, then three of the generator.",
        "2:1": "Two epochs of the detector, then one of the generator.",
        "3:3": "Three epochs of the detector, then three of the generator.",
        "5:1": "Five epochs of the detector, then one of the generator.",
        "attn. of an untrained G": "Attention by a generator without training (our control).",
        "attn., F * A": "Features times attention, without the 1 (our ablation).",
        "attn., G deaf to the detector": "The detector's loss does not reach G (our ablation).",
        "+ align, oversampled": "Annotated images again instead of synthetic ones (our control).",
        "abnormal to normal": "The generator of Eq. (3), before the detector is there.",
        "CycleGAN": "Two generators, there and back, from images without pairs.",
        "MUNIT": "The content of an image in the style of normal ones.",
        "DGM": "A normal image and a residue, told apart by image labels.",
        "2:2": "Two epochs of the detector, then two of the generator: + align, attn.",
    },
}
"""Paper -> arm -> what it is."""


def name_of(measure: str) -> str:
    """What a measure is called in a table; one that has no word keeps its identifier. A measure of
    one class, such as `auroc/Mass`, is called by both: "AUROC, Mass".
    """
    base, _, of_class = measure.partition("/")
    shown = MEASURES[base].name if base in MEASURES else base
    return f"{shown}, {of_class}" if of_class else shown


def explained(measures: Iterable[str]) -> list[dict[str, str]]:
    """The words of some measures with a sentence each, as rows of a table.

    Args:
        measures: identifiers, such as "pixel_ap".

    Raises:
        ValueError: one that has no word; those that have one are named.
    """
    rows = []
    for measure in measures:
        if measure not in MEASURES:
            raise ValueError(f"expected one of {', '.join(MEASURES)}, got {measure!r}")
        rows.append({"measure": MEASURES[measure].name, "what it is": MEASURES[measure].meaning})
    return rows


def explained_arms(paper: str, arms: Iterable[str] | None = None) -> list[dict[str, str]]:
    """The arms of a paper with a sentence each, as rows of a table.

    Args:
        paper: such as "biomarker".
        arms: some of its arms; all by default.

    Raises:
        ValueError: a paper or an arm that has no sentence; those that have one are named.
    """
    if paper not in ARMS:
        raise ValueError(f"paper: expected one of {', '.join(ARMS)}, got {paper!r}")
    known = ARMS[paper]
    for arm in (wanted := list(known if arms is None else arms)):
        if arm not in known:
            raise ValueError(f"arm: expected one of {', '.join(known)}, got {arm!r}")
    return [{"method": arm, "what it is": known[arm]} for arm in wanted]
