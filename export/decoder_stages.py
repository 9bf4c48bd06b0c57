"""The decoder in two calls, for TFLite: its shapes are fixed, so it cannot leave masks out like `SelectiveDecoder`."""

from torch import Tensor, nn

from tinysam.export.decoder_graph import DecoderGraph


class AttendStage(nn.Module):
    """First half of a decoder in two calls, for prompts without a mask: all but the upscaling."""

    def __init__(self, decoder: DecoderGraph) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, image_embeddings: Tensor, point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, ...]:
        return self.decoder.attend(image_embeddings, self.decoder.mask_prompt.no_mask, point_coords, point_labels)


class UpscaleStage(nn.Module):
    """Second half of a decoder in two calls."""

    def __init__(self, decoder: DecoderGraph) -> None:
        super().__init__()
        self.upscaling = decoder.upscaling

    def forward(self, cells: Tensor, mask_weights: Tensor) -> Tensor:
        masks: Tensor = self.upscaling(cells, mask_weights)
        return masks
