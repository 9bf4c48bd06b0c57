"""SAM's two-way transformer between prompt tokens and image cells."""

from torch import Tensor, nn
from torch.nn import functional as F

from tinysam.models.layers import MLPBlock


class Attention(nn.Module):
    """Multi-head attention whose inner width is `dim // downsample`."""

    def __init__(self, dim: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        self.heads = heads
        inner = dim // downsample
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def split(self, x: Tensor) -> Tensor:
        """(P, L, inner) -> (P, heads, L, inner / heads)."""
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """q (P, Lq, dim), k and v (P, Lk, dim), mask (P, 1, 1, Lk) bool: which keys may be seen."""
        q, k, v = self.split(self.q_proj(q)), self.split(self.k_proj(k)), self.split(self.v_proj(v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class TwoWayBlock(nn.Module):
    """Token self-attention, tokens to image, token MLP, image to tokens; post-norm throughout."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, heads, downsample=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLPBlock(dim, mlp_dim, nn.ReLU)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, heads, downsample=2)

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, mask)
        else:
            q = tokens + token_pe
            tokens = tokens + self.self_attn(q, q, tokens, mask)
        tokens = self.norm1(tokens)
        tokens = tokens + self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        tokens = self.norm2(tokens)
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = image + self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens, mask)
        return tokens, self.norm4(image)


class TwoWayTransformer(nn.Module):
    """Two blocks and a last attention from the tokens to the image."""

    def __init__(self, dim: int = 256, depth: int = 2, heads: int = 8, mlp_dim: int = 2048) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, heads, mlp_dim, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(
        self, image: Tensor, image_pe: Tensor, token_pe: Tensor, present: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Lets tokens and image exchange information.

        Args:
            image: (P, L, dim) image cells.
            image_pe: (1, L, dim) their position encoding.
            token_pe: (P, T, dim) tokens; also added to every query and key made from tokens.
            present: (P, T) bool, False for tokens that must not be seen; None if all are.

        Returns:
            Tokens (P, T, dim) and image cells (P, L, dim).
        """
        mask = None if present is None else present[:, None, None, :]
        tokens = token_pe
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe, mask)
        tokens = tokens + self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens), image
