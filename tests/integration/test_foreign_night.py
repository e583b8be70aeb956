"""A night that this project has not written itself."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from prompt_processing.delivery.packets import decode
from prompt_processing.images.dia_flags import DISQUALIFYING_FLAGS
from support.foreign_night import write_foreign_night
from support.nights import decisions, play, prepare

pytestmark = pytest.mark.slow


def test_a_foreign_night_becomes_alerts(tmp_path):
    foreign = write_foreign_night(tmp_path / "night")
    repo = prepare(tmp_path / "repo", foreign.folder)
    visits, problems = play(repo, foreign.folder)
    assert problems == []
    assert [str(visit.outcome) for visit in visits] == ["processed"] * 2
    ra, dec, flux = np.array(foreign.transients).T
    truth = SkyCoord(ra, dec, unit="deg")
    for decision in decisions(repo):
        alerts = [decode(data)["diaSource"] for _, data in decision.packets]
        found = SkyCoord([a["ra"] for a in alerts], [a["dec"] for a in alerts], unit="deg")
        index, distance, _ = truth.match_to_catalog_sky(found)
        assert (distance < 0.1 * u.arcsec).all()
        measured = np.array([alerts[i]["psfFlux"] for i in index])
        # Six sources, and a PSF and a zero point from a few dozen stars.
        assert abs(np.median(measured / flux) - 1) < 0.05
        real = [a for a in alerts if not any(a[name] for name in DISQUALIFYING_FLAGS)]
        assert len(real) <= len(truth) + 3
