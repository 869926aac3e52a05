"""Sources and sinks: a file, or Kafka through either of two clients."""
