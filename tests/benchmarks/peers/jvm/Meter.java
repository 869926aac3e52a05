import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.producer.ProducerInterceptor;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;

/**
 * Measures a run from an event in hand to the broker's word that it has the last forecast.
 *
 * <p>The clock starts after the first fifth of the events, because the JVM compiles what runs often while it runs.
 */
public final class Meter implements ProducerInterceptor<byte[], byte[]> {
    private static final AtomicLong TAKEN = new AtomicLong();
    private static final AtomicLong WRITTEN = new AtomicLong();
    private static final CountDownLatch DONE = new CountDownLatch(1);
    private static final OperatingSystemMXBean SYSTEM =
            (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    private static Task task;
    private static long started;
    private static long startedCpu;
    private static double seconds;
    private static double cpuSeconds;

    static void measure(Task given) {
        task = given;
    }

    /** Counts an event in hand. */
    static void event() {
        if (TAKEN.getAndIncrement() == task.events() / 5) {
            started = System.nanoTime();
            startedCpu = SYSTEM.getProcessCpuTime();
        }
    }

    @Override
    public void onAcknowledgement(RecordMetadata metadata, Exception error) {
        if (error == null && metadata.topic().equals(task.output()) && WRITTEN.incrementAndGet() == task.events()) {
            seconds = (System.nanoTime() - started) / 1e9;
            cpuSeconds = (SYSTEM.getProcessCpuTime() - startedCpu) / 1e9;
            DONE.countDown();
        }
    }

    /** Waits until the broker has every forecast. */
    static void await() throws InterruptedException {
        DONE.await();
    }

    /** Prints what the run took, as the one line of output. */
    static void print() throws Exception {
        double peak = Files.readAllLines(Path.of("/proc/self/status")).stream()
                .filter(line -> line.startsWith("VmHWM:"))
                .mapToDouble(line -> Double.parseDouble(line.split("\\s+")[1]) / 1024)
                .findFirst()
                .orElseThrow();
        System.out.printf("{\"events\": %d, \"seconds\": %.6f, \"cpu_seconds\": %.6f, \"peak_rss_mib\": %.1f}%n",
                task.events() - task.events() / 5, seconds, cpuSeconds, peak);
    }

    @Override
    public ProducerRecord<byte[], byte[]> onSend(ProducerRecord<byte[], byte[]> sent) {
        return sent;
    }

    @Override
    public void close() {}

    @Override
    public void configure(Map<String, ?> settings) {}
}
