"""The simulated chest radiograph, in which every abnormal image has its exact healthy twin.

    phantom = ChestPhantom(size=256, preset="default", seed=0)
    sample = phantom.sample(torch.arange(8))  # image, healthy, mask, region, boxes, pose, ...

`randomness` numbers that belong to a patient, `patient` and `acquisition` the laws they follow,
`frame` the pose, `shapes` elementary forms, `anatomy`, `skeleton`, `vessels` and `devices` what is
in the beam, `findings` the diseases, `detector` the picture, `annotation` boxes and landmarks,
`presets` how hard the images are, `simulator` all of it together; `fusion` and `threads` make it
quick.
"""

from cxrtut.data.phantom.findings import CLASSES
from cxrtut.data.phantom.presets import PRESETS, Confounder, Preset
from cxrtut.data.phantom.simulator import ChestPhantom, PhantomSample

__all__ = ["CLASSES", "PRESETS", "ChestPhantom", "Confounder", "PhantomSample", "Preset"]
