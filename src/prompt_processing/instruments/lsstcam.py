"""LSSTCam, the camera of Rubin's Simonyi Survey Telescope, for the LSST middleware."""

from prompt_processing.instruments.cameras import LSSTCAM
from prompt_processing.instruments.instrument import RubinInstrument


class LsstCam(RubinInstrument):
    """LSSTCam."""

    camera = LSSTCAM
