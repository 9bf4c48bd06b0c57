"""What one step minimizes: supervised, decoupled or full-stage."""

from typing import Protocol

import torch
from torch import Tensor

from tinysam.distillation.device import Device, images
from tinysam.distillation.full_stage import EMBEDDING, full_stage
from tinysam.distillation.losses.embedding_l1 import embedding_l1
from tinysam.distillation.losses.embedding_mse import embedding_mse
from tinysam.distillation.recipe import Recipe
from tinysam.distillation.rounds import Prompt, round_count, rounds
from tinysam.distillation.samples import Batch
from tinysam.distillation.supervised import supervised
from tinysam.distillation.tally import Tally
from tinysam.distillation.teacher import check_embedding
from tinysam.distillation.teacher_cache import TeacherCache
from tinysam.models import Sam
from tinysam.models.mask_decoder import Decoded


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
        self.recipe, self.device = recipe, device

    def __call__(self, student: Sam, batch: Batch, step: int, tally: Tally) -> Tensor:
        """The mean over the rounds of the step."""
        recipe = self.recipe
        with self.device.computing():
            embeddings = student.encode(images(batch)).repeat_interleave(recipe.prompts, 0)
            count = round_count(recipe, step)
            losses = []
            asked = rounds(lambda prompt: answer(student, embeddings, prompt), batch, count, recipe)
            for i, (prompt, decoded) in enumerate(asked):
                with self.device.exact():
                    loss, iou = supervised(decoded, batch, prompt.single)
                losses.append(loss)
                tally.masks(i, prompt, decoded, iou)
        return torch.stack(losses).mean()


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
                return embedding_mse(embedding, target)


class FullStage:
    """Embedding, tokens, masks and predicted IoU of the teacher, and the truth (TinySAM)."""

    def __init__(self, recipe: Recipe, device: Device, teacher: Sam) -> None:
        self.recipe, self.device, self.teacher = recipe, device, teacher

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
                first = EMBEDDING * embedding_l1(embedding, target)
            mine, theirs = (e.repeat_interleave(recipe.prompts, 0) for e in (embedding, target))
            losses = []
            count = round_count(recipe, step)
            asked = rounds(lambda prompt: answer(student, mine, prompt), batch, count, recipe)
            for i, (prompt, decoded) in enumerate(asked):
                with torch.no_grad():
                    taught = answer(self.teacher, theirs, prompt)
                with self.device.exact():
                    loss, iou = full_stage(decoded, taught, batch, prompt.single, recipe.hard_mask_weighting)
                losses.append(loss)
                tally.masks(i, prompt, decoded, iou)
        return first + torch.stack(losses).mean()
