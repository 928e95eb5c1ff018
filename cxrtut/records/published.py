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

# Kim, Jung and Lee, arXiv:2101.09915. Classes of Tables 1, 2 and 4; the last number is the mean.
DISEASE_MASK_CLASSES = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "mean",
)  # fmt: skip
# Tables 1 and 2: share of boxes found at an IoU above T.
DISEASE_MASKS = MappingProxyType(
    {
        "loc_acc@0.3": MappingProxyType(
            {
                "Wang": (0.24, 0.46, 0.30, 0.28, 0.15, 0.04, 0.17, 0.13, 0.22),
                "Cai": (0.33, 0.85, 0.34, 0.28, 0.33, 0.11, 0.39, 0.16, 0.35),
                "Liu": (0.34, 0.71, 0.39, 0.65, 0.48, 0.09, 0.16, 0.20, 0.38),
                "plain": (0.30, 0.82, 0.32, 0.21, 0.35, 0.10, 0.19, 0.20, 0.31),
                "aligned": (0.37, 0.80, 0.37, 0.41, 0.40, 0.11, 0.25, 0.22, 0.37),
                "aligned + PDM": (0.34, 0.90, 0.44, 0.45, 0.43, 0.12, 0.31, 0.45, 0.43),
                "aligned + DM": (0.40, 0.97, 0.40, 0.58, 0.50, 0.14, 0.40, 0.38, 0.47),
            }
        ),
        "loc_acc@0.5": MappingProxyType(
            {
                "Wang": (0.05, 0.18, 0.11, 0.07, 0.01, 0.01, 0.03, 0.03, 0.06),
                "Cai": (0.11, 0.60, 0.10, 0.12, 0.07, 0.03, 0.17, 0.08, 0.16),
                "Liu": (0.19, 0.53, 0.19, 0.47, 0.33, 0.03, 0.08, 0.11, 0.24),
                "plain": (0.10, 0.60, 0.13, 0.15, 0.13, 0.01, 0.10, 0.12, 0.17),
                "aligned": (0.17, 0.64, 0.20, 0.18, 0.28, 0.03, 0.09, 0.11, 0.21),
                "aligned + PDM": (0.16, 0.75, 0.22, 0.20, 0.30, 0.03, 0.09, 0.20, 0.24),
                "aligned + DM": (0.18, 0.80, 0.21, 0.25, 0.35, 0.05, 0.15, 0.16, 0.27),
            }
        ),
        "loc_acc@0.7": MappingProxyType(
            {
                "Wang": (0.01, 0.03, 0.02, 0.00, 0.00, 0.00, 0.01, 0.02, 0.01),
                "Cai": (0.01, 0.17, 0.01, 0.02, 0.01, 0.00, 0.02, 0.02, 0.03),
                "Liu": (0.08, 0.30, 0.09, 0.25, 0.19, 0.01, 0.04, 0.07, 0.13),
                "plain": (0.06, 0.21, 0.04, 0.07, 0.03, 0.00, 0.02, 0.03, 0.06),
                "aligned": (0.08, 0.35, 0.10, 0.07, 0.04, 0.01, 0.06, 0.05, 0.10),
                "aligned + PDM": (0.07, 0.40, 0.12, 0.08, 0.05, 0.01, 0.05, 0.12, 0.11),
                "aligned + DM": (0.08, 0.41, 0.11, 0.11, 0.10, 0.01, 0.08, 0.11, 0.13),
            }
        ),
        # Table 4: area under the ROC curve.
        "auroc": MappingProxyType(
            {
                "plain": (0.75, 0.90, 0.80, 0.70, 0.81, 0.78, 0.71, 0.86, 0.79),
                "aligned": (0.77, 0.90, 0.83, 0.70, 0.82, 0.79, 0.72, 0.88, 0.80),
                "aligned + DM": (0.79, 0.91, 0.84, 0.71, 0.85, 0.81, 0.73, 0.89, 0.82),
            }
        ),
    }
)
# Table 3, area under the ROC curve of 14 classes: Wang, Cai, Li (boxes), Liu (boxes), theirs.
DISEASE_MASKS_14 = MappingProxyType(
    {
        "Atelectasis": (0.70, 0.75, 0.80, 0.79, 0.79),
        "Cardiomegaly": (0.81, 0.86, 0.87, 0.87, 0.91),
        "Effusion": (0.76, 0.81, 0.87, 0.88, 0.84),
        "Infiltration": (0.66, 0.67, 0.70, 0.69, 0.71),
        "Mass": (0.69, 0.80, 0.83, 0.81, 0.85),
        "Nodule": (0.67, 0.76, 0.75, 0.73, 0.81),
        "Pneumonia": (0.66, 0.70, 0.67, 0.75, 0.73),
        "Pneumothorax": (0.80, 0.85, 0.87, 0.89, 0.89),
        "Consolidation": (0.70, 0.69, 0.80, 0.79, 0.74),
        "Edema": (0.81, 0.83, 0.88, 0.91, 0.86),
        "Emphysema": (0.83, 0.91, 0.91, 0.93, 0.95),
        "Fibrosis": (0.79, 0.80, 0.78, 0.80, 0.84),
        "Pleural_Thickening": (0.68, 0.75, 0.79, 0.80, 0.80),
        "Hernia": (0.87, 0.53, 0.77, 0.92, 0.88),
        "mean": (0.74, 0.77, 0.81, 0.83, 0.83),
    }
)
