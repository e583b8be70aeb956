"""Whatever is wrong with an event, a raw or the repository: it is named, and the night goes on."""

import json
import shutil

import numpy as np
import pytest
from astropy.io import fits
from lsst.daf.butler import Butler

from prompt_processing.config import Settings
from prompt_processing.domain.raws import parse_raw_key
from prompt_processing.factory.create import create_repository
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.storage import database
from support.nights import play

pytestmark = pytest.mark.slow

SECONDS = 1 / 86400


class Workshop:
    """Makes a night of variations of one good visit."""

    def __init__(self, source, folder):
        self.folder = folder
        self.path = min((source / "raw").rglob("*.fits"))
        self.event = json.loads((source / "events.jsonl").read_text().splitlines()[0])
        self.lines = []
        self.number = 0

    def add(self, *, edit=None, damage=None, event=True, raw=True, sidecar=True, **changes):
        """Add a visit: its header is edited, its file damaged, its event changed; return its group."""
        self.number += 1
        group = f"group-{self.number}"
        shift = 4.0 * self.number
        if raw:
            self._add_raw(group, shift, edit, damage, sidecar=sidecar)
        if event:
            fields = {**self.event, "groupId": group, **changes}
            for name in ("startTime", "private_sndStamp", "private_efdStamp"):
                fields[name] = self.event[name] + shift
            self.lines.append(json.dumps(fields))
        return group

    def _add_raw(self, group, shift, edit, damage, *, sidecar):
        old = parse_raw_key(self.path.relative_to(self.path.parents[3]).as_posix())
        seq = 900 + self.number
        obs_id = f"{old.obs_id[:-6]}{seq:06d}"
        target = self.folder / "raw" / "LATISS" / str(old.day_obs) / obs_id / f"{obs_id}_R00_S00.fits"
        target.parent.mkdir(parents=True)
        with fits.open(self.path) as hdus:
            header = hdus[0].header
            header.update({"OBSID": obs_id, "SEQNUM": seq, "GROUPID": group})
            for name in ("MJD-BEG", "MJD-END"):
                header[name] += shift * SECONDS
            for name in ("DATE-BEG", "DATE-END"):
                header.remove(name, ignore_missing=True)
            if edit is not None:
                edit(hdus)
            hdus.writeto(target)
        if damage is not None:
            target.write_bytes(damage(target.read_bytes()))
        if sidecar:
            target.with_suffix(".json").write_text(json.dumps({"GROUPID": group}))

    def finish(self, *more_lines):
        (self.folder / "events.jsonl").write_text("\n".join([*self.lines, *more_lines]) + "\n")
        return self.folder


def light(hdus):
    """Yield the pixels of every amplifier that saw light."""
    for index in range(1, len(hdus)):
        section = hdus[index].header.get("DATASEC")
        if section is not None:
            (x1, x2), (y1, y2) = (map(int, part.split(":")) for part in section.strip("[]").split(","))
            hdus[index].data = hdus[index].data.astype(np.float32)
            yield hdus[index].data[y1 - 1 : y2, x1 - 1 : x2]


def lose(hdus):
    for pixels in light(hdus):
        pixels[:] = np.nan


def saturate(hdus):
    for pixels in light(hdus):
        pixels[:] = pixels + 200_000


def remove(*names):
    def edit(hdus):
        for name in names:
            hdus[0].header.remove(name, ignore_missing=True)

    return edit


def put(name, value):
    return lambda hdus: hdus[0].header.set(name, value)


def point_to(ra, dec):
    return lambda hdus: hdus[0].header.update({"RA": ra, "DEC": dec, "RASTART": ra, "DECSTART": dec})


