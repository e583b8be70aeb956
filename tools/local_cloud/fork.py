"""The process that engines and bridges of tests are forked from: one for all, so it knows everything."""

from prompt_processing.runtime.fork_server import CONTEXT

CONTEXT.set_forkserver_preload(
    [
        "prompt_processing.factory.engine_imports",
        "prompt_processing.factory.bridge",
        "prompt_processing.messaging.pubsub",
    ]
)
