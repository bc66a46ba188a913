"""The advice of `samif data check` on a terminal."""

from __future__ import annotations

from collections import Counter

from flows.advice.check import Advised
from flows.cli.app import console, print_rows
from samif.advice.classes import ClassAdvice

_LISTED = 3


def print_advice(advised: Advised) -> None:
    """A row per class: verdict and what to do next; then what concerns several classes, and where the page is."""
    advice, out = advised.advice, console()
    out.print("advice", style="bold")
    rows = [[c.name, c.verdict, str(c.distinct_images), _right(c), _next(c)] for c in advice.classes]
    print_rows(
        ["class", "verdict", "images", "named", "next"], rows, right=("images", "named"), whole=("verdict",),
    )  # fmt: skip
    for pair in advice.look_alikes:
        out.print(f"look alike: {pair.first} and {pair.second}, {pair.count} objects are taken for the other class")
    kinds = Counter(error.kind for error in advice.label_errors)
    if kinds:
        out.print(f"probably wrong: {_count(kinds['name'], 'name')} and {_count(kinds['mask'], 'mask')}")
        for error in advice.label_errors[:_LISTED]:
            guess = f"'{error.suggested}'?" if error.suggested is not None else "the outline?"
            place = f"{error.split}/{error.file}, annotation {error.annotation}"
            out.print(f"  {place}: '{error.given}', {guess} ({error.score:.2f})", soft_wrap=True)
    for found, noun in ((advice.leaks, "leak"), (advice.duplicates, "near-duplicate")):
        if found:
            also = " from training into validation" if noun == "leak" else " in training"
            first = f"{found[0].first} and {found[0].second}"
            out.print(f"{_count(len(found), noun)}{also}: {first}; {found[0].remedy}", soft_wrap=True)
    shown = "" if advice.measured_images == advice.images else f", of which {advice.measured_images} were measured"
    background = _count(advice.background_images, "image")
    out.print(f"{_count(advice.images, 'training image')}{shown}; {background} of background alone")
    if advised.page is not None:
        out.print(f"images in question: {advised.page}", soft_wrap=True)


def _right(advice: ClassAdvice) -> str:
    right = None if advice.naming is None else advice.naming.right
    return "–" if right is None else f"{100 * right:.0f} %"


def _next(advice: ClassAdvice) -> str:
    if not advice.next:
        return ""
    curve = None if advice.naming is None else advice.naming.curve
    told = "; ".join(advice.next)
    if curve is not None and advice.verdict != "ready":
        told += f"; {curve.more} more images would bring {curve.gain:+.1f} ± {curve.half:.1f} points of right names"
    return told


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
