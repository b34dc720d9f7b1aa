"""EBT-Policy (arXiv 2510.27545) in PyTorch: its equations written out once more, plainly, to compare ours with.

    TemporalEncoder   observations [b t p] -> context [b t d], causal over t
    EnergyDecoder     (actions [b h a], context) -> E [b] = mean over (h, a) of the head; action row r sees observation j where r >= j
    chain             normalise, add noise, look ahead, step

Written from the equations for these tests. `batch_norm=True` repeats the published code's coupling of the whole batch.
"""

import math

import torch
from torch import nn
from torch.nn import functional


def rms(x, scale):
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * scale


def sin_cos(length, width):
    angles = torch.outer(
        torch.arange(length, dtype=torch.float64), 10_000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    )
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)


class Attention(nn.Module):
    """Queries of x, keys and values of `source`; RMS-normalised per head; `out_bias` only between tokens of one kind."""

    def __init__(self, width, heads, out_bias):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.query_scale, self.key_scale = (nn.Parameter(torch.ones(width // heads)) for _ in range(2))
        self.out = nn.Linear(width, width, bias=out_bias)

    def forward(self, x, source, mask):
        split = lambda y: y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        queries, keys, values = split(self.query(x)), split(self.key(source)), split(self.value(source))
        queries, keys = rms(queries, self.query_scale), rms(keys, self.key_scale)
        logits = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
        weights = torch.softmax(logits.masked_fill(~mask, -math.inf), dim=-1)
        return self.out((weights @ values).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, out)

    def forward(self, x):
        return self.out(functional.gelu(self.hidden(x), approximate="tanh"))


class EncoderBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.self_norm, self.mlp_norm = (nn.Parameter(torch.ones(width)) for _ in range(2))
        self.self_attention = Attention(width, heads, out_bias=True)
        self.mlp = MLP(width, width)

    def forward(self, x, mask):
        y = rms(x, self.self_norm)
        x = x + self.self_attention(y, y, mask)
        return x + self.mlp(rms(x, self.mlp_norm))


class DecoderBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.self_norm, self.cross_norm, self.mlp_norm = (nn.Parameter(torch.ones(width)) for _ in range(3))
        self.self_attention = Attention(width, heads, out_bias=True)
        self.cross_attention = Attention(width, heads, out_bias=False)
        self.mlp = MLP(width, width)

    def forward(self, x, context, everyone, mask):
        y = rms(x, self.self_norm)
        x = x + self.self_attention(y, y, everyone)
        x = x + self.cross_attention(rms(x, self.cross_norm), context, mask)
        return x + self.mlp(rms(x, self.mlp_norm))


class TemporalEncoder(nn.Module):
    def __init__(self, inputs, horizon, width, heads, depth):
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.positions = nn.Parameter(torch.zeros(horizon, width))
        self.blocks = nn.ModuleList(EncoderBlock(width, heads) for _ in range(depth))

    def forward(self, observations):
        x = self.embed(observations) + self.positions
        causal = torch.tril(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool))
        for block in self.blocks:
            x = block(x, causal)
        return x


class EnergyDecoder(nn.Module):
    def __init__(self, actions, horizon, width, heads, depth):
        super().__init__()
        self.hidden, self.norm, self.embed = nn.Linear(actions, width), nn.LayerNorm(width), nn.Linear(width, width)
        self.positions = nn.Parameter(sin_cos(horizon, width), requires_grad=False)
        self.blocks = nn.ModuleList(DecoderBlock(width, heads) for _ in range(depth))
        self.head_norm = nn.Parameter(torch.ones(width))
        self.head = MLP(width, actions)

    def forward(self, actions, context):
        gelu = lambda y: functional.gelu(y, approximate="tanh")
        x = gelu(self.embed(gelu(self.norm(self.hidden(actions))))) + self.positions
        rows, columns = torch.arange(actions.shape[1])[:, None], torch.arange(context.shape[1])[None]
        for block in self.blocks:
            x = block(x, context, torch.ones(1, dtype=torch.bool), rows >= columns)
        return self.head(rms(x, self.head_norm)).mean(dim=(1, 2))


def chain(
    energy,
    actions,
    noise,
    jitter,
    *,
    step_size,
    momentum,
    temperature,
    detach_velocity,
    batch_norm=False,
    normalize=True,
    create_graph=True,
):
    """The chunks after each step, and the energies where each took its gradient.

    Args:
      energy: [b h a] -> [b].
      noise: [k b h a], what is added before each step; jitter: [k b], the random factor of each step size.
    """
    velocity, path, energies = torch.zeros_like(actions), [], []
    for i in range(len(noise)):
        actions = actions.detach().requires_grad_()
        if normalize:
            dimensions = (0, 1, 2) if batch_norm else (1, 2)
            actions = actions / torch.sqrt(actions.pow(2).mean(dimensions, keepdim=True) + torch.finfo(actions.dtype).eps)
        actions = actions + noise[i]
        velocity = velocity.detach() if detach_velocity else velocity
        look = actions + momentum * velocity
        value = energy(look)
        (gradient,) = torch.autograd.grad(value.sum(), look, create_graph=create_graph)
        alpha = (step_size * jitter[i] * torch.exp(value) / temperature)[:, None, None]
        velocity = momentum * velocity - alpha * gradient
        actions = actions + velocity
        path.append(actions)
        energies.append(value)
    return path, energies
