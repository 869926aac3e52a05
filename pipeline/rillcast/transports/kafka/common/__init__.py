"""Code that both Kafka clients share: transactions, errors, partition reading, retries, time-outs."""
