"""Events in, forecasts out, state advanced in place on the device.

Rule: the events of a stream are stepped in their order, each exactly once, in any batch.
Does not know: Kafka, the metrics client, the wall clock (it receives a timer).
"""
