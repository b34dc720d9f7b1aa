"""Jobs on Apache Beam: the functions that processes run here, on Dataflow, Flink or Spark by Beam's own flags.

Workers need this package, and folders that they share with this machine: a bucket's for the data and for what jobs write.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ebt_jax.data import jobs


def on_beam(options: Sequence[str] = ()) -> jobs.Runner:
    """A runner whose jobs are the elements of one pipeline: `options` as Beam's flags, ["--runner=DataflowRunner", "--project=..."].

    Jobs return nothing, they write; the pipeline is over when all have. Raises ImportError without apache-beam.
    """
    try:
        import apache_beam as beam  # pyright: ignore[reportMissingImports]
        from apache_beam.options.pipeline_options import PipelineOptions  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("running jobs on Beam needs apache-beam: pip install 'ebt_jax[beam]'.") from error

    def runner(job: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[None]:
        with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
            _ = pipeline | beam.Create(list(items)) | beam.Reshuffle() | beam.Map(job)
        yield from [None] * len(items)

    return runner
