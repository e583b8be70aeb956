import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from astropy.io import fits
from astropy.time import Time

from local_cloud.visits import EVENT
from support.latiss_files import primary_header

START = Time("2026-03-16T02:00:00", scale="tai")
DAY_OBS = 20260315


@dataclass
class TinyNight:
    """A night of LATISS whose raws are nothing but headers."""

    folder: Path
    groups: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    @property
    def raws(self):
        return [self.folder / "raw" / key for key in self.keys]

    def sidecar(self, number):
        return self.raws[number].with_suffix(".json")


@pytest.fixture
def make_night(tmp_path):
    """Return a function that makes a night with visits of 1 s, each announced 5 s before it starts."""

    def make(visits=3, *, cadence=30.0, ahead=5.0, events=True):
        night = TinyNight(tmp_path / "night")
        lines = []
        for number in range(visits):
            begin = START.unix_tai + number * cadence
            group = f"2026-03-16T01:59:{number:02d}.000"
            key = write_raw(night.folder / "raw", number + 1, begin, group)
            night.groups.append(group)
            night.keys.append(key)
            lines.append(json.dumps(event(group, begin, ahead)) + "\n")
        (night.folder / "events.jsonl").write_text("".join(lines if events else []))
        return night

    return make


def event(group, begin, ahead):
    sent = begin - ahead
    return {
        **EVENT, "groupId": group, "startTime": begin - 0.4, "duration": 2.0,
        "private_sndStamp": sent, "private_efdStamp": sent - 37.0,
    }  # fmt: skip


def write_raw(root, seq, begin, group):
    obs_id = f"AT_O_{DAY_OBS}_{seq:06d}"
    opened, closed = Time(begin, format="unix_tai"), Time(begin + 1.0, format="unix_tai")
    header = primary_header(
        OBSID=obs_id, DAYOBS=str(DAY_OBS), SEQNUM=seq, GROUPID=group, EXPTIME=1.0, DARKTIME=1.0,
        DATE_BEG=opened.isot, DATE_END=closed.isot, MJD_BEG=opened.mjd, MJD_END=closed.mjd,
    )  # fmt: skip
    path = root / "LATISS" / str(DAY_OBS) / obs_id / f"{obs_id}_R00_S00.fits"
    path.parent.mkdir(parents=True)
    fits.PrimaryHDU(header=header).writeto(path)
    path.with_suffix(".json").write_text(json.dumps({"GROUPID": group}))
    return path.relative_to(root).as_posix()
