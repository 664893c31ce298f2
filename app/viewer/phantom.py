"""A made-up patient, as FDG-PET of head and torso might show it, so that the first page is worth a look.

Everything is a formula: no patient's data, no random numbers from a library that may change.
"""

import numpy as np

SHAPE = (110, 110, 187)
MILLIMETRES = 5.0

# Outline of the trunk: height above mid-thigh, half width, half depth, all in millimetres.
TRUNK = np.array(
    [
        (60, 165, 105),
        (160, 178, 116),
        (230, 178, 118),
        (320, 152, 104),
        (420, 152, 104),
        (520, 166, 112),
        (620, 176, 114),
        (690, 190, 100),
        (735, 150, 78),
        (770, 62, 62),
    ]
)


class Patient:
    """A volume under construction; uptake is in SUV, positions in millimetres (left, back, head)."""

    def __init__(self) -> None:
        nx, ny, nz = SHAPE
        self.x = (np.arange(nx, dtype=np.float32)[:, None, None] - (nx - 1) / 2) * np.float32(MILLIMETRES)
        self.y = (np.arange(ny, dtype=np.float32)[None, :, None] - (ny - 1) / 2) * np.float32(MILLIMETRES)
        self.z = np.arange(nz, dtype=np.float32)[None, None, :] * np.float32(MILLIMETRES)
        self.suv = np.zeros(SHAPE, dtype=np.float32)

    def ellipsoid(self, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        """Return each voxel's distance from the centre; 1 is the surface."""
        axes = zip((self.x, self.y, self.z), centre, radii, strict=True)
        x, y, z = (((axis - np.float32(middle)) / np.float32(radius)) ** 2 for axis, middle, radius in axes)
        return np.sqrt((x + y) + z)

    def fill(self, inside: np.ndarray, suv: float | np.ndarray) -> None:
        """Set the uptake where `inside` holds."""
        np.copyto(self.suv, suv, casting="same_kind", where=inside)

    def tube(self, points: list[tuple[float, float, float]], radius: float, suv: float) -> None:
        """Lay a tube along a smooth line through `points`."""
        knots = np.array(points, dtype=float)
        fine = np.linspace(0, len(knots) - 1, 14 * len(knots))
        line = np.stack([np.interp(fine, np.arange(len(knots)), knots[:, axis]) for axis in range(3)], axis=1)
        for centre in line:
            box = tuple(
                slice(
                    max(0, int((c - radius - o) // MILLIMETRES)),
                    max(0, int((c + radius - o) // MILLIMETRES) + 2),
                )
                for c, o in zip(centre, (self.x.min(), self.y.min(), 0.0), strict=True)
            )
            near = (self.x[box[0]] - centre[0]) ** 2 + (self.y[:, box[1]] - centre[1]) ** 2
            near = near + (self.z[:, :, box[2]] - centre[2]) ** 2
            self.suv[box] = np.where(near < radius**2, suv, self.suv[box])


def phantom() -> np.ndarray:
    """Return the volume, float32 of SHAPE, in C-order."""
    patient = Patient()
    _body(patient)
    _skeleton(patient)
    _chest(patient)
    _abdomen(patient)
    _head(patient)
    _lesions(patient)
    return np.ascontiguousarray(_as_scanned(patient.suv), dtype="<f4")


def _body(p: Patient) -> None:
    trunk_z = TRUNK[:, 0]
    width = np.interp(p.z, trunk_z, TRUNK[:, 1])
    depth = np.interp(p.z, trunk_z, TRUNK[:, 2])
    trunk = np.sqrt((p.x / width) ** 2 + ((p.y - 5) / depth) ** 2)
    trunk = np.where((p.z >= 110) & (p.z <= 770), trunk, 9)
    parts = [trunk, p.ellipsoid((0, -2, 770), (58, 60, 70)), p.ellipsoid((0, -8, 846), (74, 94, 86))]
    for side in (-1, 1):
        lean = 92 - 0.06 * p.z
        leg = np.sqrt(((p.x - side * lean) / 84) ** 2 + ((p.y - 8) / 92) ** 2)
        parts.append(np.where(p.z < 190, leg, 9))
        bend = 236 - 0.055 * (p.z - 100)
        arm = np.sqrt(((p.x - side * bend) / 34) ** 2 + ((p.y - 12) / 38) ** 2)
        parts.append(np.where((p.z > 90) & (p.z < 690), arm, 9))
        parts.append(p.ellipsoid((side * 185, 8, 686), (56, 58, 56)))
    outline = np.minimum.reduce(parts)
    p.fill(outline < 1, 0.32)
    p.fill(outline < 0.86, 0.72)


def _skeleton(p: Patient) -> None:
    for side in (-1, 1):
        p.tube([(side * 92, 12, 0), (side * 98, 10, 150), (side * 92, 8, 195)], 13, 1.0)
        iliac = p.ellipsoid((side * 92, 28, 258), (62, 60, 66))
        p.fill((iliac < 1) & (iliac > 0.8) & (side * p.x > 84) & (p.y > -20), 1.3)
        p.fill(p.ellipsoid((side * 92, 8, 200), (23, 23, 23)) < 1, 1.2)
        p.tube([(side * 205, 14, 430), (side * 190, 12, 680)], 10, 0.95)
        p.tube([(side * 225, 12, 110), (side * 205, 14, 430)], 8, 0.9)
        p.tube([(side * 20, -62, 715), (side * 90, -40, 728), (side * 168, 0, 712)], 7, 1.1)
    p.fill(p.ellipsoid((0, 82, 258), (44, 22, 46)) < 1, 1.7)
    p.tube([(0, -92, 560), (0, -88, 690)], 11, 1.3)
    curve = 62 + 12 * np.sin((p.z - 250) / 110)
    curve = np.where(p.z > 690, curve - 0.28 * (p.z - 690), curve)
    vertebra = np.sqrt((p.x / 22) ** 2 + ((p.y - curve) / 19) ** 2)
    marrow = np.where(np.mod(p.z, 34) < 25, 2.1, 0.9)
    p.fill((vertebra < 1) & (p.z > 235) & (p.z < 800), marrow)
    cage = np.sqrt((p.x / 142) ** 2 + ((p.y - 4) / 98) ** 2)
    rib = np.mod(p.z + 0.42 * p.y, 33) < 9
    p.fill((cage > 0.93) & (cage < 1.03) & rib & (p.z > 475) & (p.z < 705) & (np.abs(p.x) > 14), 1.25)


def _chest(p: Patient) -> None:
    for side in (-1, 1):
        lung = p.ellipsoid((side * 72, 4, 560), (60, 84, 158))
        dome = 505 + 18 * np.cos((p.x - side * 72) / 40) * np.cos(p.y / 60) + (8 if side < 0 else 0)
        p.fill((lung < 1) & (p.z > dome), 0.3)
        hilum = [(side * 24, 10, 612), (side * 52, 6, 598), (side * 78, 0, 574)]
        p.tube(hilum, 7, 0.85)
        p.tube([(side * 52, 6, 598), (side * 84, 12, 632)], 5, 0.7)
    p.fill((p.ellipsoid((0, 0, 610), (30, 70, 95)) < 1), 0.95)
    p.tube([(0, 6, 800), (0, 10, 640)], 8, 0.15)
    heart = p.ellipsoid((30, -36, 560), (52, 44, 50))
    p.fill(heart < 1.1, 1.1)
    tilted = p.ellipsoid((38, -38, 552), (38, 36, 44))
    wall = (tilted < 1) & (tilted > 0.62) & ((p.z - 552) - 0.5 * (p.x - 38) < 26)
    p.fill(tilted < 0.62, 1.5)
    p.fill(wall, 5.2)
    p.tube([(8, -24, 590), (0, -18, 640), (16, 14, 662), (26, 36, 620), (24, 34, 480), (6, 34, 310)], 12, 1.55)
    p.tube([(-24, -18, 680), (-26, -14, 580)], 9, 1.45)


def _abdomen(p: Patient) -> None:
    liver = p.ellipsoid((-62, -6, 470), (86, 82, 62))
    left_lobe = p.ellipsoid((8, -46, 486), (62, 40, 34))
    p.fill((liver < 1) | (left_lobe < 1), 2.35)
    p.tube([(-40, 0, 462), (-70, 10, 470), (-100, 20, 486)], 6, 1.8)
    p.fill(p.ellipsoid((-62, -62, 436), (15, 18, 26)) < 1, 0.5)
    p.fill(p.ellipsoid((104, 42, 478), (30, 42, 46)) < 1, 1.95)
    stomach = p.ellipsoid((66, -28, 470), (44, 40, 48))
    p.fill(stomach < 1, 1.9)
    p.fill(stomach < 0.74, 0.5)
    p.tube([(-30, 6, 420), (10, 0, 428), (64, 16, 444)], 12, 1.5)
    for side, z in ((-1, 402), (1, 414)):
        kidney = p.ellipsoid((side * 66, 46, z), (28, 24, 52))
        p.fill(kidney < 1, 3.6)
        p.fill(p.ellipsoid((side * 56, 42, z), (13, 11, 30)) < 1, 9.0)
        p.tube([(side * 46, 36, z - 20), (side * 36, 30, 320), (side * 24, 24, 222)], 5, 3.2)
    colon = [
        (-112, -4, 268),
        (-116, -8, 410),
        (-58, -52, 388),
        (58, -54, 392),
        (116, 4, 428),
        (116, 6, 282),
        (62, -6, 246),
    ]
    p.tube(colon, 17, 1.35)
    p.tube(colon, 9, 0.65)
    loops = [
        (62 * np.sin(turn * 1.9), -34 + 20 * np.cos(turn * 2.7), 290 + 78 * (turn / 14))
        for turn in np.linspace(0, 14, 30)
    ]
    p.tube(loops, 11, 1.45)
    p.fill(p.ellipsoid((0, -22, 202), (38, 32, 30)) < 1, 11.0)
    p.tube([(0, 30, 240), (0, 46, 190), (0, 38, 160)], 13, 1.3)


def _head(p: Patient) -> None:
    skull = p.ellipsoid((0, 2, 868), (70, 88, 66))
    p.fill((skull < 1) & (skull > 0.93), 0.55)
    brain = p.ellipsoid((0, 4, 870), (62, 79, 57))
    folds = np.sin(p.x / 6.5 + 1.3 * np.sin(p.z / 11)) * np.sin(p.y / 7.5 + np.cos(p.x / 12)) * np.cos(p.z / 8)
    inside = (brain < 1) & (p.z > 826)
    p.fill(inside, 3.2)
    p.fill(inside & (brain > 0.74 + 0.13 * folds), 7.6)
    p.fill(inside & (np.abs(p.x) < 3.5) & (brain > 0.45), 1.6)
    for side in (-1, 1):
        p.fill(p.ellipsoid((side * 24, -6, 866), (11, 22, 16)) < 1, 7.9)
        p.fill(p.ellipsoid((side * 12, 18, 866), (10, 14, 11)) < 1, 7.2)
        horn = p.ellipsoid((side * (9 + 0.12 * np.abs(p.y)), 6, 886), (6, 44, 9))
        p.fill(horn < 1, 0.7)
        p.fill(p.ellipsoid((side * 26, 48, 828), (30, 26, 19)) < 1, 6.0)
        p.fill(p.ellipsoid((side * 32, -76, 838), (13, 13, 13)) < 1, 0.9)
        p.fill(p.ellipsoid((side * 54, -6, 800), (11, 15, 20)) < 1, 1.9)
        p.fill(p.ellipsoid((side * 17, -24, 786), (8, 10, 11)) < 1, 3.2)
    p.tube([(0, 30, 838), (0, 34, 800)], 10, 4.2)
    p.fill(p.ellipsoid((0, -62, 812), (15, 26, 16)) < 1, 0.15)
    p.fill(p.ellipsoid((0, -34, 750), (20, 12, 16)) < 1, 1.9)


def _lesions(p: Patient) -> None:
    p.fill(p.ellipsoid((-84, 14, 640), (15, 14, 15)) < 1, 9.5)
    p.fill(p.ellipsoid((-84, 14, 640), (7, 6, 7)) < 1, 4.0)
    p.fill(p.ellipsoid((-22, 12, 628), (10, 9, 12)) < 1, 7.0)
    p.fill(p.ellipsoid((-96, 8, 448), (13, 12, 12)) < 1, 7.5)
    p.fill(p.ellipsoid((6, 62, 352), (11, 11, 10)) < 1, 7.0)


def _as_scanned(suv: np.ndarray) -> np.ndarray:
    """Blur like a scanner (about 8 mm) and add the mottle of counted photons."""
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    hash_ = np.sin(x * 12.9898 + y * 78.233 + z * 37.719) * 43758.5453
    mottle = ((hash_ - np.floor(hash_)) - 0.5).astype(np.float32)
    blurred = _blur(_blur(suv))
    return np.clip(blurred + _blur(mottle) * 1.1 * np.sqrt(blurred), 0, None)


def _blur(volume: np.ndarray) -> np.ndarray:
    for axis in range(3):
        padded = np.pad(volume, [(int(axis == each),) * 2 for each in range(3)], mode="edge")
        count = volume.shape[axis]
        before, after = (np.take(padded, np.arange(start, start + count), axis) for start in (0, 2))
        volume = 0.5 * volume + 0.25 * (before + after)
    return volume
