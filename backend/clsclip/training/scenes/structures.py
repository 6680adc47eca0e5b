"""Forms that microscopes show: nuclei, cells, filaments, vessels and so on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import Voronoi

from clsclip.training.scenes.plate import MOST, Discs, Plate, Points, Structure, blobs, scatter
from clsclip.training.scenes.textures import fractal_noise, smooth_noise


def nuclei(
    rng: np.random.Generator,
    size: int,
    *,
    radius: float | None = None,
    filling: float | None = None,
) -> Structure:
    """Smooth, slightly irregular ellipses with chromatin; 6 to 90 pixels at size 256."""
    scale = size / 256
    mean = radius or scale * float(np.exp(rng.uniform(np.log(4), np.log(38))))
    filling = filling or float(rng.uniform(0.06, 0.4))
    places = scatter(rng, size, mean, filling, float(rng.uniform(0.82, 1.3)))
    plate, rough, aspect = Plate(size), rng.uniform(0.01, 0.05), rng.uniform(1.05, 1.5)
    for number, outline in enumerate(blobs(rng, places, aspect=aspect, rough=rough), 1):
        plate.polygon(outline, number)
    drawn = plate.finish("nucleus", 2 * mean, rng)
    return drawn.textured(
        smooth_noise(rng, size, size, max(2.0, mean / 3)), rng.uniform(0.05, 0.25)
    )


@dataclass(frozen=True)
class CellParts:
    """Cells with the parts of them that can be seen."""

    cells: Structure
    nuclei: Structure
    rims: Structure


def cells(rng: np.random.Generator, size: int) -> CellParts:
    """Blobs of 36 to 120 pixels at size 256, each with a nucleus and a rim."""
    scale = size / 256
    mean = scale * float(np.exp(rng.uniform(np.log(18), np.log(52))))
    places = scatter(rng, size, mean, float(rng.uniform(0.15, 0.6)), float(rng.uniform(0.95, 1.3)))
    body, inner, rim = Plate(size), Plate(size), Plate(size)
    rough, aspect = rng.uniform(0.02, 0.12), rng.uniform(1.0, 1.5)
    width = scale * float(rng.uniform(2.0, 4.0))
    part = rng.uniform(0.32, 0.5)
    off = rng.uniform(-0.15, 0.15, places.centres.shape) * places.radii[:, None]
    kernels = blobs(rng, Discs(places.centres + off, part * places.radii), aspect=1.2, rough=0.02)
    outlines = blobs(rng, places, aspect=aspect, rough=rough)
    for number, (centre, r, outline, kernel) in enumerate(
        zip(places.centres, places.radii, outlines, kernels, strict=True), 1
    ):
        # the rim lies inside of the cell, and no neighbour shows through its body
        inward = centre + (outline - centre) * (1 - width / 2 / r)
        body.polygon(outline, number)
        rim.polygon(outline, 0)
        rim.line(np.concatenate([inward, inward[:2]]), width, number)
        inner.polygon(outline, 0)
        inner.polygon(kernel, number)
    noise = smooth_noise(rng, size, size, max(3.0, mean / 6))
    cytoplasm = body.finish("cell", 2 * mean, rng).textured(noise, 0.15)
    chromatin = smooth_noise(rng, size, size, max(2.0, mean / 9))
    return CellParts(
        cytoplasm,
        inner.finish("nucleus", 2 * mean * part, rng, uneven=0.1).textured(chromatin, 0.15),
        rim.finish("membrane", 2 * mean, rng, uneven=0.1),
    )


def sheet(rng: np.random.Generator, size: int) -> CellParts:
    """A layer of touching polygonal cells with their membranes, in part of the image."""
    scale = size / 256
    spacing = scale * float(np.exp(rng.uniform(np.log(18), np.log(54))))
    steps = np.arange(-1.5 * spacing, size + 2 * spacing, spacing)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1)
    grid[::2, :, 0] += spacing / 2
    seeds = grid.reshape(-1, 2)
    seeds = seeds + rng.normal(0, rng.uniform(0.08, 0.22) * spacing, seeds.shape)
    region = (
        np.ones(len(seeds), dtype=bool)
        if rng.random() < 0.25
        else _in_patch(rng, seeds, size, float(rng.uniform(0.25, 0.5)) * size)
    )
    diagram = Voronoi(seeds)
    body, inner, edges = Plate(size), Plate(size), Plate(size)
    width = scale * float(rng.uniform(1.5, 4.0))
    part = rng.uniform(0.2, 0.3) * spacing
    centres: list[Points] = []
    radii: list[float] = []
    for index, inside in zip(diagram.point_region, region, strict=True):
        corners = diagram.regions[index]
        if not inside or -1 in corners or not corners or len(centres) >= MOST:
            continue
        outline = diagram.vertices[corners]
        if outline.max(0).min() < 0 or outline.min(0).max() > size:
            continue
        centres.append(outline.mean(0))
        # the nucleus keeps away from the membrane, however narrow the cell is
        away = outline + np.roll(outline, 1, axis=0) - 2 * centres[-1]
        radii.append(min(part, 0.6 * float(np.hypot(*away.T).min()) / 2))
        body.polygon(outline, len(centres))
        edges.line(np.concatenate([outline, outline[:2]]), width, 1)
    kernels = Discs(np.array(centres).reshape(-1, 2), np.array(radii))
    for number, kernel in enumerate(blobs(rng, kernels, aspect=1.15, rough=0.02), 1):
        inner.polygon(kernel, number)
    membrane = edges.finish("membrane", spacing, rng, uneven=0.1)
    # a membrane runs half outside of the outermost cells, whose part it is
    plain = body.finish("cell", spacing, rng, uneven=0.08)
    outer = ndimage.maximum_filter(plain.labels, 2 * int(np.ceil(width / 2)) + 1)
    labels = np.where(plain.labels > 0, plain.labels, outer * (membrane.labels > 0))
    return CellParts(
        replace(
            plain, labels=labels.astype(np.uint8), cover=np.maximum(plain.cover, membrane.cover)
        ),
        inner.finish("nucleus", 2 * part, rng, uneven=0.1).textured(
            smooth_noise(rng, size, size, max(2.0, part / 3)), 0.15
        ),
        membrane,
    )


def _in_patch(
    rng: np.random.Generator, points: Points, size: int, radius: float
) -> NDArray[np.bool_]:
    centre = rng.uniform(0.3, 0.7, 2) * size
    away = points - centre
    angle = np.arctan2(away[:, 1], away[:, 0])
    waves = 0.2 * np.cos(2 * angle + rng.uniform(0, 6)) + 0.15 * np.cos(
        3 * angle + rng.uniform(0, 6)
    )
    inside: NDArray[np.bool_] = np.hypot(*away.T) < radius * (1 + waves)
    return inside


def filaments(rng: np.random.Generator, size: int) -> Structure:
    """Thin smooth curves, 1.5 to 5 pixels wide at size 256."""
    scale = size / 256
    width = scale * float(np.exp(rng.uniform(np.log(1.5), np.log(4.5))))
    bend = rng.uniform(0.02, 0.2)
    common, spread = rng.uniform(0, 2 * np.pi), rng.choice([0.25, 3.0])
    plate = Plate(size)
    for number in range(1, int(np.exp(rng.uniform(np.log(3), np.log(28)))) + 1):
        steps = int(rng.integers(16, 48))
        turns = np.cumsum(rng.normal(0, bend, steps))
        angles = common + rng.uniform(-spread, spread) + turns
        path = np.cumsum(np.column_stack([np.cos(angles), np.sin(angles)]) * size / 32, axis=0)
        path += rng.uniform(0.05, 0.95, 2) * size - path[steps // 2]
        plate.line(path, width, number)
    return plate.finish("filament", 4 * width, rng)


def vessels(rng: np.random.Generator, size: int) -> Structure:
    """Branching tubes that taper from up to 24 to 5 pixels at size 256."""
    scale = size / 256
    plate = Plate(size)
    trunk = scale * float(rng.uniform(11, 24))
    least = 5 * scale
    for number in range(1, int(rng.integers(1, 4)) + 1):
        heading = rng.uniform(0, 2 * np.pi)
        across = np.array([np.cos(heading), np.sin(heading)])
        start = size / 2 - 0.62 * size * across + rng.uniform(-0.3, 0.3) * size * across[::-1]
        branches = [(start, heading, trunk * rng.uniform(0.7, 1))]
        drawn = 0
        while branches and drawn < 12:
            point, angle, width = branches.pop(0)
            drawn += 1
            for _ in range(int(rng.integers(8, 18)) if drawn > 1 else 24):
                angle += rng.normal(0, 0.13)
                step = point + np.array([np.cos(angle), np.sin(angle)]) * 6 * scale
                plate.line(np.stack([point, step]), width, number)
                plate.disc(float(step[0]), float(step[1]), width / 2, number)
                point, width = step, max(width * 0.985, least)
            if width > least * 1.15:
                fork = rng.uniform(0.35, 0.7)
                branches.append((point, angle + fork, max(width * rng.uniform(0.65, 0.9), least)))
                branches.append((point, angle - fork, max(width * rng.uniform(0.55, 0.8), least)))
    drawn_vessels = plate.finish("vessel", 2 * trunk, rng, uneven=0.1)
    return drawn_vessels.textured(smooth_noise(rng, size, size, trunk / 2), 0.1)


def spots(rng: np.random.Generator, size: int) -> Structure:
    """Puncta of 2 to 7 pixels at size 256."""
    mean = size / 256 * float(rng.uniform(1.1, 3.3))
    number = float(np.exp(rng.uniform(np.log(8), np.log(140))))
    places = scatter(rng, size, mean, number * np.pi * mean**2 / size**2, 1.6)
    plate = Plate(size)
    for number_, (centre, r) in enumerate(zip(places.centres, places.radii, strict=True), 1):
        plate.disc(float(centre[0]), float(centre[1]), max(r, 1.0), number_)
    return plate.finish("spot", 2 * mean, rng)


def bacteria(rng: np.random.Generator, size: int) -> Structure:
    """Rods of 4 to 12 pixels at size 256, two to five times as long as wide."""
    width = size / 256 * float(np.exp(rng.uniform(np.log(4), np.log(12))))
    ratio = float(rng.uniform(2.2, 4.6))
    count = np.exp(rng.uniform(np.log(2), np.log(60)))
    radius = width * ratio / 2
    filling = float(min(count * np.pi * radius**2 / size**2, 0.6))
    places = scatter(rng, size, radius, filling, float(rng.uniform(0.6, 1.0)))
    plate = Plate(size)
    along = np.linspace(-0.5, 0.5, 7)
    for number, (centre, r) in enumerate(zip(places.centres, places.radii, strict=True), 1):
        length, angle, curve = 2 * r - width, rng.uniform(0, 2 * np.pi), rng.normal(0, 0.25)
        direction = angle + curve * along
        steps = np.column_stack([np.cos(direction), np.sin(direction)]) * length / 6
        path = centre + np.cumsum(steps, axis=0) - steps.sum(0) / 2
        plate.line(path, width, number)
        for x, y in (path[0], path[-1]):
            plate.disc(float(x), float(y), width / 2, number)
    return plate.finish("bacterium", width * float(np.sqrt(ratio)), rng)


def crystals(rng: np.random.Generator, size: int) -> Structure:
    """Angular convex pieces of 16 to 100 pixels at size 256."""
    mean = size / 256 * float(np.exp(rng.uniform(np.log(8), np.log(40))))
    places = scatter(rng, size, mean, float(rng.uniform(0.05, 0.3)), 1.1)
    plate = Plate(size)
    for number, (centre, r) in enumerate(zip(places.centres, places.radii, strict=True), 1):
        corners = int(rng.integers(4, 7))
        angles = (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) * 2 * np.pi / corners
        form = r * np.column_stack([np.cos(angles), np.sin(angles)]) * [1, rng.uniform(0.5, 0.9)]
        turn = rng.uniform(0, np.pi)
        cos, sin = np.cos(turn), np.sin(turn)
        plate.polygon(centre + form @ np.array([[cos, sin], [-sin, cos]]), number)
    return plate.finish("crystal", 2 * mean, rng, uneven=0.1)


def bubbles(rng: np.random.Generator, size: int) -> Structure:
    """Perfect circles of 14 to 110 pixels at size 256."""
    mean = size / 256 * float(np.exp(rng.uniform(np.log(7), np.log(45))))
    places = scatter(rng, size, mean, float(rng.uniform(0.05, 0.35)), 1.03)
    plate = Plate(size)
    for number, (centre, r) in enumerate(zip(places.centres, places.radii, strict=True), 1):
        plate.disc(float(centre[0]), float(centre[1]), r, number)
    return plate.finish("bubble", 2 * mean, rng, uneven=0.05)


def pollen(rng: np.random.Generator, size: int) -> Structure:
    """Round grains with spines, 30 to 100 pixels at size 256."""
    mean = size / 256 * float(np.exp(rng.uniform(np.log(15), np.log(48))))
    places = scatter(rng, size, mean, float(rng.uniform(0.08, 0.35)), 1.25)
    plate, spines = Plate(size), int(rng.integers(16, 26))
    length = rng.uniform(0.14, 0.24)
    angles = np.linspace(0, 2 * np.pi, 3 * spines, endpoint=False)
    radii = np.where(np.arange(3 * spines) % 3 == 0, 1 + length, 1.0)
    unit = radii[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    for number, (centre, r) in enumerate(zip(places.centres, places.radii, strict=True), 1):
        plate.polygon(centre + r * unit, number)
    drawn = plate.finish("pollen", 2 * mean, rng, uneven=0.1)
    return drawn.textured(smooth_noise(rng, size, size, max(2.0, mean / 7)), 0.3)


def tissue(rng: np.random.Generator, size: int) -> Structure:
    """Regions with an irregular outline and some holes."""
    rough = fractal_noise(rng, size, size, finest=4, power=float(rng.uniform(1.1, 1.5)))
    level = np.quantile(rough[::4, ::4], rng.uniform(0.1, 0.65)) if rng.random() < 0.8 else -9.0
    cover = np.clip((rough - np.float32(level)) * 12 + 0.5, 0, 1)
    solid, _ = ndimage.label(cover >= 0.5)
    sizes = np.bincount(solid.ravel())
    sizes[0] = 0
    # crumbs would be told from debris by nobody; the largest regions stay
    order = np.argsort(-sizes)[: int(np.count_nonzero(sizes >= 0.006 * size**2))][:MOST]
    numbers = np.zeros(len(sizes), dtype=np.uint8)
    numbers[order] = np.arange(1, len(order) + 1)
    labels = numbers[solid]
    cover = cover * (ndimage.maximum_filter(labels, 5) > 0)
    return Structure("tissue", labels, cover, cover * np.float32(0.8), size / 4)


SIMPLE: Final[dict[str, Callable[[np.random.Generator, int], Structure]]] = {
    "nucleus": nuclei,
    "filament": filaments,
    "vessel": vessels,
    "spot": spots,
    "bacterium": bacteria,
    "crystal": crystals,
    "bubble": bubbles,
    "pollen": pollen,
}
"""Structures that consist of one kind of object, by word."""
