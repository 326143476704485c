import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.StateRestoreListener;

/**
 * Kafka Streams as a contender. The one argument is a job as JSON; lines on standard output tell the suite what it
 * cannot see from outside; the end of standard input ends the process in order.
 */
public final class Bench {
    private static final Duration CLOSE = Duration.ofSeconds(20);

    private Bench() {}

    /** Tells the suite, at once. */
    static void say(String line) {
        synchronized (System.out) {
            System.out.println(line);
            System.out.flush();
        }
    }

    public static void main(String[] arguments) throws Exception {
        JsonNode job = new ObjectMapper().readTree(arguments[0]);
        CountDownLatch ended = new CountDownLatch(1);
        AtomicBoolean failed = new AtomicBoolean();
        Properties settings = settings(job);
        try (KafkaStreams streams = new KafkaStreams(Works.topology(job, settings), settings)) {
            streams.setUncaughtExceptionHandler(error -> {
                error.printStackTrace();
                failed.set(true);
                ended.countDown();
                return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
            });
            streams.setGlobalStateRestoreListener(new Restored());
            streams.start();
            Thread lifeline = new Thread(() -> awaitEndOfInput(ended), "lifeline");
            lifeline.setDaemon(true);
            lifeline.start();
            ended.await();
            streams.close(CLOSE);
        }
        System.exit(failed.get() ? 1 : 0);
    }

    private static void awaitEndOfInput(CountDownLatch ended) {
        byte[] buffer = new byte[64];
        try {
            while (System.in.read(buffer) >= 0) {
                // Nothing is ever sent.
            }
        } catch (IOException error) {
            error.printStackTrace();
        }
        ended.countDown();
    }

    private static Properties settings(JsonNode job) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, job.get("application_id").asText());
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, job.get("servers").asText());
        settings.put(StreamsConfig.STATE_DIR_CONFIG, job.get("state_dir").asText());
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, job.get("commit_ms").asLong());
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, job.get("threads").asInt());
        // A table's rows are written once: its topic is its changelog, as it is for streamstate.
        settings.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, StreamsConfig.REUSE_KTABLE_SOURCE_TOPICS);
        // What librdkafka has by default and all others here use; with Java's 16 KiB it is slower.
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 1_000_000);
        long cache = job.get("cache_bytes").asLong();
        if (cache >= 0) {
            settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, cache);
        }
        job.get("options").properties().forEach(option -> settings.put(option.getKey(), option.getValue().asText()));
        return settings;
    }

    /** Says when restoring begins and how many records each partition took. */
    private static final class Restored implements StateRestoreListener {
        private final AtomicBoolean begun = new AtomicBoolean();

        @Override
        public void onRestoreStart(TopicPartition partition, String store, long start, long end) {
            if (end > start && begun.compareAndSet(false, true)) {
                say("restore-start");
            }
        }

        @Override
        public void onBatchRestored(TopicPartition partition, String store, long end, long count) {
            // Only the whole is of interest.
        }

        @Override
        public void onRestoreEnd(TopicPartition partition, String store, long total) {
            say("restored " + total);
        }
    }
}
