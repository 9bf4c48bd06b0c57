"""The registry of model variants: sizes, checkpoints, and the defaults that belong to a model rather than to code."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tinysam.models.encoder import EncoderSizes
from tinysam.models.repvit import RepViTSizes
from tinysam.models.sam import Sam
from tinysam.models.tinyvit import TinyViTSizes
from tinysam.models.vit import ViTSizes


@dataclass(frozen=True)
class Variant:
    """A model people can name on the command line."""

    name: str
    encoder: EncoderSizes
    """Sizes of the image encoder; their class says which kind it is, and what its edge graph is."""
    image_size: int
    """Default side of the model's input in pixels."""
    single_mask: bool
    """Whether mask token 0 (one unambiguous mask) was trained; TinySAM always gives masks 1 to 3."""
    embedded: str | None = None
    """File under `models/weights/` with the weights that come with the project."""
    mask_choice: str = "single"
    """Which mask a prompt gets, see `tinysam.runtime.mask_choice.choose_mask`."""
    cleaning: Mapping[str, float] = field(default_factory=dict)
    """Smallest shares of a mask's area below which `islands` are removed and `holes` filled, chosen on real images."""
    zoom_in: Mapping[str, float] = field(default_factory=dict)
    """Sides of the windows in which objects are looked at closer, see `tinysam.runtime.zoom`, chosen on real images."""
    decoder_mlp_dim: int = 2048
    """Hidden width of the token MLPs in the decoder's transformer."""
    box_masks: bool = False
    """Whether it was trained with boxes that go in as filled masks as well, and should be used so."""
    everything: Mapping[str, float] = field(default_factory=dict)
    """Thresholds of segment-everything that differ from SAM's, chosen on real images (names as in the manifest)."""

    @property
    def teacher_only(self) -> bool:
        """Whether it is too large for the devices this project is about: it has no edge graph."""
        return self.encoder.edge_graph is None


TINYVIT_5M = TinyViTSizes(dims=(64, 128, 160, 320))
TINYVIT_NANO = TinyViTSizes(dims=(32, 64, 128, 160), heads=(1, 2, 4, 5))
REPVIT_M1_FUSED = RepViTSizes(dims=(48, 96, 192, 384), depths=(3, 4, 16, 3), fused=True, norms="branches")
REPVIT_M2_3 = RepViTSizes(dims=(80, 160, 320, 640), depths=(7, 8, 36, 3), fused=False, norms="sum")

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(
            "nano",
            TINYVIT_NANO,
            448,
            single_mask=True,
            embedded="nano.safetensors",
            decoder_mlp_dim=1024,
            box_masks=True,
            mask_choice="steady",
            cleaning={"islands": 0.2, "holes": 0.1},
            zoom_in={"box": 1.8, "mask": 2.0},
            # Chosen on validation photographs: its predicted IoU seldom reaches SAM's 0.88.
            everything={
                "pred_iou_thresh": 0.3,
                "stability_score_thresh": 0.5,
                "coarse_logit_thresh": 2.0,
                "coarse_agreement": 20,
                "coarse_share": 0.36,
            },
        ),
        Variant("tinysam", TINYVIT_5M, 1024, single_mask=False, mask_choice="best"),
        Variant("mobilesam", TINYVIT_5M, 1024, single_mask=True),
        Variant(
            "edgesam",
            REPVIT_M1_FUSED,
            1024,
            single_mask=True,
            mask_choice="stability",
            # Its mask generator tests the stability score in place of the predicted IoU, which was not distilled.
            everything={"pred_iou_thresh": 0.0},
        ),
        Variant("repvitsam", REPVIT_M2_3, 1024, single_mask=True),
        Variant("sam_vit_b", ViTSizes(768, 12, 12, (2, 5, 8, 11)), 1024, single_mask=True),
        Variant("sam_vit_l", ViTSizes(1024, 24, 16, (5, 11, 17, 23)), 1024, single_mask=True),
        Variant("sam_vit_h", ViTSizes(1280, 32, 16, (7, 15, 23, 31)), 1024, single_mask=True),
    )
}


def get_variant(name: str) -> Variant:
    """The variant of this name; ValueError names the known ones."""
    if name not in VARIANTS:
        raise ValueError(f"unknown variant {name!r}: expected one of {', '.join(VARIANTS)}")
    return VARIANTS[name]


def exported_variants() -> list[str]:
    """Names of the variants that can be exported."""
    return [variant.name for variant in VARIANTS.values() if not variant.teacher_only]


def check_image_size(variant: Variant, image_size: int) -> None:
    """Raises ValueError for an input size that the encoder cannot take."""
    try:
        variant.encoder.check_image_size(image_size)
    except ValueError as error:
        raise ValueError(f"{variant.name}: {error}") from None


def build(variant: Variant, image_size: int | None = None) -> Sam:
    """The model of this variant with freshly initialized parameters, in evaluation mode."""
    size = variant.image_size if image_size is None else image_size
    check_image_size(variant, size)
    return Sam(variant.encoder.build(size), size, variant.decoder_mlp_dim).eval()
