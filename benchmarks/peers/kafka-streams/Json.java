import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;

/** Records as plain objects, their serdes on Jackson, and the binary serde of a mean's state. */
final class Json {
    private Json() {}

    /** An input record. */
    @JsonIgnoreProperties(ignoreUnknown = true)
    public static final class Event {
        public long id;
        public String group;
        public long amount;
        public String note;
    }

    /** A row of the table. */
    public static final class Customer {
        public String name;
        public int level;
    }

    public record Mapped(long id, long twice) {}

    public record Mean(long start, double mean) {}

    public record Enriched(long id, long amount, String name) {}

    public record Pair(long left, long right) {}

    /** What a mean is computed from. */
    static final class Sum {
        long total;
        long count;

        Sum add(long amount) {
            total += amount;
            count++;
            return this;
        }
    }

    private static final ObjectMapper MAPPER = new ObjectMapper();
    private static volatile boolean begun;

    /** JSON both ways. The first record that is read is reported. */
    static <T> Serde<T> of(Class<T> type) {
        ObjectWriter writer = MAPPER.writerFor(type);
        ObjectReader reader = MAPPER.readerFor(type);
        Serializer<T> serializer = (topic, value) -> {
            try {
                return value == null ? null : writer.writeValueAsBytes(value);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        };
        Deserializer<T> deserializer = (topic, bytes) -> {
            if (!begun) {
                begin();
            }
            try {
                return bytes == null ? null : reader.readValue(bytes);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        };
        return Serdes.serdeFrom(serializer, deserializer);
    }

    /** A count as a JSON number; nobody here reads it. */
    static Serde<Long> number() {
        return Serdes.serdeFrom(
                (topic, value) -> value == null ? null : Long.toString(value).getBytes(StandardCharsets.US_ASCII),
                (topic, bytes) -> bytes == null ? null : Long.parseLong(new String(bytes, StandardCharsets.US_ASCII)));
    }

    /** The state of a mean in 16 bytes. */
    static Serde<Sum> sum() {
        return Serdes.serdeFrom(
                (topic, value) -> value == null
                        ? null
                        : ByteBuffer.allocate(16).putLong(value.total).putLong(value.count).array(),
                (topic, bytes) -> {
                    if (bytes == null) {
                        return null;
                    }
                    ByteBuffer buffer = ByteBuffer.wrap(bytes);
                    Sum sum = new Sum();
                    sum.total = buffer.getLong();
                    sum.count = buffer.getLong();
                    return sum;
                });
    }

    private static synchronized void begin() {
        if (!begun) {
            begun = true;
            Bench.say("first");
        }
    }
}
