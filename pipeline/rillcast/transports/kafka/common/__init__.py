"""What the two Kafka clients share: transactions, errors, partition reading, time-outs."""
