"""What one step minimizes: supervised, decoupled or full-stage.

1. `supervised`: what each of the decoder's outputs is asked to be, from masks alone. For every mask k of a prompt, with
   logits read at random points (`points`):

       L_k = 1/2 cross_entropy_k + 2 dice_k

   Dice leads because it is what the IoU asks for: where a click leaves the extent of the object open, cross-entropy
   alone draws the line at a probability of 1/2, too tight for the best mean IoU. Mask 0 (unambiguous) has weight 1 on
   boxes and on several clicks, and FIRST_CLICK on a single click. Masks 1 to 3 (ambiguous): `losses.of_three`; other
   annotated masks that hold the click are answers as well.
2. `full_stage`: the student follows the teacher at every stage (TinySAM, arXiv:2312.13789, section 3.1).

       L = a embedding_l1 + b token_l1 + c H mask_l1 + d focal + e dice + f iou_l1

   to the teacher's embedding, output tokens, masks and predicted IoU, and (focal, dice) to the truth. To the truth,
   mask 0 is compared on unambiguous prompts, masks 1 to 3 as in `supervised`. H is 1, or the hard mask weight by the
   best of each model's masks. The paper does not publish its weights. Ours give every term about the same gradient in
   the encoder of a student half-way, and the embedding as much as the others together; SAM's 20 for focal belongs to a
   mean over all pixels, most of them easy, and at points near the object would outweigh all others together.
3. The classes run a step: encode, decode round after round (`rounds`), sum up.
"""

from typing import Protocol

import torch
from torch import Tensor

from tinysam.distillation import losses
from tinysam.distillation.device import Device, images
from tinysam.distillation.losses import logits_at
from tinysam.distillation.recipe import Recipe
from tinysam.distillation.rounds import Prompt, chosen_masks, round_count, rounds
from tinysam.distillation.samples import Batch
from tinysam.distillation.teacher import TeacherCache, check_embedding
from tinysam.distillation.training_log import Tally
from tinysam.models import Sam, get_variant
from tinysam.models.mask_decoder import Decoded

FIRST_CLICK = 0.25
"""Weight of mask 0 on a single click, where it can only average what the click may mean."""
CROSS_ENTROPY, SUPERVISED_DICE, SUPERVISED_IOU = 0.5, 2.0, 1.0
"""Weights of the supervised loss."""
EMBEDDING, TOKEN, MASK, FOCAL, DICE, IOU = 10.0, 1.0, 0.2, 1.0, 1.0, 1.0
"""Weights a to f of full-stage distillation."""


def shown_of_three(decoded: Decoded, rule: str) -> Tensor:
    """(P,) which of masks 1 to 3 a user would get for one click, from 0; `rule` is the variant's `mask_choice`."""
    three = Decoded(decoded.low_res_masks[:, 1:], decoded.iou[:, 1:], decoded.tokens)
    return chosen_masks(three, torch.zeros(len(three.iou), dtype=torch.bool, device=three.iou.device), rule, (1, 2, 3))


def supervised(
    decoded: Decoded, batch: Batch, single: Tensor, shown_share: float, rule: str = "single"
) -> tuple[Tensor, Tensor]:
    """The loss of one round.

    Args:
        decoded: the decoder's answer to P prompts.
        batch: with the truth and the other answers at the points.
        single: (P,) bool, whether the prompt is unambiguous.
        shown_share: see `losses.of_three`.
        rule: the variant's `mask_choice`.

    Returns:
        Scalar loss, (P, 4) IoU of the masks with the truth.
    """
    logits = logits_at(decoded.low_res_masks.float(), batch.points)

    def mask_loss(some: Tensor, truth: Tensor) -> Tensor:
        dice = losses.dice(some, truth, batch.area)
        return CROSS_ENTROPY * losses.cross_entropy(some, truth) + SUPERVISED_DICE * dice

    answers = torch.cat([batch.truth[:, None], batch.others.float()], 1)
    answered = (answers != batch.truth[:, None]).any(2) & ~single[:, None]
    answered[:, 0] = True
    first = mask_loss(logits[:, :1], batch.truth).squeeze(1) * torch.where(single, 1.0, FIRST_CLICK)
    three = torch.stack([mask_loss(logits[:, 1:], answer) for answer in answers.unbind(1)], 2)
    predicted = decoded.iou.float()
    masks = first + losses.of_three(three, answered, shown_of_three(decoded, rule), single, shown_share)
    iou = losses.iou_at(logits.detach(), batch.truth, batch.area)
    return masks.mean() + SUPERVISED_IOU * losses.predicted_iou(predicted, iou).sum(1).mean(), iou


