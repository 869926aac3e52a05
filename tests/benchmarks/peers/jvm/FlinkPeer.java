import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Flink: keyed state on the heap, a checkpoint to disk every second, source and sink of its Kafka connector. */
final class FlinkPeer {
    private FlinkPeer() {}

    public static void main(String[] arguments) throws Exception {
        Task task = Task.of(arguments);
        Configuration settings = new Configuration();
        settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY,
                Files.createTempDirectory("rillcast-peer-").toUri().toString());
        var flink = StreamExecutionEnvironment.createLocalEnvironment(Task.THREADS, settings);
        flink.getConfig().enableObjectReuse();
        flink.enableCheckpointing(1000,
                task.exactlyOnce() ? CheckpointingMode.EXACTLY_ONCE : CheckpointingMode.AT_LEAST_ONCE);
        KafkaSource<Event> source = KafkaSource.<Event>builder()
                .setBootstrapServers(task.bootstrap())
                .setTopics(task.input())
                .setGroupId(task.group())
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setBounded(OffsetsInitializer.latest())
                .setValueOnlyDeserializer(new Reader())
                .build();
        Properties producer = new Properties();
        producer.put("interceptor.classes", Meter.class.getName());
        producer.put("transaction.timeout.ms", "600000"); // the broker takes no longer ones than 15 minutes
        KafkaSink<Tuple2<byte[], byte[]>> sink = KafkaSink.<Tuple2<byte[], byte[]>>builder()
                .setBootstrapServers(task.bootstrap())
                .setKafkaProducerConfig(producer)
                .setRecordSerializer(new Writer(task.output()))
                .setDeliveryGuarantee(
                        task.exactlyOnce() ? DeliveryGuarantee.EXACTLY_ONCE : DeliveryGuarantee.AT_LEAST_ONCE)
                .setTransactionalIdPrefix(task.group())
                .build();
        flink.fromSource(source, WatermarkStrategy.noWatermarks(), "events")
                .keyBy(event -> event.uniqueId)
                .process(new Step(task.model()))
                .sinkTo(sink);
        flink.execute();
        Meter.await();
        Meter.print();
    }

    private static final class Reader extends AbstractDeserializationSchema<Event> {
        @Override
        public Event deserialize(byte[] value) throws java.io.IOException {
            return Event.read(value);
        }
    }

    private record Writer(String topic) implements KafkaRecordSerializationSchema<Tuple2<byte[], byte[]>> {
        @Override
        public ProducerRecord<byte[], byte[]> serialize(
                Tuple2<byte[], byte[]> reply, KafkaSinkContext context, Long timestamp) {
            return new ProducerRecord<>(topic, reply.f0, reply.f1);
        }
    }

    private static final class Step extends KeyedProcessFunction<String, Event, Tuple2<byte[], byte[]>> {
        private final String path;
        private transient Model model;
        private transient ValueState<byte[]> row;

        Step(String path) {
            this.path = path;
        }

        @Override
        public void open(OpenContext context) throws Exception {
            model = new Model(path, 1);
            row = getRuntimeContext().getState(new ValueStateDescriptor<>("row", byte[].class));
        }

        @Override
        public void processElement(Event event, Context context, Collector<Tuple2<byte[], byte[]>> out)
                throws Exception {
            Meter.event();
            model.give(0, event.ds, event.y, row.value());
            model.step(1);
            row.update(model.state(0));
            out.collect(Tuple2.of(event.uniqueId.getBytes(StandardCharsets.UTF_8), event.reply(model, 0)));
        }
    }
}