@pytest.fixture(scope="module")
def outcomes(night, prepared, tmp_path_factory):
    """What becomes of one visit of each kind, played as one night."""
    folder = tmp_path_factory.mktemp("bad")
    repo = folder / "repo"
    shutil.copytree(prepared, repo)
    (repo / "prompt.yaml").write_text("worker: {image_timeout_s: 8.0}\n")
    shop = Workshop(night, folder / "night")
    groups = {
        "empty": shop.add(damage=lambda _: b""),
        "not fits": shop.add(damage=lambda _: b"This is not FITS.\n" * 100),
        "cut header": shop.add(damage=lambda data: data[:1000]),
        "cut pixels": shop.add(damage=lambda data: data[: len(data) // 2]),
        "wrong instrument": shop.add(edit=put("INSTRUME", "HSC")),
        "no exposure time": shop.add(edit=remove("EXPTIME")),
        "no position": shop.add(edit=remove("RA", "DEC", "RASTART", "DECSTART")),
        "saturated": shop.add(edit=saturate),
        "nan": shop.add(edit=lose),
        "dark": shop.add(edit=put("IMGTYPE", "DARK")),
        "no image": shop.add(raw=False),
        "no refcat": shop.add(position=[200.0, 40.0], edit=point_to(200.0, 40.0)),
        "no observation": shop.add(instrument="", raw=False),
        "unknown instrument": shop.add(instrument="HAL", raw=False),
        "alt-az": shop.add(coordinateSystem=3, raw=False),
        "no visit": shop.add(event=False),
        "good": shop.add(),
    }
    lacking = {name: value for name, value in shop.event.items() if name != "startTime"}
    shop.finish("{not json", json.dumps({**lacking, "groupId": "lacking"}))
    visits, problems = play(repo, shop.folder)
    by_group = {visit.group: visit for visit in visits}
    return repo, {name: by_group.get(group) for name, group in groups.items()}, groups, problems


@pytest.mark.parametrize(
    ("name", "outcome", "word"),
    [
        ("empty", "failed:bad-raw", "empty"),
        ("not fits", "failed:bad-raw", "FITS"),
        ("cut header", "failed:bad-raw", "_000903_"),
        ("cut pixels", "failed:bad-raw", "truncated"),
        ("wrong instrument", "failed:wrong-instrument", "HSC"),
        ("no exposure time", "failed:bad-header", "EXPTIME"),
        ("no position", "failed:bad-header", "RA"),
        ("saturated", "failed:bad-raw", "_000908_"),
        ("nan", "failed:bad-raw", "_000909_"),
        ("dark", "failed:plan-mismatch", "dark"),
        ("no image", "skipped:no-image", "8 s"),
    ],
)
def test_a_bad_visit_ends_with_what_and_where(outcomes, name, outcome, word):
    visit = outcomes[1][name]
    assert str(visit.outcome) == outcome
    assert word in visit.outcome.detail
    assert visit.n_alerts == 0


def test_a_field_without_refcat_and_template_falls_back_to_what_is_possible(outcomes):
    repo, visits, _, _ = outcomes
    assert str(visits["no refcat"].outcome) == "processed (fallback)"
    with Butler.from_config(repo) as butler:
        found = butler.query_datasets("post_isr_image", collections="LATISS/prompt/*", find_first=False)
    assert len(found) == 1


def test_events_that_cannot_be_played_are_named(outcomes):
    _, visits, groups, problems = outcomes
    text = "\n".join(problems)
    assert "events.jsonl line 17" in text
    assert "field startTime is missing" in text
    assert groups["unknown instrument"] in text
    assert "ICRS" in text
    assert visits["no observation"] is None


def test_an_image_without_a_visit_is_reported(outcomes):
    repo, _, groups, _ = outcomes
    ledger = SqlLedger(database.engine(Settings.load(repo).repository.ledger_url))
    assert [arrival.pointer.group for arrival in ledger.arrivals(without_visit=True)] == [groups["no visit"]]


def test_the_night_goes_on_and_nothing_half_written_is_left(outcomes):
    repo, visits, _, _ = outcomes
    assert str(visits["good"].outcome) == "processed"
    assert visits["good"].n_alerts > 0
    with Butler.from_config(repo) as butler:
        images = butler.query_datasets("difference_image", collections="LATISS/prompt/*", find_first=False)
        assert len(images) == 1
        for ref in images:
            assert butler.stored(ref)


def test_without_calibs_a_visit_is_skipped_with_what_is_missing(night, tmp_path):
    repo = tmp_path / "repo"
    create_repository(repo)
    shop = Workshop(night, tmp_path / "night")
    shop.add()
    (visit,), _ = play(repo, shop.finish())
    assert str(visit.outcome) == "skipped:no-calibs"
    assert "bias" in visit.outcome.detail
