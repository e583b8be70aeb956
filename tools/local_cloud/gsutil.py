"""Uploads with gsutil, as from a telescope that has nothing of ours."""

import os
import shutil
import subprocess
from pathlib import Path

from local_cloud.emulators import GcsServer
from prompt_processing.night.files import LocalRaw
from prompt_processing.night.landing import WHOLE

_BOTO = """\
[Credentials]
gs_json_host = 127.0.0.1
gs_json_port = {port}
[Boto]
https_validate_certificates = False
num_retries = 2
[GSUtil]
default_project_id = prompt-local
software_update_check_period = 0
parallel_composite_upload_threshold = 0
"""


def has_gsutil() -> bool:
    return shutil.which("gsutil") is not None


class GsutilLanding:
    """A `~prompt_processing.night.landing.Landing` that calls gsutil.

    Parameters
    ----------
    gcs, bucket
        Where raws go to.
    work
        Folder for the settings of gsutil.
    """

    def __init__(self, gcs: GcsServer, bucket: str, work: Path) -> None:
        self._bucket = bucket
        work.mkdir(parents=True, exist_ok=True)
        boto = work / "boto"
        boto.write_text(_BOTO.format(port=gcs.tls_port))
        self._environment = {
            **os.environ,
            "BOTO_CONFIG": str(boto),
            "CLOUDSDK_CONFIG": str(work / "gcloud"),
            "CLOUDSDK_CORE_PASS_CREDENTIALS_TO_GSUTIL": "false",
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        }

    def put_sidecar(self, file: LocalRaw) -> bool:
        return file.sidecar.exists() and self._copy(file.sidecar, file.raw.sidecar)

    def put_image(self, file: LocalRaw, keep: float = WHOLE) -> bool:
        assert keep == WHOLE, "gsutil uploads whole files"
        return self._copy(file.path, str(file.raw))

    def _copy(self, file: Path, key: str) -> bool:
        """Create an object: the service refuses to replace one."""
        condition = "x-goog-if-generation-match:0"
        command = ["gsutil", "-q", "-h", condition, "cp", str(file), f"gs://{self._bucket}/{key}"]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode and "PreconditionException" not in done.stderr:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.returncode == 0
