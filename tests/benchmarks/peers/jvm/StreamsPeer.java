import java.nio.file.Files;
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.ProcessorSupplier;
import org.apache.kafka.streams.state.Stores;

/**
 * Kafka Streams: a processor with a state store (RocksDB and a changelog topic, as by default; with a cache that holds
 * every row, so that a row is written once a commit).
 */
final class StreamsPeer {
    static final String ROWS = "rows";

    private StreamsPeer() {}

    public static void main(String[] arguments) throws Exception {
        Task task = Task.of(arguments);
        ProcessorSupplier<byte[], byte[], byte[], byte[]> processor = arguments[8].equals("batched")
                ? () -> new BatchedProcessor(task.model())
                : () -> new EventProcessor(task.model());
        Topology topology = new Topology();
        topology.addSource("events", new ByteArrayDeserializer(), new ByteArrayDeserializer(), task.input())
                .addProcessor("step", processor, "events")
                .addStateStore(
                        Stores.keyValueStoreBuilder(
                                        Stores.persistentKeyValueStore(ROWS), Serdes.String(), Serdes.ByteArray())
                                .withCachingEnabled(),
                        "step")
                .addSink("forecasts", task.output(), new ByteArraySerializer(), new ByteArraySerializer(), "step");
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, task.group());
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, task.bootstrap());
        settings.put(StreamsConfig.STATE_DIR_CONFIG, Files.createTempDirectory("rillcast-peer-").toString());
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, Task.THREADS);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
                task.exactlyOnce() ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        settings.put(StreamsConfig.producerPrefix("interceptor.classes"), Meter.class.getName());
        KafkaStreams streams = new KafkaStreams(topology, settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            throw new AssertionError();
        });
        streams.start();
        Meter.await();
        Meter.print();
        streams.close(Duration.ofSeconds(30));
        streams.cleanUp();
    }
}
