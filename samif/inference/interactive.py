"""A person's prompts -> the mask of one object: clicks and boxes on an image that is embedded once.

The decoder is asked with all prompts together, and with the last click alone, whose mask is added to the mask so far or
taken from it. Of these candidates the one counts that agrees with the most clicks and, of equal ones, the best by
predicted IoU and by its overlap with the mask so far: a further click corrects, it does not start anew. Where no
candidate agrees with the last click, a disc about it is added or taken. From the third click on, only the area about
the click changes.

Shape legend: P clicks, K masks of a prompt, r side of a low-resolution mask, (H, W) the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label
from torch import Tensor

from samif.inference.propose import Proposals
from samif.masks.pooling import pool
from samif.masks.rle import Rle, box_of, encode_whole
from samif.masks.upscale import upscaled
from samif.sam.decode import ALL_MASKS, SINGLE_MASK, ImageContext, predict_masks, run_transformer
from samif.sam.decoder import InstanceDecoder
from samif.sam.frame import View
from samif.sam.precision import full_float32

NEAR = 4.0
"""Weight of the overlap with the mask so far, against the predicted IoU."""
LOCAL_FROM = 3
"""Click from which on only the area about the click changes: the mask is right elsewhere by then."""
LAST_CLICKS = 3
"""Clicks that the decoder is asked with together: encoders are trained on few prompts."""
DISC = 0.5
"""Radius of a disc about a click that no candidate agrees with, as a share of the distance to the nearest click of the
other kind."""
SPECK, GAP = 0.05, 0.02
"""Parts up to this share of a mask's area, and holes up to that, are taken for noise where no click says otherwise."""
LARGEST_DISC = 0.03
"""Its largest radius, as a share of the image's longer side."""
SMALL = 0.25
"""Share of the image's longer side up to which an object is seen better in a part of the image."""
AROUND = 3.0
"""Side of that part, in sides of the object's box."""
SAME_PLACE = 0.01
"""Distance, as a share of the longer side, up to which a click takes back an earlier one of the other kind."""
SAME_OBJECT = 0.5
"""IoU from which the mask of a part is a sharper one of the same object."""
LEAST_PART = 64
"""Its least side in pixels: less would be nothing but interpolation."""


@dataclass(frozen=True)
class Click:
    """A click at (x, y) in image pixels, on the object or beside it."""

    x: float
    y: float
    foreground: bool


@dataclass(frozen=True)
class Prompts:
    """What a person did for one object, clicks in their order; `box` as x, y, width, height in image pixels."""

    clicks: tuple[Click, ...] = ()
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Outline:
    """A mask (H, W) of an image, and its predicted IoU."""

    mask: NDArray[np.bool_]
    iou: float


@dataclass(frozen=True)
class _Candidate:
    """A mask as logits (r, r) to choose by, and its predicted IoU. Where it changes the mask so far, `part` (r, r) is
    what is added or taken."""

    logits: Tensor
    iou: float
    part: Tensor | None = None


