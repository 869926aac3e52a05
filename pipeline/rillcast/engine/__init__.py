"""Events in, forecasts out, state advanced in place on the device.

Rule: the events of a stream are stepped in their order, each exactly once, whatever else is in the batch.
Does not know: Kafka, the metrics client, the wall clock (it receives a timer).
"""
