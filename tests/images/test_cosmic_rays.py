import astroscrappy
import numpy as np

from prompt_processing.images.cosmic_rays import mask_cosmic_rays
from prompt_processing.images.masks import MaskPlane


def hit(scene, n, seed=4):
    """Add short tracks; return the pixels."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(scene.masked.shape, bool)
    for _ in range(n):
        y, x = rng.integers(12, np.array(scene.masked.shape) - 12)
        dy, dx = rng.normal(size=2) / 1.5
        for k in range(rng.integers(1, 5)):
            truth[int(y + k * dy), int(x + k * dx)] = True
    scene.masked.image[truth] += rng.uniform(600, 5000, truth.sum())
    scene.masked.variance[truth] += 2000
    return truth


def test_hits_are_found_replaced_and_stars_are_left_alone(make_scene):
    for fwhm in (3.0, 9.0):
        scene = make_scene((500, 512), fwhm=fwhm, high=5e5)
        clean = scene.masked.image.copy()
        truth = hit(scene, 60)
        n = mask_cosmic_rays(scene.masked)
        found = (scene.masked.mask & np.uint16(MaskPlane.CR)) != 0
        assert n == found.sum()
        assert (found & truth).sum() > 0.97 * truth.sum()
        # What else is marked touches a hit, or is noise (4.5 sigma: none of 256000 pixels or few).
        near = np.zeros_like(truth)
        for y, x in np.argwhere(truth):
            near[y - 2 : y + 3, x - 2 : x + 3] = True
        assert (found & ~near).sum() < 25
        for x, y in zip(scene.x, scene.y, strict=True):
            core = (slice(max(0, int(y) - 1), int(y) + 3), slice(max(0, int(x) - 1), int(x) + 3))
            assert not found[core].any() or near[core].any()
        error = (scene.masked.image - clean)[found & truth] / np.sqrt(scene.masked.variance[found & truth])
        assert np.median(np.abs(error)) < 1.5
        assert (scene.masked.mask[found] & np.uint16(MaskPlane.INTRP)).all()


def test_same_pixels_as_astroscrappy(make_scene):
    scene = make_scene((500, 512))
    hit(scene, 80)
    reference, _ = astroscrappy.detect_cosmics(
        scene.masked.image, invar=scene.masked.variance, sigclip=4.5, sigfrac=0.3, objlim=5.0, gain=1.0,
        readnoise=9.0, satlevel=1e9, niter=1, sepmed=False,
    )  # fmt: skip
    mask_cosmic_rays(scene.masked)
    found = (scene.masked.mask & np.uint16(MaskPlane.CR)) != 0
    assert reference.sum() > 100
    assert (found != reference).sum() <= 0.02 * reference.sum()


def test_saturated_and_masked_pixels_are_not_touched(make_scene):
    scene = make_scene((200, 220), n_stars=3, n_galaxies=0)
    image = scene.masked.image
    image[50:150, 100:103] = 60000
    scene.masked.mask[48:152, 98:105] = MaskPlane.SAT
    before = image[48:152, 98:105].copy()
    mask_cosmic_rays(scene.masked)
    assert np.array_equal(image[48:152, 98:105], before)
    assert not (scene.masked.mask[48:152, 98:105] & np.uint16(MaskPlane.CR)).any()


def test_nothing_usable_gives_no_hits(make_scene):
    scene = make_scene((60, 60), n_stars=0, n_galaxies=0)
    scene.masked.mask[:] = MaskPlane.NO_DATA
    assert mask_cosmic_rays(scene.masked) == 0
