"""GroupNorm for training on a CPU in channels-last: torch's own backward is several times slower there."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        b, c, h, w = x.shape
        count = h * w * (c // groups)
        rows = x.permute(0, 2, 3, 1).reshape(b, h * w, c)
        total = rows.sum(1, dtype=torch.float32).view(b, groups, -1).sum(2, keepdim=True)
        square = (rows * rows).sum(1, dtype=torch.float32).view(b, groups, -1).sum(2, keepdim=True)
        mean = total / count
        rstd = (square / count - mean * mean).clamp_min(0).add(eps).rsqrt()
        scale = (rstd * weight.float().view(groups, -1)).reshape(b, c)
        offset = bias.float() - (mean * scale.view(b, groups, -1)).reshape(b, c)
        ctx.save_for_backward(rows, weight, mean, rstd)
        ctx.groups, ctx.shape = groups, x.shape
        out = torch.addcmul(offset[:, None].to(x.dtype), rows, scale[:, None].to(x.dtype))
        return out.view(b, h, w, c).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad: Tensor):
        rows, weight, mean, rstd = ctx.saved_tensors
        (b, c, h, w), groups = ctx.shape, ctx.groups
        count = h * w * (c // groups)
        g = grad.permute(0, 2, 3, 1).reshape(b, h * w, c)
        sum_g = g.sum(1, dtype=torch.float32)
        sum_gx = (g * rows).sum(1, dtype=torch.float32)
        per = lambda t: t.view(b, groups, -1)  # noqa: E731
        sum_gn = (per(sum_gx) - mean * per(sum_g)) * rstd  # sum of g times the normalised x
        gamma = weight.float().view(groups, -1)
        first = (gamma * per(sum_g)).sum(2, keepdim=True) / count
        second = (gamma * sum_gn).sum(2, keepdim=True) / count
        by_g = (rstd * gamma).reshape(b, 1, c)
        by_x = (-rstd * rstd * second).expand(b, groups, c // groups).reshape(b, 1, c)
        rest = (rstd * (rstd * mean * second - first)).expand(b, groups, c // groups).reshape(b, 1, c)
        dx = torch.addcmul(rest.to(g.dtype), rows, by_x.to(g.dtype)).addcmul_(g, by_g.to(g.dtype))
        dx = dx.view(b, h, w, c).permute(0, 3, 1, 2)
        return dx, sum_gn.reshape(b, c).sum(0).to(weight.dtype), sum_g.sum(0).to(weight.dtype), None, None


class FastGroupNorm(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or not self.training:
            return super().forward(x)
        return _GroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)


def use_fast_norms(module: nn.Module) -> nn.Module:
    for m in module.modules():
        if type(m) is nn.GroupNorm:
            m.__class__ = FastGroupNorm
    return module
