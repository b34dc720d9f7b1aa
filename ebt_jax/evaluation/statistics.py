"""How sure a rate is."""

import math

Z95 = 1.959963984540054


def wilson_interval(successes: int, episodes: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of successes / episodes; (0, 1) before the first episode.

    Bounds are the rates p with |p - successes/episodes| = z sqrt(p (1 - p) / episodes). Raises ValueError for more successes than
    episodes. Source: Wilson (1927).
    """
    if not 0 <= successes <= episodes:
        raise ValueError(f"successes must be in [0, {episodes}], got {successes}.")
    if episodes == 0:
        return 0.0, 1.0
    rate, spread = successes / episodes, Z95**2 / episodes
    centre = (rate + spread / 2) / (1 + spread)
    half = math.sqrt(rate * (1 - rate) * spread + spread**2 / 4) / (1 + spread)
    return max(centre - half, 0.0), min(centre + half, 1.0)
