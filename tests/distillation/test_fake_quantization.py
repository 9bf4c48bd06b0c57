import torch
from torch import nn
from torch.nn import functional as F

from tinysam.distillation.fake_quantization import RoundedConv2d, fake_quantize, round_activations, round_weights
from tinysam.models import get_variant, load


def test_weights_are_rounded_as_torch_rounds_them_for_each_channel():
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[2] = 0
    scales = weight.abs().amax((1, 2, 3)).clamp(min=1e-6) / 127
    expected = torch.fake_quantize_per_channel_affine(weight, scales, torch.zeros(6, dtype=torch.int32), 0, -127, 127)
    torch.testing.assert_close(round_weights(weight), expected)


def test_activations_are_rounded_as_torch_rounds_them():
    x = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)) + 0.7
    scale = ((x.max() - x.min()) / 255).item()
    zero = round(-x.min().item() / scale)
    torch.testing.assert_close(round_activations(x), torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255))
    assert len(round_activations(torch.rand(5000)).unique()) <= 256
    assert round_activations(torch.zeros(3)).tolist() == [0, 0, 0]


def test_gradients_pass_as_if_nothing_had_been_rounded():
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    conv = RoundedConv2d(3, 5, 3)
    conv(x).sum().backward()
    rounded_x = round_activations(x.detach()).requires_grad_()
    rounded_weight = round_weights(conv.weight.detach()).requires_grad_()
    F.conv2d(rounded_x, rounded_weight, conv.bias.detach()).sum().backward()
    torch.testing.assert_close(x.grad, rounded_x.grad)
    torch.testing.assert_close(conv.weight.grad, rounded_weight.grad)


def test_a_rounded_encoder_is_close_to_its_float_self_and_has_the_same_parameters():
    model = load(get_variant("nano"), None, 224)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    names, decoder = list(model.state_dict()), [type(module) for module in model.mask_decoder.modules()]
    with torch.no_grad():
        exact = model.encode(image)
        fake_quantize(model.image_encoder)
        rounded = model.encode(image)
    assert list(model.state_dict()) == names
    assert [type(module) for module in model.mask_decoder.modules()] == decoder
    exact_layers = {n for n, m in model.image_encoder.named_modules() if type(m) in (nn.Conv2d, nn.Linear)}
    assert all("patch_embed" in name or "downsample" in name or "local_conv" in name for name in exact_layers)
    assert len(exact_layers) == 2 + 3 * 3 + 10  # before the stages, between them, one of each attention block
    assert 0.9 < F.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0).item() < 0.99999


def test_what_a_bottleneck_gives_to_gelu_is_rounded_and_what_it_gives_to_the_stream_is_not():
    block = load(get_variant("nano"), None, 224).image_encoder.layers[0].blocks[0]
    fake_quantize(block)
    x = torch.randn(1, block.conv1.c.in_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        results = block.conv1(x), block.conv2(F.gelu(block.conv1(x))), block.conv3(F.gelu(block.conv1(x)))
    assert [len(result.unique()) <= 256 for result in results] == [True, True, False]
