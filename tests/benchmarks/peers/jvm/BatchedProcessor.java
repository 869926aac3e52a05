import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * A micro-batch by hand: events are kept until their stream comes again, until they fill a batch, or for 10 ms.
 *
 * <p>What is kept here is lost in a crash after a commit, whose positions cover it: the interface has no way to step a
 * batch before a commit. So this is faster than what may be used.
 */
final class BatchedProcessor implements Processor<byte[], byte[], byte[], byte[]> {
    private static final int MOST = 256;

    private final String path;
    private final List<Record<byte[], byte[]>> records = new ArrayList<>();
    private final List<Event> events = new ArrayList<>();
    private final Set<String> streams = new HashSet<>();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<String, byte[]> rows;
    private Model model;

    BatchedProcessor(String path) {
        this.path = path;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> given) {
        context = given;
        rows = given.getStateStore(StreamsPeer.ROWS);
        try {
            model = new Model(path, MOST);
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
        given.schedule(Duration.ofMillis(10), PunctuationType.WALL_CLOCK_TIME, now -> step());
    }

    @Override
    public void process(Record<byte[], byte[]> taken) {
        Meter.event();
        try {
            Event event = Event.read(taken.value());
            if (events.size() == MOST || !streams.add(event.uniqueId)) {
                step();
                streams.add(event.uniqueId);
            }
            records.add(taken);
            events.add(event);
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    @Override
    public void close() {
        step();
    }

    private void step() {
        if (events.isEmpty()) {
            return;
        }
        try {
            for (int row = 0; row < events.size(); row++) {
                Event event = events.get(row);
                model.give(row, event.ds, event.y, rows.get(event.uniqueId));
            }
            model.step(events.size());
            for (int row = 0; row < events.size(); row++) {
                rows.put(events.get(row).uniqueId, model.state(row));
                context.forward(records.get(row).withValue(events.get(row).reply(model, row)));
            }
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
        records.clear();
        events.clear();
        streams.clear();
    }
}
