"""All that an engine imports: the process that engines are forked from has imported this module.

Forking needs a process in which no other thread could hold a lock, so nothing here may start one. (pyarrow's
allocator, jemalloc, has a thread of its own, and takes care of it around a fork.)
"""

import gc
import os

# Before numpy is loaded: its linear algebra would start one thread per core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import prompt_processing.factory.worker
import prompt_processing.tasks.associate
import prompt_processing.tasks.calibrate_image
import prompt_processing.tasks.detect_and_measure
import prompt_processing.tasks.get_template
import prompt_processing.tasks.isr
import prompt_processing.tasks.join_template
import prompt_processing.tasks.standardize
import prompt_processing.tasks.subtract_images  # noqa: F401
from prompt_processing.execution.graphs import code_version, package_versions

# The same in every engine.
package_versions()
code_version()

# What is here already is not collected in any engine, so its memory stays shared.
gc.collect()
gc.freeze()