def full_stage(
    student: Decoded,
    teacher: Decoded,
    batch: Batch,
    single: Tensor,
    weigh: bool,
    shown_share: float,
    rule: str = "single",
) -> tuple[Tensor, Tensor]:
    """Everything but the embedding's term, for one round.

    Args:
        student: its answer to P prompts.
        teacher: its answer to the same.
        batch: with the truth at the points.
        single: (P,) bool, whether the prompt is unambiguous.
        weigh: whether to use hard mask weighting.
        shown_share: see `losses.of_three`.
        rule: the variant's `mask_choice`.

    Returns:
        Scalar loss, (P, 4) IoU of the student's masks with the truth.
    """
    logits = logits_at(student.low_res_masks.float(), batch.points)
    iou = losses.iou_at(logits.detach(), batch.truth, batch.area)
    per_mask = FOCAL * losses.focal(logits, batch.truth) + DICE * losses.dice(logits, batch.truth, batch.area)
    only = torch.ones_like(single)[:, None]
    three = losses.of_three(per_mask[:, 1:, None], only, shown_of_three(student, rule), single, shown_share)
    truth = torch.where(single, per_mask[:, 0], 0) + three
    masks = losses.mask_l1(student.low_res_masks, teacher.low_res_masks)
    if weigh:
        teacher_iou = losses.iou_at(logits_at(teacher.low_res_masks.float(), batch.points), batch.truth, batch.area)
        masks = masks * losses.hard_mask_weight(iou.amax(1), teacher_iou.amax(1))
    tokens = losses.token_l1(student.tokens, teacher.tokens)
    loss = TOKEN * tokens + MASK * masks + truth + IOU * losses.iou_l1(student.iou, teacher.iou)
    return loss.mean(), iou


class Objective(Protocol):
    """A loss of the student on a batch."""

    def __call__(self, student: Sam, batch: Batch, step: int, tally: Tally) -> Tensor:
        """Scalar loss of step number `step`; adds what is worth logging to `tally`."""
        ...


def answer(model: Sam, embeddings: Tensor, prompt: Prompt) -> Decoded:
    """`Sam.decode` with the image cells kept in the precision of `embeddings`, which saves most of the casts."""
    encoder = model.prompt_encoder
    dense = encoder.dense(prompt.mask_input)
    if prompt.masked is not None:
        dense = torch.where(prompt.masked[:, None, None, None], dense, encoder.dense(None))
    image = embeddings + dense.to(embeddings.dtype)
    position = encoder.grid_position_encoding().to(embeddings.dtype)
    decoded: Decoded = model.mask_decoder(image, position, encoder.points(prompt.coords, prompt.labels))
    return decoded


class Supervised:
    """Masks only; no teacher."""

    def __init__(self, recipe: Recipe, device: Device) -> None:
        self.recipe, self.device, self.rule = recipe, device, get_variant(recipe.variant).mask_choice

    def __call__(self, student: Sam, batch: Batch, step: int, tally: Tally) -> Tensor:
        """The mean over the rounds of the step."""
        recipe = self.recipe
        with self.device.computing():
            embeddings = student.encode(images(batch)).repeat_interleave(recipe.prompts, 0)
            count = round_count(recipe, step)
            found = []
            asked = rounds(lambda prompt: answer(student, embeddings, prompt), batch, count, recipe)
            for i, (prompt, decoded) in enumerate(asked):
                with self.device.exact():
                    loss, iou = supervised(decoded, batch, prompt.single, recipe.shown_share, self.rule)
                found.append(loss)
                tally.masks(i, prompt, decoded, iou)
        return torch.stack(found).mean()


class Decoupled:
    """The teacher's image embedding only (MobileSAM); the embedding comes from the teacher or from its cache."""

    def __init__(self, device: Device, teacher: Sam, cache: TeacherCache | None = None) -> None:
        self.device, self.teacher, self.cache = device, teacher, cache

    def target(self, batch: Batch, inputs: Tensor) -> Tensor:
        """(B, C, grid, grid) embedding of the teacher."""
        if self.cache is not None:
            return self.cache.embeddings(batch.indexes.tolist())
        with torch.no_grad():
            return self.teacher.encode(inputs)

    def __call__(self, student: Sam, batch: Batch, step: int, tally: Tally) -> Tensor:
        """Mean squared error of the embedding."""
        with self.device.computing():
            inputs = images(batch)
            target = self.target(batch, inputs)
            embedding = student.encode(inputs)
            check_embedding(embedding, target)
            with self.device.exact():
                return losses.embedding_mse(embedding, target)


class FullStage:
    """Embedding, tokens, masks and predicted IoU of the teacher, and the truth (TinySAM)."""

    def __init__(self, recipe: Recipe, device: Device, teacher: Sam) -> None:
        self.recipe, self.device, self.teacher = recipe, device, teacher
        self.rule = get_variant(recipe.variant).mask_choice

    def __call__(self, student: Sam, batch: Batch, step: int, tally: Tally) -> Tensor:
        """The embedding's term, plus the mean of the others over the rounds of the step."""
        recipe = self.recipe
        with self.device.computing():
            inputs = images(batch)
            with torch.no_grad():
                target = self.teacher.encode(inputs)
            embedding = student.encode(inputs)
            check_embedding(embedding, target)
            with self.device.exact():
                first = EMBEDDING * losses.embedding_l1(embedding, target)
            mine, theirs = (e.repeat_interleave(recipe.prompts, 0) for e in (embedding, target))
            found = []
            count = round_count(recipe, step)
            asked = rounds(lambda prompt: answer(student, mine, prompt), batch, count, recipe)
            for i, (prompt, decoded) in enumerate(asked):
                with torch.no_grad():
                    taught = answer(self.teacher, theirs, prompt)
                with self.device.exact():
                    weigh, shown = recipe.hard_mask_weighting, recipe.shown_share
                    loss, iou = full_stage(decoded, taught, batch, prompt.single, weigh, shown, self.rule)
                found.append(loss)
                tally.masks(i, prompt, decoded, iou)
        return first + torch.stack(found).mean()
