"""The teacher: any variant, frozen, at the student's input size."""

from pathlib import Path

import torch

from tinysam.models import Sam, get_variant, load
from tinysam.models.checkpoint import weights_path
from tinysam.runtime.manifest import sha256_file


class TeacherError(ValueError):
    """A teacher that cannot teach this student; the message is one line."""


def load_teacher(name: str, checkpoint: Path | None, image_size: int, device: str) -> Sam:
    """A teacher whose embedding has the student's shape.

    Raises:
        TeacherError: The teacher cannot take the student's input size, so its embedding has another shape.
        CheckpointError: Its weights cannot be read.
    """
    variant = get_variant(name)
    if variant.teacher_only and variant.image_size != image_size:
        theirs, ours = (side // variant.encoder.stride for side in (variant.image_size, image_size))
        raise TeacherError(
            f"teacher {name} makes embeddings of {theirs} x {theirs}, the student at {image_size} of {ours} x {ours}: "
            f"train with --image-size {variant.image_size}"
        )
    teacher = load(variant, checkpoint, image_size).to(device)
    return teacher.requires_grad_(False).eval()


def identity(name: str, checkpoint: Path | None) -> str:
    """Variant and SHA-256 of a teacher's weights; CheckpointError if it has none."""
    return f"{name} {sha256_file(weights_path(get_variant(name), checkpoint))}"


def check_embedding(student: torch.Tensor, teacher: torch.Tensor) -> None:
    """TeacherError if the two embeddings have different shapes."""
    if student.shape[1:] != teacher.shape[1:]:
        raise TeacherError(
            f"the teacher's embedding is {tuple(teacher.shape[1:])}, the student's {tuple(student.shape[1:])}: "
            "they must have the same channels and grid"
        )


def copy_decoder(student: Sam, teacher: Sam) -> None:
    """Gives the student the teacher's prompt encoder and mask decoder, frozen (MobileSAM).

    Raises:
        TeacherError: The decoders have different sizes.
    """
    try:
        student.prompt_encoder.load_state_dict(teacher.prompt_encoder.state_dict())
        student.mask_decoder.load_state_dict(teacher.mask_decoder.state_dict())
    except RuntimeError as error:
        wrong = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise TeacherError(f"the teacher's decoder does not fit the student: {wrong}") from error
    student.prompt_encoder.requires_grad_(False)
    student.mask_decoder.requires_grad_(False)
