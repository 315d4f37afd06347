"""How many parameters are trained, and where they are."""

from __future__ import annotations

from dataclasses import dataclass

from ex4d.models.wan.geometry_encoder import GeometryEncoder


@dataclass(frozen=True)
class ParameterReport:
    """Counts of single values.

    Attributes:
        base: The frozen denoiser.
        lora: Low-rank matrices.
        geometry: Geometry encoder.
    """

    base: int
    lora: int
    geometry: int

    @property
    def trainable(self) -> int:
        """Everything that is trained."""
        return self.lora + self.geometry

    def __str__(self) -> str:
        share = 100 * self.trainable / self.base
        return (
            f"trainable {self.trainable:,} ({share:.2f} % of {self.base:,}): LoRA {self.lora:,}, "
            f"geometry encoder {self.geometry:,}"
        )


def parameter_report(transformer, encoder: GeometryEncoder) -> ParameterReport:
    """Count a denoiser with its attached LoRA, on any device, meta included."""
    lora = sum(p.numel() for name, p in transformer.named_parameters() if ".lora_" in name)
    total = sum(p.numel() for p in transformer.parameters())
    return ParameterReport(total - lora, lora, sum(p.numel() for p in encoder.parameters()))
