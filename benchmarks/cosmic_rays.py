"""Cosmic rays on one full-size image: ours beside astroscrappy, in one run.

Uses the night and the repository of ``make demo``; nothing is written into them.
"""

import argparse
import time
from pathlib import Path

import astroscrappy
import numpy as np
from lsst.daf.butler import Butler

from prompt_processing.domain import collections
from prompt_processing.images.cosmic_rays import mask_cosmic_rays
from prompt_processing.images.isr import process_raw
from prompt_processing.images.masks import UNUSABLE, MaskPlane
from prompt_processing.instruments.cameras import LATISS
from prompt_processing.instruments.raw import read_raw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder of make demo")
    demo = parser.parse_args().demo
    raw = read_raw(min((demo / "night" / "raw").rglob("*.fits")))
    with Butler.from_config(demo / "repo") as butler:
        calibs = {
            name: butler.get(
                butler.query_datasets(
                    name, collections=f"{collections.calibs('LATISS')}/*", find_first=False
                )[0]
            )
            for name in ("bias", "dark", "flat", "defects", "ptc")
        }
    ptc = calibs.pop("ptc")
    image = process_raw(
        raw.amplifiers, **calibs, gains=ptc["gain"], read_noises=ptc["read_noise"],
        exposure_time=30.0, saturation=LATISS.saturation,
    )  # fmt: skip
    mask_cosmic_rays(image.copy())  # compiles
    ours = image.copy()
    start = time.perf_counter()
    mask_cosmic_rays(ours)
    own_time = time.perf_counter() - start
    hits = ours.mask & np.uint16(MaskPlane.CR) != 0
    print(f"ours {own_time:.2f} s, {hits.sum()} pixels")
    unusable = image.mask & np.uint16(UNUSABLE & ~MaskPlane.EDGE) != 0
    for separable in (True, False):
        start = time.perf_counter()
        theirs, _ = astroscrappy.detect_cosmics(
            image.image, inmask=unusable, invar=image.variance, niter=1, sepmed=separable
        )
        seconds = time.perf_counter() - start
        print(
            f"astroscrappy, sepmed={separable}: {seconds:.2f} s ({seconds / own_time:.1f} times ours), "
            f"{theirs.sum()} pixels, {(theirs != hits).sum()} judged otherwise"
        )


if __name__ == "__main__":
    main()
