"""Which pipelines a visit gets."""

from datetime import UTC, datetime

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from lsst.sphgeom import HealpixPixelization, LonLat, UnitVector3d

from local_cloud.visits import detector_visit
from prompt_processing.config import PipelineSettings
from prompt_processing.domain.errors import ConfigError
from prompt_processing.domain.visit import Dome
from prompt_processing.selection.override import Override
from prompt_processing.selection.selection import Selection, lot

NOON = datetime(2026, 3, 15, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def load(tmp_path):
    """Return a function that reads rules; pipelines A, B and C exist."""
    for name in "ABC":
        (tmp_path / "pipelines").mkdir(exist_ok=True)
        (tmp_path / "pipelines" / f"{name}.yaml").touch()

    def read(text, deployment="laptop"):
        file = tmp_path / "pipelines" / "selection.yaml"
        file.write_text(text)
        return Selection.load(file, lambda name: PipelineSettings().find(name, tmp_path), deployment)

    return read


def rule(name, when, pipelines="[A.yaml]", more=""):
    return f"  - name: {name}\n    when: {when}\n    pipelines: {pipelines}\n{more}"


def chosen(selection, centre=(10.0, -20.0), override=None, **changes):
    return selection.choose(detector_visit(**changes), centre, override)


def names(choice):
    return [path.stem for path in choice.pipelines]


@pytest.mark.parametrize(
    ("when", "met", "not_met"),
    [
        ("{instrument: LATISS}", {}, None),
        ("{survey: BLOCK-T*}", {"survey": "BLOCK-T12"}, {"survey": "BLOCK-12"}),
        ("{survey: [x, '']}", {"survey": ""}, {"survey": "y"}),
        ("{filter: r}", {"filters": "SDSSr_65mm~empty"}, {"filters": "SDSSg_65mm~empty"}),
        ("{filter: 'SDSSr*'}", {"filters": "SDSSr_65mm~empty"}, {"filters": ""}),
        (
            "{filter: [g, r]}",
            {"filters": "SDSSr_65mm~empty,SDSSg_65mm~empty"},
            {"filters": "SDSSi_65mm~empty"},
        ),
        ("{filter: r}", {"filters": "SDSSr_65mm~empty"}, {"filters": "SDSSr_65mm~empty,SDSSg_65mm~empty"}),
        ("{image_type: calibration}", {"dome": Dome.CLOSED}, {"dome": Dome.OPEN}),
        ("{image_type: science}", {"dome": Dome.EITHER}, {"dome": Dome.CLOSED}),
        ("{detector: [0, 10-20]}", {"detector": 0}, {"detector": 5}),
        ("{date: {from: 2026-03-15}}", {"startTime": NOON + 1}, {"startTime": NOON - 1}),
        ("{date: {to: 2026-03-14}}", {"startTime": NOON - 1}, {"startTime": NOON + 1}),
        ("{date: {from: 2026-03-14, to: 2026-03-14}}", {"startTime": NOON - 1}, {"startTime": NOON + 1}),
    ],
)
def test_conditions(load, when, met, not_met):
    selection = load("rules:\n" + rule("one", when))
    choice = chosen(selection, **met)
    assert (choice.rule, names(choice), choice.reasons) == ("one", ["A"], ("one: met",))
    if not_met is not None:
        choice = chosen(selection, **not_met)
        assert (choice.rule, choice.pipelines) == ("", ())
        assert choice.reasons[0].startswith("one: not met: ")


@pytest.mark.parametrize(
    ("shape", "inside", "outside"),
    [
        ("{box: {ra: [5, 15], dec: [-30, -10]}}", (10, -20), (20, -20)),
        ("{box: {ra: [350, 15], dec: [-30, -10]}}", (355, -20), (180, -20)),
        ("{box: {ra: [350, 15], dec: [-30, -10]}}", (5, -20), (5, -5)),
        ("{box: {ra: [350, 360], dec: [-30, -10]}}", (0, -20), (0.1, -20)),
        ("{circle: {ra: 359.5, dec: 0, radius_deg: 1}}", (0.4, 0), (0.6, 0)),
        ("{circle: {ra: 0, dec: 90, radius_deg: 1}}", (200, 89.1), (200, 88.9)),
    ],
)
def test_positions(load, shape, inside, outside):
    selection = load("rules:\n" + rule("field", f"{{position: {shape}}}"))
    assert chosen(selection, inside).rule == "field"
    assert chosen(selection, outside).rule == ""


@pytest.mark.parametrize("dtype", [np.int16, np.bool_])
def test_a_healpix_map(load, tmp_path, dtype):
    """The same pixels as an independent implementation of the pixelisation has."""
    level, sky = 4, HealpixPixelization(4)
    values = np.zeros(12 * 4**level, dtype)
    point = UnitVector3d(LonLat.fromDegrees(10.0, -20.0))
    values[sky.index(point)] = 1
    table = fits.BinTableHDU.from_columns(
        [fits.Column("IN", "L" if dtype is np.bool_ else "I", array=values)]
    )
    table.header.update(
        {"PIXTYPE": "HEALPIX", "ORDERING": "NESTED", "NSIDE": 2**level, "INDXSCHM": "IMPLICIT"}
    )
    (tmp_path / "pipelines").mkdir(exist_ok=True)
    table.writeto(tmp_path / "pipelines" / "crowded.fits")
    selection = load("rules:\n" + rule("crowded", "{position: {healpix: crowded.fits}}"))
    assert chosen(selection, (10.0, -20.0)).rule == "crowded"
    assert chosen(selection, (30.0, -20.0)).rule == ""


@pytest.mark.parametrize(
    ("dtype", "cards", "reason"),
    [
        (np.float32, {}, "whole numbers"),
        (np.int16, {"COORDSYS": "G"}, "equatorial"),
        (np.int16, {"NSIDE": 32}, "NSIDE"),
    ],
)
def test_a_map_that_would_be_misunderstood_is_refused(load, tmp_path, dtype, cards, reason):
    values = np.ones(12 * 4**2, dtype)
    column = fits.Column("IN", "E" if dtype is np.float32 else "I", array=values)
    table = fits.BinTableHDU.from_columns([column])
    table.header.update({"ORDERING": "RING", "NSIDE": 4, "INDXSCHM": "IMPLICIT", **cards})
    (tmp_path / "pipelines").mkdir(exist_ok=True)
    table.writeto(tmp_path / "pipelines" / "map.fits")
    with pytest.raises(ConfigError, match=reason):
        load("rules:\n" + rule("map", "{position: {healpix: map.fits}}"))


def test_the_first_rule_that_is_met_decides_and_each_says_why(load):
    text = "rules:\n" + rule("night off", "{date: {to: 2020-01-01}}", "[]") + rule("blocks", "{survey: 'B*'}")
    choice = chosen(load(text + rule("rest", "{}", "[B.yaml, C.yaml]")), survey="B")
    assert (choice.rule, names(choice)) == ("blocks", ["A"])
    assert choice.reasons == ("night off: not met: the observing day is 2026-02-01", "blocks: met")
    choice = chosen(load(text + rule("rest", "{}", "[B.yaml, C.yaml]")), survey="X")
    assert (choice.rule, names(choice)) == ("rest", ["B", "C"])


def test_the_deployment_is_a_condition(load):
    text = "rules:\n" + rule("there", "{deployment: usdf}") + rule("here", "{}", "[B.yaml]")
    assert chosen(load(text)).rule == "here"
    assert chosen(load(text, "usdf")).rule == "there"


CANARY = "    canary: {share: 0.2, pipelines: [B.yaml]}\n"


def test_a_share_of_the_visits_gets_the_canary_with_all_of_their_detectors(load):
    selection = load("rules:\n" + rule("all", "{}", more=CANARY))
    choices = [chosen(selection, groupId=f"group {number}") for number in range(2000)]
    share = sum(choice.canary for choice in choices) / len(choices)
    assert abs(share - 0.2) < 0.03
    assert {tuple(names(choice)) for choice in choices if choice.canary} == {("B",)}
    for number in range(20):
        verdicts = {chosen(selection, groupId=f"group {number}", detector=one).canary for one in range(5)}
        assert len(verdicts) == 1


@given(st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable() and text.strip()))
def test_the_lot_is_a_share(group):
    visit = detector_visit().model_copy(update={"groupId": group})
    assert 0.0 <= lot(visit) < 1.0


