"""PipelineTasks: the science, in order; they only connect datasets to functions of images."""

import numpy as np  # noqa: F401 (a library can only be limited once it is loaded)
from threadpoolctl import threadpool_limits

# One thread for linear algebra: results must not depend on the number of cores, and for the small matrices
# here a second thread costs more than it gains, up to a hundredfold on a busy machine. One detector per core
# is the better use of cores. It stands here so that it holds for pipetask as well.
threadpool_limits(limits=1, user_api="blas")
