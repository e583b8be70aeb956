"""Header cards of the raws of Rubin's cameras, translated for `astro_metadata_translator`.

What all cameras have in common; what differs is in `prompt_processing.instruments.translators`. Rules and
names are those of ``lsst/obs_lsst`` (``translators/lsst.py``). Where Rubin's translator guesses a value, this
one raises `~prompt_processing.domain.errors.HeaderError`.
"""

import math
from typing import Any, ClassVar, NoReturn

import astropy.units as u
from astro_metadata_translator import FitsTranslator, cache_translation
from astropy.coordinates import AltAz, Angle, EarthLocation, SkyCoord
from astropy.time import Time, TimeDelta

from prompt_processing.domain import ids
from prompt_processing.domain.errors import HeaderError

_OFF_SKY = frozenset({"bias", "dark", "flat"})
_ROLLOVER = TimeDelta(12 * 3600, format="sec", scale="tai")


class RubinTranslator(FitsTranslator):
    """Translator of the primary headers of a camera; subclasses name the camera."""

    instruments: ClassVar[frozenset[str]]
    """Values of ``INSTRUME``."""
    site: ClassVar[EarthLocation]
    """Where the telescope stands, if the header does not tell."""

    @classmethod
    def can_translate(cls, header: Any, filename: str | None = None) -> bool:
        """Tell whether a header is of this camera."""
        del filename
        return str(header.get("INSTRUME", "")).strip() in cls.instruments

    @classmethod
    def observing_date_to_offset(cls, observing_date: Time) -> TimeDelta:
        """Return by how much a day of observation begins after midnight: 12 h."""
        del observing_date
        return _ROLLOVER

    @cache_translation
    def to_observing_day_offset(self) -> TimeDelta:
        """Return by how much a day of observation begins after midnight: 12 h."""
        return _ROLLOVER

    # Identity

    @cache_translation
    def to_observation_id(self) -> str:
        """Return ``OBSID`` (``IMGNAME`` in old files), such as ``AT_O_20240624_000106``."""
        card = "OBSID" if self.is_key_ok("OBSID") else "IMGNAME"
        return self._text(card if self.is_key_ok(card) else "OBSID")

    def observation_number(self) -> ids.ObservationNumber:
        """Return day, sequence number and controller; the cards must agree with the observation id."""
        try:
            number = ids.parse_obs_id(self.to_observation_id())
        except HeaderError as error:
            self._wrong("OBSID", str(error))
        for card, expected in (
            ("DAYOBS", str(number.day_obs)),
            ("SEQNUM", str(number.seq_num)),
            ("CONTRLLR", number.controller),
        ):
            value = str(self._header[card]).replace("-", "").strip() if self.is_key_ok(card) else expected
            if value != expected:
                self._wrong(card, f"OBSID {self.to_observation_id()} says {expected}")
            self._used_these_cards(card)
        return number

    @cache_translation
    def to_exposure_id(self) -> int:
        """Return the exposure id, `prompt_processing.domain.ids.exposure_id`."""
        return ids.exposure_id(self.observation_number())

    @cache_translation
    def to_detector_exposure_id(self) -> int:
        """Return `prompt_processing.domain.ids.detector_exposure_id`."""
        detector = self.to_detector_num()
        try:
            return ids.detector_exposure_id(self.to_exposure_id(), detector)
        except HeaderError as error:
            self._wrong("SEQNUM", str(error))

    @cache_translation
    def to_exposure_group(self) -> str:
        """Return ``GROUPID``, or the exposure id as text where there is none."""
        return self._text("GROUPID") if self.is_key_ok("GROUPID") else str(self.to_exposure_id())

    @cache_translation
    def to_visit_id(self) -> int:
        """Return the visit id that Rubin derives from the group."""
        try:
            return ids.visit_id_from_group(self.to_exposure_group())
        except HeaderError as error:
            self._wrong("GROUPID", str(error))

    @cache_translation
    def to_observing_day(self) -> int:
        """Return the day of observation, YYYYMMDD."""
        return self.observation_number().day_obs

    @cache_translation
    def to_observation_counter(self) -> int:
        """Return the sequence number within the day."""
        return self.observation_number().seq_num

    @cache_translation
    def to_group_counter_start(self) -> int:
        """Return the sequence number of the group's first exposure, from ``CURINDEX`` (1-based)."""
        return self.to_observation_counter() - self._index("CURINDEX") + 1

    @cache_translation
    def to_group_counter_end(self) -> int:
        """Return the sequence number of the group's last exposure, from ``CURINDEX`` and ``MAXINDEX``."""
        last = max(self._index("MAXINDEX"), self._index("CURINDEX"))
        return self.to_group_counter_start() + last - 1

    @cache_translation
    def to_detector_serial(self) -> str:
        """Return ``LSST_NUM``, the serial name of the detector."""
        return self._text("LSST_NUM") if self.is_key_ok("LSST_NUM") else "unknown"

    # What was observed

    @cache_translation
    def to_observation_type(self) -> str:
        """Return ``OBSTYPE`` or ``IMGTYPE`` in lower case; ``OBJECT`` and ``SKYEXP`` are ``science``."""
        kind = self._text("OBSTYPE" if self.is_key_ok("OBSTYPE") else "IMGTYPE").lower()
        return "science" if kind in {"object", "skyexp"} else kind

    @cache_translation
    def to_observation_reason(self) -> str:
        """Return ``REASON`` or ``TESTTYPE`` in lower case, else the observation type."""
        for card in ("REASON", "TESTTYPE"):
            if self.is_key_ok(card):
                return self._text(card).lower()
        return self.to_observation_type()

    @cache_translation
    def to_science_program(self) -> str:
        """Return ``PROGRAM``, or ``unknown``."""
        return self._text("PROGRAM") if self.is_key_ok("PROGRAM") else "unknown"

    @cache_translation
    def to_object(self) -> str:
        """Return ``OBJECT``, or ``unknown``."""
        return self._text("OBJECT") if self.is_key_ok("OBJECT") else "unknown"

    @cache_translation
    def to_has_simulated_content(self) -> bool:
        """Tell whether anything was simulated: a true ``SIMULATE ...`` card, or a simulator as controller."""
        simulated = any("SIMULATE" in card and value for card, value in self._header.items())
        return bool(simulated) or self.observation_number().controller in ids.SIMULATED_CONTROLLERS

    @cache_translation
    def to_can_see_sky(self) -> bool | None:
        """Tell whether sky light could reach the detector: by ``VIGN_MIN``, else by the observation type."""
        if self.to_observation_type() in _OFF_SKY:
            return False
        if self.is_key_ok("VIGN_MIN"):
            return self._text("VIGN_MIN") != "FULLY"
        return True if self.to_observation_type() == "science" else None

    # When

    @cache_translation
    def to_datetime_begin(self) -> Time:
        """Return when the shutter opened: ``DATE-BEG``, ``MJD-BEG``, ``DATE-OBS`` or ``MJD-OBS``."""
        cards = ("DATE-BEG", "MJD-BEG", "DATE-OBS", "MJD-OBS")
        return self._time(next((card for card in cards if self.is_key_ok(card)), cards[0]))

    @cache_translation
    def to_datetime_end(self) -> Time:
        """Return when the shutter closed: ``DATE-END``, ``MJD-END``, or begin plus exposure time."""
        begin = self.to_datetime_begin()
        for card in ("DATE-END", "MJD-END"):
            if self.is_key_ok(card):
                end = self._time(card)
                if end < begin:
                    self._wrong(card, f"before the exposure began at {begin.isot} {begin.scale}")
                return end
        return begin + self.to_exposure_time()

    @cache_translation
    def to_exposure_time(self) -> u.Quantity:
        """Return ``EXPTIME`` [s]."""
        return self._number("EXPTIME", 0.0, 86400.0) * u.s

    @cache_translation
    def to_dark_time(self) -> u.Quantity:
        """Return ``DARKTIME`` [s], but never less than the exposure time."""
        exposure_time = self.to_exposure_time()
        if not self.is_key_ok("DARKTIME"):
            return exposure_time
        return max(self._number("DARKTIME", 0.0, 86400.0) * u.s, exposure_time)

    # Where to

    @cache_translation
    def to_location(self) -> EarthLocation:
        """Return the site of ``OBSGEO-X``, ``-Y``, ``-Z`` [m], else that of the telescope."""
        cards = ("OBSGEO-X", "OBSGEO-Y", "OBSGEO-Z")
        values = [self._optional_number(card) for card in cards]
        if any(value is None for value in values):
            return self.site
        return EarthLocation.from_geocentric(*values, unit=u.m)

    @cache_translation
    def to_tracking_radec(self) -> SkyCoord | None:
        """Return the boresight, ``RA`` and ``DEC`` [deg] (else ``RASTART`` and ``DECSTART``).

        `None` when the telescope did not follow the sky, by ``TRACKSYS`` or because it is a calibration.
        """
        local = self.is_key_ok("TRACKSYS") and self._text("TRACKSYS") != "RADEC"
        if self.to_observation_type() in _OFF_SKY or local:
            return None
        use_start = not self.are_keys_ok(["RA", "DEC"]) and self.are_keys_ok(["RASTART", "DECSTART"])
        ra, dec = ("RASTART", "DECSTART") if use_start else ("RA", "DEC")
        if self.to_observation_type() != "science" and not self.are_keys_ok([ra, dec]):
            return None
        frame = str(self._header["RADESYS"]).strip().lower() if self.is_key_ok("RADESYS") else ""
        if frame not in {"", "icrs", "fk5"}:
            self._wrong("RADESYS", "not ICRS or FK5")
        return SkyCoord(
            self._number(ra, 0.0, 360.0), self._number(dec, -90.0, 90.0), unit=u.deg, frame=frame or "icrs"
        )

    @cache_translation
    def to_boresight_rotation_angle(self) -> Angle | None:
        """Return ``ROTPA`` [deg]; `None` for what is not on the sky."""
        if self.to_tracking_radec() is None:
            return None
        if self.to_observation_type() != "science" and not self.is_key_ok("ROTPA"):
            return None
        return Angle(self._number("ROTPA", -720.0, 720.0), u.deg)

    @cache_translation
    def to_boresight_rotation_coord(self) -> str:
        """Return ``ROTCOORD`` of what is on the sky, usually ``sky``, else ``unknown``."""
        if self.to_tracking_radec() is None or not self.is_key_ok("ROTCOORD"):
            return "unknown"
        return self._text("ROTCOORD")

    @cache_translation
    def to_altaz_begin(self) -> AltAz | None:
        """Return ``ELSTART`` and ``AZSTART`` [deg], if both are there."""
        elevation, azimuth = self._optional_number("ELSTART"), self._optional_number("AZSTART")
        if elevation is None or azimuth is None or not -90.0 <= elevation <= 90.0:
            return None
        return AltAz(
            az=azimuth * u.deg,
            alt=elevation * u.deg,
            obstime=self.to_datetime_begin(),
            location=self.to_location(),
        )

    @cache_translation
    def to_boresight_airmass(self) -> float | None:
        """Return ``AMSTART``, else the secant of the zenith angle; `None` for what is not on the sky."""
        if self.to_tracking_radec() is None:
            return None
        airmass, altaz = self._optional_number("AMSTART"), self.to_altaz_begin()
        if airmass is None and altaz is not None:
            return float(altaz.secz.to_value())
        return airmass

    # Surroundings; nothing depends on them, so a value that makes no sense is left out

    @cache_translation
    def to_focus_z(self) -> u.Quantity:
        """Return ``FOCUSZ`` [mm], 0 if there is none."""
        return (self._optional_number("FOCUSZ") or 0.0) * u.mm

    @cache_translation
    def to_temperature(self) -> u.Quantity | None:
        """Return ``AIRTEMP`` [deg C]."""
        value = self._optional_number("AIRTEMP")
        return None if value is None else value * u.deg_C

    @cache_translation
    def to_pressure(self) -> u.Quantity | None:
        """Return ``PRESSURE``, in Pa if it is above 10000, in hPa otherwise."""
        value = self._optional_number("PRESSURE")
        return None if value is None else value * (u.Pa if value > 10_000.0 else u.hPa)

    @cache_translation
    def to_relative_humidity(self) -> float | None:
        """Return ``HUMIDITY`` [%]."""
        return self._optional_number("HUMIDITY")

    # Reading cards

    def _text(self, card: str) -> str:
        value = self._card(card)
        text = value.strip() if isinstance(value, str) else ""
        if not text:
            self._wrong(card, "text is needed")
        return text

    def _number(self, card: str, low: float, high: float) -> float:
        value = self._card(card)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self._wrong(card, f"a number from {low:g} to {high:g} is needed")
        return float(value)

    def _optional_number(self, card: str) -> float | None:
        value = self._header.get(card)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        self._used_these_cards(card)
        return float(value)

    def _index(self, card: str) -> int:
        if not self.is_key_ok(card):
            return 1
        value = self._number(card, 1, 10_000)
        if value != int(value):
            self._wrong(card, "a whole number is needed")
        return int(value)

    def _time(self, card: str) -> Time:
        scale = self._text("TIMESYS").lower() if self.is_key_ok("TIMESYS") else "tai"
        if scale not in {"tai", "utc", "tt"}:
            self._wrong("TIMESYS", "not TAI, UTC or TT")
        value = self._card(card)
        form, kind = ("mjd", int | float) if card.startswith("MJD") else ("fits", str)
        try:
            if isinstance(value, bool) or not isinstance(value, kind):
                raise TypeError(f"not of the form {form}")  # noqa: TRY301 - told to the user below
            time = Time(value, format=form, scale=scale)
            year = time.tai.ymdhms.year
        except (ValueError, TypeError, AttributeError) as error:
            self._wrong(card, f"not a time in the scale {scale} ({error})")
        if not 2010 <= year <= 2050:
            self._wrong(card, "not between 2010 and 2050")
        return time

    def _card(self, card: str) -> Any:
        if not self.is_key_ok(card):
            self._missing(card)
        self._used_these_cards(card)
        return self._header[card]

    def _missing(self, card: str) -> NoReturn:
        raise HeaderError(f"card {card} is missing")

    def _wrong(self, card: str, reason: str) -> NoReturn:
        value = self._header.get(card)
        raise HeaderError(f"card {card} is {value!r}: {reason}")