def override(**changes):
    fields = {"action": "set", "pipelines": ("C.yaml",), "reason": "storm", "who": "me", "when": "now"}
    return Override(**{**fields, **changes})


def test_an_operator_decides_before_all_rules(load):
    selection = load("rules:\n" + rule("all", "{}"))
    choice = chosen(selection, override=override())
    assert (choice.rule, names(choice)) == ("override", ["C"])
    assert "storm" in choice.reasons[0]
    assert chosen(selection, override=override(pipelines=())).pipelines == ()
    assert chosen(selection, override=override(instrument="LSSTCam")).rule == "all"
    assert chosen(selection, override=override(survey="OTHER*")).rule == "all"
    with pytest.raises(ConfigError, match=r"Nothing\.yaml"):
        chosen(selection, override=override(pipelines=("Nothing.yaml",)))


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("rules: [", 1, "not valid YAML"),
        ("rules: []\n", 1, "at least 1 item"),
        ("rules:\n" + rule("a", "{surveys: x}"), 3, "surveys"),
        ("rules:\n" + rule("a", "{survey: []}"), 3, "survey"),
        ("rules:\n" + rule("a", "{}", "A.yaml"), 4, "pipelines"),
        ("rules:\n" + rule("a", "{}", "[Nothing.yaml]"), 4, "Nothing.yaml"),
        ("rules:\n" + rule("a", "{position: {box: {ra: [1, 2], dec: [5, -5]}}}"), 3, "no part of the sky"),
        ("rules:\n" + rule("a", "{position: {box: {ra: [1, 2], dec: [80, 95]}}}"), 3, "dec"),
        ("rules:\n" + rule("a", "{position: {circle: {ra: 1, dec: 2, radius_deg: 0}}}"), 3, "radius_deg"),
        ("rules:\n" + rule("a", "{position: {}}"), 3, "one of box, circle and healpix"),
        ("rules:\n" + rule("a", "{position: {healpix: no.fits}}"), 3, "no.fits"),
        ("rules:\n" + rule("a", "{date: {from: 2026-02-01, to: 2026-01-01}}"), 3, "is after"),
        ("rules:\n" + rule("a", "{date: {from: tomorrow}}"), 3, "date"),
        ("rules:\n" + rule("a", "{image_type: bias}"), 3, "image_type"),
        ("rules:\n" + rule("a", "{detector: [20-10]}"), 3, "holds no detector"),
        ("rules:\n" + rule("a", "{instrument: LATIS}"), 3, "no instrument 'LATIS'"),
        ("rules:\n" + rule("a", "{instrument: LATISS, detector: [0, 7]}"), 3, "no detector 7"),
        ("rules:\n" + rule("a", "{detector: 180-189}"), 3, "no detector 189"),
        ("rules:\n" + rule("a", "{date: {from: 2026-02-30}}"), None, "not valid YAML"),
        ("rules:\n" + rule("a", "{date: {}}"), 3, "from or to is needed"),
        ("rules:\n" + rule("a", "{survey: }"), 3, "survey: a value is missing"),
        ("rules:\n" + rule("a", "{filter: ['']}"), 3, "filter"),
        ("rules:\n" + rule("a", "{survey: x, survey: y}"), 3, "survey is there twice"),
        ("rules:\n" + rule("override", "{}"), 2, "this name is taken"),
        (
            "rules:\n" + rule("a", "{survey: [x, y]}") + rule("b", "{survey: y, filter: r}"),
            5,
            "all of its visits",
        ),
        ("rules:\n" + rule("a", "{survey: x}") + rule("a", "{survey: y}"), 5, "this name is taken"),
        ("rules:\n" + rule("a", "{survey: x}") + rule("b", "{survey: x}"), 5, "all of its visits"),
        ("rules:\n" + rule("a", "{}") + rule("b", "{survey: x}"), 5, "all of its visits"),
        ("rules:\n" + rule("a", "{}", more="    canary: {share: 1.5, pipelines: [B.yaml]}\n"), 5, "share"),
    ],
)
def test_every_mistake_is_told_with_its_line(load, tmp_path, text, line, reason):
    with pytest.raises(ConfigError) as told:
        load(text)
    messages = str(told.value).splitlines()
    file = tmp_path / "pipelines" / "selection.yaml"
    start = f"{file}:" if line is None else f"{file}:{line}:"
    assert any(message.startswith(start) and reason in message for message in messages), messages
