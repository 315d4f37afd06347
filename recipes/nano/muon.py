"""Muon: momentum, made orthogonal, for the matrices inside a network. Learns from about half as many pictures as AdamW here.

After Jordan et al. 2024 ("Muon: An optimizer for hidden layers in neural networks"), with the step size of Liu et al. 2025 ("Muon is
scalable for LLM training"), so that one learning rate serves this and AdamW. PyTorch's own takes 2D parameters one by one; most of
ours are convolutions, and equal shapes go through in one batch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

#: Coefficients of the odd quintic (Jordan et al.): steep at zero; singular values end between about 0.7 and 1.2.
QUINTIC = (3.4445, -4.7750, 2.0315)
MOMENTUM = 0.95
#: Root mean square of an AdamW step in learning rates (Liu et al.): an orthogonal matrix [a, b] has entries of 1 / sqrt(max(a, b)).
RMS = 0.2
#: Parts of the depth network that are no matrices between hidden features; AdamW takes them.
OUTER = ("stem", "head", "coarse", "register", "place", "time")


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrices [n, a, b] with singular values near 1, by Newton-Schulz iteration; in bfloat16 on a GPU."""
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    x = x / (x.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    a, b, c = QUINTIC
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(matrices.dtype)


def divided(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters for Muon (kernels of convolutions and linear layers between hidden features) and for AdamW."""
    inner = [p for n, p in model.named_parameters() if p.ndim >= 2 and not any(word in n for word in OUTER)]
    ours = {id(p) for p in inner}
    return inner, [p for p in model.parameters() if id(p) not in ours]


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonal for each parameter as a matrix [first dimension, the rest], decoupled weight decay.

    `found_inf`, when set to a float tensor that is not 0, leaves everything as it is (as AdamW's fused one does).
    """

    found_inf: Tensor | None = None

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(list(parameters), {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One step of all parameters that have a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.flatten(1).shape, []).append(p)
            for shape, parameters in shapes.items():
                self._step(parameters, RMS * max(shape) ** 0.5, group["lr"], group["weight_decay"])

    def _step(self, parameters: list[nn.Parameter], size: float, lr: float, weight_decay: float) -> None:
        grads = torch.stack([p.grad.flatten(1) for p in parameters if p.grad is not None])
        for p in parameters:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p.flatten(1))
        momenta = [self.state[p]["momentum"] for p in parameters]
        old = torch.stack(momenta)
        new = old.lerp(grads, 1 - MOMENTUM)
        step = lr * size * orthogonal(grads.lerp(new, MOMENTUM))
        shrink = torch.as_tensor(1 - lr * weight_decay, device=step.device)
        if self.found_inf is not None:
            bad = self.found_inf > 0
            new, step, shrink = torch.where(bad, old, new), torch.where(bad, 0, step), torch.where(bad, 1, shrink)
        for p, momentum, kept, change in zip(parameters, momenta, new, step, strict=True):
            momentum.copy_(kept)
            p.mul_(shrink).sub_(change.view(p.shape))
