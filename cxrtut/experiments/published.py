"""The numbers that the papers print, with their place; nothing here is ours."""

from types import MappingProxyType

# Zhang et al., MICCAI 2019: area under the pixel precision-recall curve.
BIOMARKER = MappingProxyType(
    {
        "retina": MappingProxyType(  # Fig. 3 and Section 3.3
            {
                "G-D-C": 0.481,
                "ED": 0.083,
                "CAM": 0.065,
                "Grad-CAM-1": 0.061,
                "Grad-CAM-2": 0.042,
            }
        ),
        "skin": MappingProxyType(  # Section 3.3, Fig. 5
            {"G-D-C": 0.397, "CAM": 0.075, "Grad-CAM-1": 0.146, "Grad-CAM-2": 0.009}
        ),
    }
)
# Section 3.1: positive to negative pixels, 1:56 and 1:88.
BIOMARKER_CHANCE = MappingProxyType({"retina": 1 / 57, "skin": 1 / 89})
