"""Pixels that take no time: two sources in every image, linked with what the APDB holds."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from astropy.time import Time

from prompt_processing.apdb.tables import conform
from prompt_processing.delivery.decision import Decision
from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.domain.clock import mjd_tai
from prompt_processing.domain.decision import DecisionInfo
from prompt_processing.domain.errors import RawError
from prompt_processing.domain.ids import detector_exposure_id, exposure_id, parse_obs_id, source_id
from prompt_processing.domain.outcome import Stopwatch
from prompt_processing.domain.raws import parse_raw_key
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.preload.footprint import field_region
from support.points import Faults

EXPOSURE = 30.0
"""Length of every visit [s]."""


class MemoryProducts:
    """Keeps names of products, and counts how often each was written anew."""

    def __init__(self) -> None:
        self.written: dict[tuple[str, str, int], list[str]] = {}

    def store(self, products: tuple[Any, list[str]]) -> int:
        visit, raws = products
        self.written.setdefault(visit, raws)
        return len(raws)


class TestPixels:
    """Finds two sources in every image and links them with what the APDB holds of the field."""

    __test__ = False

    def __init__(self, apdb: Any, landing: Path, faults: Faults) -> None:
        self._apdb, self._landing, self._faults = apdb, landing, faults

    def prepare(
        self, visit: DetectorVisit, watch: Stopwatch, decision: Decision | None = None
    ) -> "TestVisit":
        with watch.stage("preload"):
            self._faults.point("preload")
        region = field_region(visit.ra, visit.dec, (400, 400), 0.1, 60.0)
        history = self._apdb.history(region, mjd_tai(visit.predicted_shutter_close))
        return TestVisit(visit, history, self._landing, self._faults)


class TestVisit:
    """One visit of `TestPixels`."""

    __test__ = False

    def __init__(self, visit: DetectorVisit, history: Any, landing: Path, faults: Faults) -> None:
        self._visit, self._history, self._landing, self._faults = visit, history, landing, faults
        self._keys: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def process(self, keys: Any, watch: Any) -> None:
        for key in keys:
            if not (self._landing / key).exists():
                raise RawError(f"{key}: there is no such raw")
            self._faults.point("pixels")
        self._keys = tuple(keys)

    def decide(self, attempt: int, flags: tuple[str, ...], now: Time) -> Decision:
        visit, raw = self._visit, parse_raw_key(self._keys[0])
        exposure = exposure_id(parse_obs_id(raw.obs_id))
        close = mjd_tai(visit.predicted_shutter_close)
        midpoint = close - EXPOSURE / 2 / 86400
        ids = [source_id(detector_exposure_id(exposure, visit.detector), rank) for rank in range(2)]
        known = self._history.objects
        known = known[known["firstDiaSourceMjdTai"] < midpoint].reset_index(drop=True)
        places = [(visit.ra, visit.dec), (visit.ra, visit.dec + 0.001)]
        object_ids = [_nearest(known, place, default) for place, default in zip(places, ids, strict=True)]
        counts = [1 + int((self._history.sources["diaObjectId"] == number).sum()) for number in object_ids]
        measured = {
            "visit": exposure,
            "detector": visit.detector,
            "diaObjectId": pd.array(object_ids, dtype="Int64"),
            "midpointMjdTai": midpoint,
            "timeProcessedMjdTai": mjd_tai(now),
            "ra": [ra for ra, _ in places],
            "dec": [dec for _, dec in places],
            "band": "r",
            "psfFlux": 100.0,
        }
        pixels = {"x": 1.0, "y": 2.0, "bboxSize": 30}
        sources = pd.DataFrame({"diaSourceId": np.array(ids), **measured, **pixels})
        forced = pd.DataFrame({"diaForcedSourceId": np.array(ids), **measured}).astype(
            {"diaObjectId": "int64"}
        )
        objects_ = pd.DataFrame(
            {
                "diaObjectId": np.array(object_ids),
                "ra": measured["ra"],
                "dec": measured["dec"],
                "nDiaSources": counts,
                "firstDiaSourceMjdTai": [
                    _first(self._history.sources, number, midpoint) for number in object_ids
                ],
                "validityStartMjdTai": midpoint,
            }
        )
        return Decision(
            info=DecisionInfo(
                instrument=visit.instrument,
                group=visit.groupId,
                detector=visit.detector,
                day_obs=raw.day_obs,
                exposure=exposure,
                visit=exposure,
                midpoint_mjd_tai=midpoint,
                shutter_close_mjd_tai=close,
                raws=self._keys,
                attempt=attempt,
                pipeline="test",
                alert_schema_id=1,
                flags=flags,
            ),
            dia_object=conform("DiaObject", objects_),
            dia_source=conform("DiaSource", sources),
            dia_forced_source=conform("DiaForcedSource", forced),
            # What an alert says depends on the moment at which the history was read.
            packets=tuple(
                (number, f"{number} of {object_id}, {count} sources, attempt {attempt}".encode())
                for number, object_id, count in zip(ids, object_ids, counts, strict=True)
            ),
        )

    def metrics(self, decision: Decision, watch: Any, now: Time) -> VisitMetrics:
        info = decision.info
        return VisitMetrics(
            info.instrument, info.detector, info.visit, info.exposure, info.group, info.day_obs, "r",
            "SDSSr_65mm~empty", "run", "1", 0.0, (),
        )  # fmt: skip

    def products(self, decision: Decision) -> tuple[Any, list[str]]:
        self._faults.point("persist")
        return tuple(self._visit.key), list(decision.info.raws)


def _nearest(known: pd.DataFrame, place: tuple[float, float], default: int) -> int:
    """Return the object at a place, or a new one."""
    at_place = known[np.abs(known["dec"] - place[1]) < 1e-4]
    return int(at_place["diaObjectId"].min()) if len(at_place) else default


def _first(sources: pd.DataFrame, number: int, midpoint: float) -> float:
    own = sources[sources["diaObjectId"] == number]
    return float(own["midpointMjdTai"].min()) if len(own) else midpoint