class PromptedImage:
    """An image, or a part of it, made ready for prompts.

    Args:
        embedding: (C, h, w) of the part that `view` shows.
        view: that part, in pixels of the whole image.
        height, width: of the whole image.
        multimask: whether all masks of a prompt are candidates: parts and wholes.
    """

    def __init__(
        self, decoder: InstanceDecoder, embedding: Tensor, view: View, height: int, width: int, multimask: bool
    ) -> None:
        self._decoder, self.view, self.height, self.width = decoder, view, height, width
        self.embedding = embedding.to(decoder.device).float()
        self._which = ALL_MASKS if multimask else SINGLE_MASK
        with torch.inference_mode(), full_float32():
            self._context: ImageContext = decoder.prepare_image(self.embedding.unsqueeze(0))

    @full_float32()
    @torch.inference_mode()
    def answer(self, prompts: Prompts, before: NDArray[np.bool_] | None = None) -> Outline:
        """The mask of the object that is prompted.

        Args:
            prompts: at least one click or the box, within the part of the image.
            before: the mask so far (H, W), with everything that was changed by hand; none at the first prompt.
        """
        clicks = prompts.clicks
        candidates = self._ask(clicks[-LAST_CLICKS:], prompts.box)
        if before is None or not clicks:
            if prompts.box is not None and not clicks:  # for decoders that never learnt boxes
                x, y, width, height = prompts.box
                candidates += self._ask([Click(x + width / 2, y + height / 2, True)], None)
            best = max(
                candidates, key=lambda c: (self._agreeing(c.logits, clicks), c.iou * self._fit(c.logits, prompts.box))
            )
            return self._outline(best, None, clicks)
        inside = torch.from_numpy(self.view.cut(before))
        so_far = self.view.frame.low_masks(inside[None], candidates[0].logits.shape[-1])[0] - 0.5
        last = clicks[-1]
        for alone in self._ask([replace(last, foreground=True)], None):
            logits = torch.maximum(so_far, alone.logits) if last.foreground else torch.minimum(so_far, -alone.logits)
            candidates.append(_Candidate(logits, alone.iou, alone.logits))
        best = max(candidates, key=lambda c: (self._agreeing(c.logits, clicks), c.iou + NEAR * _iou(c.logits, so_far)))
        if not self._agrees(best.logits, last):
            return Outline(self._with_disc(before, clicks), best.iou)
        return self._outline(best, before, clicks)

    @full_float32()
    @torch.inference_mode()
    def proposal(self, mask: NDArray[np.bool_]) -> Proposals:
        """A mask (H, W) that is not empty as a proposal, with the features that a classifier names it by: the embedding
        pooled under it, and the decoder's token at its deepest point."""
        inside = torch.from_numpy(self.view.cut(mask))
        low = self.view.frame.low_masks(inside[None], 4 * self.embedding.shape[-1])
        output, objectness = self._decoder.run_transformer(self._context, self._deepest(low[0])[None, None])
        columns = output.iou[:, 0].clamp(0.0, 1.0), objectness.sigmoid(), output.mask_tokens[:, 0]
        pooled = pool(self.embedding, low.to(self.embedding.device))
        return Proposals([encode_whole(mask)], *(column.cpu().numpy() for column in (*columns, pooled)))

    def _ask(self, clicks: Sequence[Click], box: tuple[float, float, float, float] | None) -> list[_Candidate]:
        """The decoder's masks for prompts, all together."""
        points = boxes = None
        if clicks:
            at = self._decoder_points([(click.x, click.y) for click in clicks])
            points = at[None], torch.tensor([[int(click.foreground) for click in clicks]], device=at.device)
        if box is not None:
            x, y, width, height = box
            boxes = self._decoder_points([(x, y), (x + width, y + height)]).reshape(1, 4)
        sparse, _ = self._decoder.prompt_encoder(points=points, boxes=boxes, masks=None)
        answer = run_transformer(self._decoder.mask_decoder, self._context, sparse)
        masks = predict_masks(self._decoder.mask_decoder, self._context, answer, self._which)[0].cpu()
        iou = answer.iou[0, list(self._which)].clamp(0.0, 1.0).tolist()
        return [_Candidate(logits, value) for logits, value in zip(masks, iou, strict=True)]

    def _decoder_points(self, points: Sequence[tuple[float, float]]) -> Tensor:
        """Points (P, 2) in image pixels -> in encoder pixels of this part."""
        corner = torch.tensor([self.view.x, self.view.y], dtype=torch.float32)
        found = self.view.frame.to_encoder(torch.tensor(points, dtype=torch.float32) - corner)
        return found.to(self._decoder.device)

    def _deepest(self, low: Tensor) -> Tensor:
        """The point (2,) deepest inside a mask of shares (r, r), in encoder pixels."""
        depth = distance_transform_edt(np.pad(low.numpy() > 0, 1))[1:-1, 1:-1] * low.numpy()
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        cell = self._decoder.image_size / low.shape[-1]
        return torch.tensor([(column + 0.5) * cell, (row + 0.5) * cell], device=self._decoder.device)

    def _agrees(self, logits: Tensor, click: Click) -> bool:
        return bool(logits[self._cell(click, logits.shape[-1])] > 0) == click.foreground

    def _cell(self, click: Click, resolution: int) -> tuple[int, int]:
        """Row and column of a click in a mask (r, r)."""
        side = max(self.view.frame.height, self.view.frame.width)
        row, column = (int(v * resolution / side) for v in (click.y - self.view.y, click.x - self.view.x))
        return min(max(row, 0), resolution - 1), min(max(column, 0), resolution - 1)

    def _agreeing(self, logits: Tensor, clicks: Sequence[Click]) -> int:
        return sum(self._agrees(logits, click) for click in clicks)

    def _local(self, before: NDArray[np.bool_], after: NDArray[np.bool_], clicks: Sequence[Click]) -> NDArray[np.bool_]:
        """The mask so far with that connected change alone in which the last click is, and only where no click of the
        other kind is nearer, unless it is at the same place; both (h, w) of this part."""
        change, last = before ^ after, clicks[-1]
        rows, columns = np.flatnonzero(change.any(axis=1)), np.flatnonzero(change.any(axis=0))
        if not len(rows):
            return after
        box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        y, x = np.ogrid[box]
        near: dict[bool, Any] = {True: np.inf, False: np.inf}  # squared distances (h, w) in the box, or none
        same_place = SAME_PLACE * max(before.shape)
        for click in clicks:
            if click.foreground != last.foreground and np.hypot(click.x - last.x, click.y - last.y) <= same_place:
                continue
            distance = (x + (self.view.x + 0.5 - click.x)) ** 2 + (y + (self.view.y + 0.5 - click.y)) ** 2
            near[click.foreground] = np.minimum(near[click.foreground], distance)
        labels, _ = label(change[box] & (near[last.foreground] <= near[not last.foreground]))
        row, column = self._pixel(last)
        row, column = row - box[0].start, column - box[1].start
        if not (0 <= row < labels.shape[0] and 0 <= column < labels.shape[1] and labels[row, column]):
            return after
        local = before.copy()
        local[box] ^= labels == labels[row, column]
        return local

    def _pixel(self, click: Click) -> tuple[int, int]:
        """Row and column of a click in this part."""
        frame, y, x = self.view.frame, int(click.y - self.view.y), int(click.x - self.view.x)
        return min(max(y, 0), frame.height - 1), min(max(x, 0), frame.width - 1)

    def _fit(self, logits: Tensor, box: tuple[float, float, float, float] | None) -> float:
        """IoU of a mask's box with the box of a prompt; 1 where there is none."""
        if box is None:
            return 1.0
        inside = logits > 0
        rows, columns = inside.any(dim=1).nonzero()[:, 0].tolist(), inside.any(dim=0).nonzero()[:, 0].tolist()
        if not rows:
            return 0.0
        cell = max(self.view.frame.height, self.view.frame.width) / logits.shape[-1]
        x, y, width, height = box
        left, right = columns[0] * cell + self.view.x, (columns[-1] + 1) * cell + self.view.x
        top, bottom = rows[0] * cell + self.view.y, (rows[-1] + 1) * cell + self.view.y
        wide, high = min(right, x + width) - max(left, x), min(bottom, y + height) - max(top, y)
        both = max(0.0, wide) * max(0.0, high)
        return float(both / ((right - left) * (bottom - top) + width * height - both))

    def _cleaned(self, logits: Tensor, clicks: Sequence[Click]) -> Tensor:
        """Logits (r, r) without specks and without small holes, but for those in which there is a click."""
        inside = logits.numpy() > 0
        area, kept = inside.sum(), logits.clone()
        for cells, most, foreground in ((inside, SPECK, True), (~inside, GAP, False)):
            labels, count = label(cells)
            if count < 2:
                continue
            small = np.bincount(labels.ravel()) <= most * area
            small[0] = False
            for row, column in (
                self._cell(click, logits.shape[-1]) for click in clicks if click.foreground == foreground
            ):
                small[labels[row, column]] = False
            kept[torch.from_numpy(small[labels])] = -1.0 if foreground else 1.0
        return kept

    def _outline(self, best: _Candidate, before: NDArray[np.bool_] | None, clicks: Sequence[Click]) -> Outline:
        """A candidate as a mask of the whole image; outside of this part the mask so far stays."""
        if best.part is None:
            cleaned = self._cleaned(best.logits, clicks)
        else:  # of a part only the piece under the click counts for sure
            cleaned = self._cleaned(best.part, [replace(clicks[-1], foreground=True)])
        drawn = upscaled(cleaned.numpy(), self.view.frame.height, self.view.frame.width)
        if before is None and drawn.shape == (self.height, self.width):
            return Outline(drawn, best.iou)
        mask = np.zeros((self.height, self.width), dtype=bool) if before is None else before.copy()
        region = self.view.cut(mask)
        if best.part is None:
            wanted = drawn
        elif clicks[-1].foreground:
            wanted = region | drawn
        else:
            wanted = region & ~drawn
        if before is not None and len(clicks) >= LOCAL_FROM:
            wanted = self._local(region, wanted, clicks)
        region[...] = wanted
        return Outline(mask, best.iou)

    def _with_disc(self, before: NDArray[np.bool_], clicks: Sequence[Click]) -> NDArray[np.bool_]:
        """The mask so far with a disc about the last click added or taken."""
        last = clicks[-1]
        others = [np.hypot(c.x - last.x, c.y - last.y) for c in clicks if c.foreground != last.foreground]
        side = max(self.view.frame.height, self.view.frame.width)
        radius = max(1.0, min([LARGEST_DISC * side, *(DISC * float(other) for other in others)]))
        mask = before.copy()
        top, left = max(0, int(last.y - radius)), max(0, int(last.x - radius))
        part = mask[top : int(last.y + radius) + 2, left : int(last.x + radius) + 2]
        y, x = np.ogrid[: part.shape[0], : part.shape[1]]
        part[(x + left + 0.5 - last.x) ** 2 + (y + top + 0.5 - last.y) ** 2 <= radius**2] = last.foreground
        return mask


def part_around(mask: Rle) -> tuple[int, int, int, int] | None:
    """The part of an image in which a small object is seen better, as x, y, width and height in pixels; none where the
    object is large enough, or there is none."""
    (height, width), (x, y, box_width, box_height) = mask["size"], box_of(mask)
    longest = max(box_height, box_width)
    if not 0 < longest <= SMALL * max(height, width):
        return None
    side = int(min(max(AROUND * longest, LEAST_PART), max(height, width)))
    high, wide = min(side, height), min(side, width)
    top = int(np.clip((2 * y + box_height - high) / 2, 0, height - high))
    left = int(np.clip((2 * x + box_width - wide) / 2, 0, width - wide))
    return left, top, wide, high


def is_same_object(whole: NDArray[np.bool_], part: NDArray[np.bool_]) -> bool:
    """Whether the mask that a part of the image gave is of the object that the whole image gave, both (H, W)."""
    return bool((whole & part).sum() >= SAME_OBJECT * (whole | part).sum())


def _iou(a: Tensor, b: Tensor) -> float:
    """IoU of two masks given as logits."""
    first, second = a > 0, b > 0
    return float((first & second).sum() / (first | second).sum().clamp_min(1))
