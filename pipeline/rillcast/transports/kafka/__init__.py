"""Apache Kafka as source and sink, through librdkafka or kafka-python."""
