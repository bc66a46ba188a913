"""Average two checkpoints of one training run: often a better one than either.

    python -m recipes.tiny.average EARLIER LATER --share 0.6 --out tiny.safetensors

Wortsman et al., "Model soups" (ICML 2022).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file, save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("earlier", type=Path)
    parser.add_argument("later", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="weight of the later one")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    a, b, share = load_file(args.earlier), load_file(args.later), args.share
    mean = {k: a[k] * (1 - share) + b[k] * share if b[k].is_floating_point() else b[k] for k in b}
    save_file(mean, args.out, metadata={"architecture": "tiny"})


if __name__ == "__main__":
    main()
