"""From folders of RLDS to batches: reading without TensorFlow, windows, statistics, mixtures, an order that is a function of the seed."""
