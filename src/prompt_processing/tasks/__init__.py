"""PipelineTasks: the science, in order; they only connect datasets to functions of images."""
