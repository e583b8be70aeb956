import numpy as np
import pytest

from prompt_processing.views.assess import Measured, TrueEvent, assess

SCALE = 0.1
"""[arcsec/pixel], so 8 pixels are 0.8 arcsec."""


def event(
    dec_arcsec: float, *, snr: float = 20.0, flux: float = 1000.0, kind: str = "transient", group: str = "g"
) -> TrueEvent:
    return TrueEvent(group=group, kind=kind, ra=30.0, dec=dec_arcsec / 3600, snr=snr, flux=flux)


def alert(
    number: int, dec_arcsec: float, *, flux: float = 1000.0, disqualified: bool = False, group: str = "g"
) -> Measured:
    return Measured(number, group, 30.0, dec_arcsec / 3600, flux, disqualified)


def test_an_event_is_found_within_eight_pixels_and_not_beyond():
    result = assess([event(0.0), event(100.0)], [alert(1, 0.79), alert(2, 100.81)], ["g"], SCALE)
    assert result.completeness_bright == 0.5
    assert result.visits[0].n_found == 1
    assert result.visits[0].n_false == 1
    assert result.labels == {1: "transient"}


def test_completeness_is_counted_in_bins_of_signal_to_noise():
    events = [event(10.0 * i, snr=snr) for i, snr in enumerate([6.0, 6.5, 8.0, 12.0, 50.0])]
    alerts = [alert(1, 0.0), alert(2, 20.0), alert(3, 40.0)]
    result = assess(events, alerts, ["g"], SCALE)
    assert result.snr_edges == (5.0, 7.0, 10.0, 14.0, 20.0, 30.0, 50.0)
    assert result.total == (2, 1, 1, 0, 0, 1)
    assert result.found == (1, 1, 0, 0, 0, 1)
    assert result.completeness_bright == 0.5


def test_variable_stars_and_moving_objects_are_not_false_and_do_not_count_as_transients():
    events = [event(0.0, kind="variable"), event(10.0, kind="moving")]
    result = assess(events, [alert(1, 0.0), alert(2, 10.0)], ["g"], SCALE)
    assert result.visits[0].n_false == 0
    assert result.visits[0].n_transients == 0
    assert result.completeness_bright is None
    assert result.labels == {1: "variable", 2: "moving"}


def test_an_alert_with_a_disqualifying_flag_is_not_false():
    result = assess([event(0.0)], [alert(1, 50.0), alert(2, 60.0, disqualified=True)], ["g"], SCALE)
    assert result.visits[0].n_false == 1


def test_visits_are_kept_apart():
    events = [event(0.0, group="a"), event(0.0, group="b")]
    result = assess(events, [alert(1, 0.0, group="a"), alert(2, 90.0, group="b")], ["a", "b"], SCALE)
    assert [visit.n_found for visit in result.visits] == [1, 0]
    assert [visit.n_false for visit in result.visits] == [0, 1]
    assert result.false_per_visit == 0.5


def test_a_visit_that_was_not_processed_does_not_count():
    result = assess([event(0.0, group="a"), event(0.0, group="b")], [alert(1, 0.0, group="a")], ["a"], SCALE)
    assert result.completeness_bright == 1.0
    assert [visit.group for visit in result.visits] == ["a"]


def test_position_error_and_flux_bias_are_medians_of_what_was_found():
    events = [event(10.0 * i, flux=1000.0) for i in range(3)] + [event(100.0, snr=6.0)]
    offsets, ratios = [0.1, 0.2, 0.6], [0.9, 1.04, 1.05]
    alerts = [
        alert(i, 10.0 * i + offset, flux=1000.0 * ratio)
        for i, (offset, ratio) in enumerate(zip(offsets, ratios, strict=True))
    ]
    # Faint: found at the right place, so it counts for the position but not for the flux.
    alerts.append(alert(9, 100.0, flux=3000.0))
    result = assess(events, alerts, ["g"], SCALE)
    assert result.astrometric_error_arcsec == pytest.approx(np.median([0.1, 0.2, 0.6, 0.0]), abs=1e-6)
    assert result.flux_bias == pytest.approx(0.04, abs=1e-9)


def test_a_night_without_alerts_finds_nothing():
    result = assess([event(0.0)], [], ["g"], SCALE)
    assert result.completeness_bright == 0.0
    assert result.astrometric_error_arcsec is None
    assert result.flux_bias is None


def test_alerts_where_nothing_happened_are_all_false():
    result = assess([], [alert(1, 0.0), alert(2, 5.0)], ["g"], SCALE)
    assert result.visits[0].n_false == 2
    assert result.labels == {}
