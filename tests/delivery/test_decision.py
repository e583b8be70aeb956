"""The decision object."""

import numpy as np
import pandas as pd
import pytest

from prompt_processing.delivery.decision import TABLES, Decision
from prompt_processing.domain.decision import DecisionInfo
from prompt_processing.domain.errors import RepositoryError


def info(**changes):
    return DecisionInfo(
        **{
            "instrument": "LATISS",
            "group": "2026-03-16T02:01:03.123#1",
            "detector": 0,
            "day_obs": 20260315,
            "exposure": 2026031500001,
            "visit": 3536546312300001,
            "midpoint_mjd_tai": 61115.1,
            "shutter_close_mjd_tai": 61115.1002,
            "raws": ("LATISS/20260315/AT_O_20260315_000001/AT_O_20260315_000001_R00_S00.fits",),
            "attempt": 1,
            "pipeline": "ApPipe",
            "alert_schema_id": 1101,
            "flags": ("fallback",),
            **changes,
        }
    )


def rows():
    return pd.DataFrame(
        {
            "diaSourceId": np.array([214748364800000001, 2**62 + 1], dtype=np.int64),
            "diaObjectId": pd.array([2**62 + 1, None], dtype="Int64"),
            "psfFlux": np.array([1.5, np.nan], dtype=np.float32),
            "ra": [1e-300, 359.99999999999994],
            "centroid_flag": pd.array([True, None], dtype="boolean"),
            "isDipole": [True, False],
            "band": ["r", None],
            "reliabilityVersion": pd.Series([None, None], dtype=object),
            "mixed": pd.Series([7, None], dtype=object),
        }
    ).set_axis([5, 9])


def decision(**changes):
    return Decision(
        **{
            "info": info(),
            "dia_object": rows().iloc[:0],
            "dia_source": rows(),
            "dia_forced_source": rows().iloc[::-1],
            "packets": ((3, b"\0abc"), (1, b"")),
            **changes,
        }
    )


def test_a_decision_survives_its_trip_exactly():
    made = decision()
    back = Decision.from_bytes(made.to_bytes())
    assert back.info == made.info
    assert back.packets == ((3, b"\0abc"), (1, b""))
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(back, name), getattr(made, name), check_exact=True)
    kept = back.dia_source
    assert kept["diaObjectId"].tolist() == [2**62 + 1, pd.NA]
    assert kept["centroid_flag"].tolist() == [True, pd.NA]
    assert kept["psfFlux"].dtype == np.float32
    assert kept["ra"].tolist() == [1e-300, 359.99999999999994]
    assert kept["mixed"].tolist() == [7, pd.NA]
    # A table without rows keeps its types too.
    typed = [column for column in kept if column != "mixed"]
    assert back.dia_object[typed].dtypes.equals(kept[typed].dtypes)


def test_the_same_decision_has_the_same_bytes():
    assert decision().to_bytes() == decision().to_bytes()
    back = Decision.from_bytes(decision().to_bytes())
    assert back.to_bytes() == decision().to_bytes()
    assert back == decision()
    assert back != decision(packets=())
    assert back != decision(dia_source=rows().assign(psfFlux=np.float32(2)))


def test_the_place_depends_on_the_message_alone():
    assert decision().path == "LATISS/20260315/2026-03-16T02_3A01_3A03.123_231/0.zip"


@pytest.mark.parametrize("kept", [slice(0), slice(-30), slice(-400), slice(100)])
def test_what_is_no_decision_is_refused(kept):
    with pytest.raises(RepositoryError, match="here"):
        Decision.from_bytes(decision().to_bytes()[kept], "here")


def test_another_format_is_refused():
    with pytest.raises(RepositoryError, match="format 3"):
        Decision.from_bytes(decision(info=info(format_version=3)).to_bytes())
