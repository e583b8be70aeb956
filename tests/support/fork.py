"""The process that engines and bridges of tests are forked from: one for all, so it knows everything."""

from prompt_processing.worker.fork_server import CONTEXT

CONTEXT.set_forkserver_preload(
    ["prompt_processing.warm", "prompt_processing.bridge_factory", "prompt_processing.messaging.pubsub"]
)
