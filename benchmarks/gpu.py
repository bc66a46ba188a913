"""Encoder and decoder of the official architectures on a GPU, random weights: ours against the official package.

    python -m benchmarks.gpu [--models vit_b vit_l vit_h] [--batches 1 4 8 16] [--device cuda]

Needs torch, segment_anything and safetensors, nothing else of this project's environment. Prints one Markdown table:
images per second, the share of the bfloat16 rate that this device reaches in a large matrix product, peak memory, and
the difference of our embedding from the official one in float32, relative to its norm; then the time of one mask per
point.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, Sam
from torch.utils.flop_counter import FlopCounterMode

from samif.sam.decoder import InstanceDecoder
from samif.sam.vit import FastViT

ROUNDS, POINTS, SQUARE = 5, 64, 8192


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_b", "vit_l", "vit_h"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 8, 16])
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu runs the same on the processor")
    device = torch.device(args.device)
    peak = _peak(device)
    print(f"{_name(device)}, torch {torch.__version__}, bfloat16 matrix product {peak / 1e12:.1f} TFLOP/s\n")
    print(
        "| model | batch | official float32 | autocast | ours bfloat16 | ratio | share of peak | memory | difference |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in args.models:
        torch.manual_seed(0)
        sam = sam_model_registry[name]().eval().requires_grad_(False).to(device)
        fast = FastViT(sam.image_encoder, torch.bfloat16).to(device)
        for batch in args.batches:
            print(_encoding(name, sam.image_encoder, fast, batch, device, peak), flush=True)
        print(_prompting(name, sam, device), flush=True)


def _encoding(
    name: str, official: ImageEncoderViT, fast: FastViT, batch: int, device: torch.device, peak: float
) -> str:
    images = torch.randn(batch, 3, 1024, 1024, device=device)

    def autocast() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            encoded: torch.Tensor = official(images)
        return encoded

    one, cast = (batch / _seconds(action, device) for action in (lambda: official(images), autocast))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ours = batch / _seconds(lambda: fast(images), device)
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device.type == "cuda" else "-"
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        official(images[:1])
    share = ours * counter.get_total_flops() / peak
    with torch.inference_mode():
        expected = official(images[:1])
        difference = float((fast(images[:1]) - expected).norm() / expected.norm())
    rates = " | ".join(f"{rate:.2f}/s" for rate in (one, cast, ours))
    return f"| {name} | {batch} | {rates} | {ours / one:.2f} | {share:.0%} | {memory} | {difference:.0e} |"


def _prompting(name: str, sam: Sam, device: torch.device) -> str:
    """One mask per point of one image."""
    decoder = InstanceDecoder.of(sam).to(device)
    embedding = torch.randn(1, 256, 64, 64, device=device)
    points = torch.rand(1, POINTS, 2, device=device) * 1024

    def ours() -> torch.Tensor:
        context = decoder.prepare_image(embedding)
        return decoder.predict_masks(context, decoder.run_transformer(context, points)[0])

    def official() -> torch.Tensor:
        prompt = (points[0].unsqueeze(1), torch.ones(POINTS, 1, dtype=torch.int64, device=device))
        sparse, dense = sam.prompt_encoder(points=prompt, boxes=None, masks=None)
        pe = sam.prompt_encoder.get_dense_pe()
        masks: torch.Tensor = sam.mask_decoder.predict_masks(embedding, pe, sparse, dense)[0]
        return masks

    a, b = _seconds(ours, device) / POINTS, _seconds(official, device) / POINTS
    official_ms, ours_ms, ratio = f"{b * 1e3:.2f} ms a point", f"{a * 1e3:.2f} ms a point", f"{b / a:.2f}"
    return f"| {name} decoder | {POINTS} points | {official_ms} | - | {ours_ms} | {ratio} | - | - | - |"


def _peak(device: torch.device) -> float:
    """Operations per second of a large product in bfloat16."""
    side = SQUARE if device.type == "cuda" else SQUARE // 4
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / _seconds(lambda: a @ b, device)


@torch.inference_mode()
def _seconds(action: Callable[[], torch.Tensor], device: torch.device) -> float:
    """Median of a few rounds after one to warm up."""
    taken = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
