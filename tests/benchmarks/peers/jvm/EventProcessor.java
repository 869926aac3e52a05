import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** One event at a time, as the interface of Kafka Streams has it. */
final class EventProcessor implements Processor<byte[], byte[], byte[], byte[]> {
    private final String path;
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<String, byte[]> rows;
    private Model model;

    EventProcessor(String path) {
        this.path = path;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> given) {
        context = given;
        rows = given.getStateStore(StreamsPeer.ROWS);
        try {
            model = new Model(path, 1);
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    @Override
    public void process(Record<byte[], byte[]> taken) {
        Meter.event();
        try {
            Event event = Event.read(taken.value());
            model.give(0, event.ds, event.y, rows.get(event.uniqueId));
            model.step(1);
            rows.put(event.uniqueId, model.state(0));
            context.forward(taken.withValue(event.reply(model, 0)));
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }
}
